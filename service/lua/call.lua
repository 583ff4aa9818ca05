-- Write down that Close is about to be asked, and reserve its credit. Nothing may leave before this has said "go". An
-- event that came in before needs no further run: this call sees the record as the event left it.
--
-- KEYS  1 entry  2 active  3 counts  4 history  5 story  6 halt  7 park of the endpoint group  8 breaker of the field
--       9 price list of the day, then the counters of the budgets that the call falls under
-- ARGV  1 entry id  2 fence  3 lease_ms  4 ttl_seconds  5 JSON of the value before, or ""  6 1 to ask although halted
--       7 1 only to learn whether it could go, and change nothing  8 how long a trial of a broken field may take (ms)
--       then for each counter: its limit, and when it may be forgotten (ms)
-- Returns { "go", attempt } | { "fenced" } | { "halted" } | { "parked", milliseconds } | { "broken", milliseconds }
--         | { "exhausted", number of the budget, from 1 }

local found = redis.call('HMGET', KEYS[1], 'state', 'fence', 'object', 'name', 'rule', 'asked', 'attempts', 'again')
if found[2] ~= ARGV[2] or not found[1] or FINAL[found[1]] then return { 'fenced' } end
if found[6] == ARGV[2] then return { 'go', tonumber(found[7]) } end -- the same question once more: its answer was lost
if ARGV[6] ~= '1' and redis.call('EXISTS', KEYS[6]) == 1 then return { 'halted' } end
local parked = redis.call('PTTL', KEYS[7])
if parked > 0 then return { 'parked', parked } end
local now = now_ms()
local broken_until = tonumber(redis.call('HGET', KEYS[8], 'until_ms'))
if broken_until and broken_until > now then return { 'broken', broken_until - now } end
for i = 10, #KEYS do
  local limit = tonumber(ARGV[9 + (i - 10) * 2])
  if (tonumber(redis.call('GET', KEYS[i])) or 0) >= limit then return { 'exhausted', i - 9 } end
end
if ARGV[7] == '1' then return { 'go', 0 } end

for i = 10, #KEYS do
  redis.call('INCR', KEYS[i])
  redis.call('PEXPIREAT', KEYS[i], ARGV[10 + (i - 10) * 2])
end
-- one call tries a field whose pause is over; the others wait for what comes of it
if broken_until then redis.call('HSET', KEYS[8], 'until_ms', whole(now + ARGV[8]), 'trial', ARGV[1]) end
local attempt = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('HINCRBY', KEYS[1], 'calls', 1)
note_cost(KEYS[9], found[5], found[4], 'calls')
redis.call('HSET', KEYS[1], 'state', 'calling', 'reason', '', 'called_ms', whole(now), 'changed_ms', whole(now),
           'before', ARGV[5], 'asked', ARGV[2])
if found[8] then redis.call('HSET', KEYS[1], 'event', found[8]) end
redis.call('HDEL', KEYS[1], 'ambiguous', 'again')
redis.call('ZADD', KEYS[2], whole(now + ARGV[3]), ARGV[1])
count(KEYS[3], found[1], 'calling')
tell(KEYS[4], KEYS[5], now, ARGV[4], { id = ARGV[1], object = found[3], field = found[4], rule = found[5],
                                       state = 'calling', attempt = attempt })
return { 'go', attempt }
