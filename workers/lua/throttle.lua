-- Permit calls of one endpoint group: one limiter for all workers that share an API key.
--
-- KEYS  1 limiter  2 park of the group  3 counts of entries by state  4 permits given and not used yet
-- ARGV  1 live calls that wait  2 bulk calls that wait  3 most calls a second, or ""  4 most calls in flight, or ""
--       5 rate before anything is known  6 how many of the calls in flight only live ones may be
-- Returns { live permitted, bulk permitted, number of the first one, now_ms, microseconds until it is worth asking
--           again, refusals so far, epoch }
--
-- The limiter is a hash: epoch (when it began, ms: a Redis that lost everything begins another one), seq (calls
-- permitted so far), next_ms (when the next may go), live_until_ms (until when bulk work yields); and, from
-- learn.lua: rate, limit, remaining, at_seq, at_ms, refusals. Calls are spread evenly at the learned rate, corrected by how far
-- the tokens that should be left are above or below a small reserve. So a burst allowance is used up gently, and an
-- overestimated rate costs no refusals.

local ASK_AGAIN_MS = 50 -- where nothing says when there will be room; and how late a worker that naps may wake up
local NAP_MS = 1000 -- nobody who waits stays silent for longer, see workers/throttle.py
local UNUSED_MS = 10000 -- a permit unused for so long is its dead worker's

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local live, bulk = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'seq', 'next_ms', 'live_until_ms', 'rate', 'limit', 'remaining', 'at_seq',
                         'at_ms', 'refusals', 'epoch')
local seq = tonumber(found[1]) or 0
local refusals = tonumber(found[9]) or 0
local epoch = tonumber(found[10])
if not epoch then
  epoch = math.floor(now)
  redis.call('HSET', KEYS[1], 'epoch', whole(epoch))
end

-- What is returned. Where live calls have to wait, bulk ones of all workers yield until they have asked again.
local function answer(live_permitted, bulk_permitted, wait_ms)
  local live_until_ms = now + math.min(wait_ms, NAP_MS) + ASK_AGAIN_MS
  if live > live_permitted and live_until_ms > (tonumber(found[3]) or 0) then
    redis.call('HSET', KEYS[1], 'live_until_ms', string.format('%.3f', live_until_ms))
  elseif live > 0 and live == live_permitted and found[3] then
    redis.call('HDEL', KEYS[1], 'live_until_ms') -- another worker's live calls say so again when they ask
  end
  return { live_permitted, bulk_permitted, seq + 1, math.floor(now), math.ceil(wait_ms * 1000), refusals, epoch }
end

local parked = redis.call('PTTL', KEYS[2])
if parked > 0 then return answer(0, 0, parked) end

local room = live + bulk
if ARGV[4] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', whole(now - UNUSED_MS))
  local busy = (tonumber(redis.call('HGET', KEYS[3], 'calling')) or 0) + redis.call('ZCARD', KEYS[4])
  local free = tonumber(ARGV[4]) - busy
  bulk = math.max(0, math.min(bulk, free - tonumber(ARGV[6]) - live))
  room = math.min(live + bulk, free)
  if room <= 0 then return answer(0, 0, ASK_AGAIN_MS) end
end

local rate = tonumber(found[4]) or tonumber(ARGV[5])
local limit = tonumber(found[5])
if limit then
  local since = tonumber(found[6]) - (seq - tonumber(found[7]))
  local tokens = math.min(limit, since + rate * math.max(0, now - tonumber(found[8])) / 1000)
  local reserve = math.max(1, limit * 0.15)
  local horizon = math.max(2, limit / rate / 2)
  -- a bucket of one or two tokens forgives no call that comes a moment early
  local margin = limit > 2 and 0.98 or 0.96
  rate = math.max(rate * 0.25, rate * margin + (tokens - reserve) / horizon)
end
if ARGV[3] ~= '' then rate = math.min(rate, tonumber(ARGV[3])) end
local interval = 1000 / rate

if live == 0 and now < (tonumber(found[3]) or 0) then return answer(0, 0, tonumber(found[3]) - now) end

-- who asks late may catch up a little, never in a burst, hardly at all where a bucket holds a single token, and not
-- while nothing is known
local slack = limit and math.min(math.max(40, interval), math.max(0.02, (limit - 1) / 2) * interval) or 0
-- a wait that was set at a slower rate is cut short
local known_next_ms = tonumber(found[2]) or 0
local next_ms = math.min(math.max(known_next_ms, now - slack), now + interval)
local permitted = 0
while permitted < room and next_ms <= now do
  permitted = permitted + 1
  next_ms = next_ms + interval
  if ARGV[4] ~= '' then redis.call('ZADD', KEYS[4], whole(now), whole(seq + permitted)) end
end
if permitted > 0 or next_ms < known_next_ms then
  redis.call('HSET', KEYS[1], 'seq', whole(seq + permitted), 'next_ms', string.format('%.3f', next_ms))
end
local live_permitted = math.min(live, permitted)
local wait_ms = math.max(1, next_ms - now)
-- the first reply may tell at any moment that calls can go faster
if not limit then wait_ms = math.min(wait_ms, ASK_AGAIN_MS) end
return answer(live_permitted, permitted - live_permitted, wait_ms)
