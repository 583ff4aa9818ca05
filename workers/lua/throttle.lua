-- Permit calls of one endpoint group: one limiter for all workers that share an API key.
--
-- KEYS  1 limiter  2 park of the group  3 counts of entries by state
-- ARGV  1 live calls that wait  2 bulk calls that wait  3 most calls a second, or ""  4 most calls in flight, or ""
--       5 rate before anything is known
-- Returns { live permitted, bulk permitted, number of the first one, now_ms, ms until it is worth asking again,
--           refusals so far }
--
-- The limiter is a hash: seq (calls permitted so far), next_ms (when the next may go), live_ms (when live calls last
-- waited); and, from learn.lua: rate, limit, remaining, at_seq, at_ms. Calls are spread evenly at the learned rate,
-- corrected by how far the tokens that should be left are above or below a small reserve. So a burst allowance is
-- used up gently, and an overestimated rate costs no refusals.

local now = now_ms()
local live, bulk = tonumber(ARGV[1]), tonumber(ARGV[2])
local parked = redis.call('PTTL', KEYS[2])
if parked > 0 then return { 0, 0, 0, now, parked, 0 } end
local found = redis.call('HMGET', KEYS[1], 'seq', 'next_ms', 'live_ms', 'rate', 'limit', 'remaining', 'at_seq', 'at_ms',
                         'refusals')
local seq = tonumber(found[1]) or 0
local refusals = tonumber(found[9]) or 0
local rate = tonumber(found[4]) or tonumber(ARGV[5])

local tokens = nil
if found[5] then
  local limit = tonumber(found[5])
  local since = tonumber(found[6]) - (seq - tonumber(found[7]))
  tokens = math.min(limit, since + rate * math.max(0, now - tonumber(found[8])) / 1000)
  local reserve = math.max(1, limit * 0.15)
  local horizon = math.max(2, limit / rate / 2)
  -- a bucket of one or two tokens forgives no call that comes a moment early
  local margin = limit > 2 and 0.98 or 0.96
  rate = math.max(rate * 0.25, rate * margin + (tokens - reserve) / horizon)
end
if ARGV[3] ~= '' then rate = math.min(rate, tonumber(ARGV[3])) end
local interval = 1000 / rate

-- bulk work waits while any worker has had live calls waiting just now
if live > 0 then redis.call('HSET', KEYS[1], 'live_ms', whole(now)) end
local yields = live == 0 and found[3] and now - tonumber(found[3]) < math.max(250, 2 * interval)
if yields then bulk = 0 end

local room = live + bulk
if ARGV[4] ~= '' then
  local calling = tonumber(redis.call('HGET', KEYS[3], 'calling')) or 0
  room = math.min(room, math.max(0, tonumber(ARGV[4]) - calling))
  if room == 0 and live + bulk > 0 then return { 0, 0, 0, now, 50, refusals } end
end
-- who asks late may catch up a little, never in a burst, and not at all where a bucket holds a single token
local slack = math.max(40, interval)
if found[5] then slack = math.min(slack, (tonumber(found[5]) - 1) * interval / 2) end
local next_ms = math.max(tonumber(found[2]) or 0, now - slack)
local first = seq + 1
local permitted = 0
while permitted < room and next_ms <= now do
  permitted = permitted + 1
  next_ms = next_ms + interval
end
if permitted > 0 then
  redis.call('HSET', KEYS[1], 'seq', whole(seq + permitted), 'next_ms', string.format('%.3f', next_ms))
end
local live_permitted = math.min(live, permitted)
local wait = yields and 250 or math.max(5, math.ceil(next_ms - now))
return { live_permitted, permitted - live_permitted, first, now, wait, refusals }
