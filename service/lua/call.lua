-- Write down that Close is about to be asked. Nothing may leave before this has said "go". An event that came in
-- before needs no further run: this call sees the record as the event left it.
--
-- KEYS  1 entry  2 active  3 counts  4 history  5 story  6 halt  7 park of the endpoint group
-- ARGV  1 entry id  2 fence  3 lease_ms  4 ttl_seconds  5 JSON of the value before, or ""  6 1 to ask although halted
-- Returns { "go", attempt } | { "fenced" } | { "halted" } | { "parked", milliseconds }

local found = redis.call('HMGET', KEYS[1], 'state', 'fence', 'object', 'name', 'rule', 'asked', 'attempts', 'again')
if found[2] ~= ARGV[2] or not found[1] or FINAL[found[1]] then return { 'fenced' } end
if found[6] == ARGV[2] then return { 'go', tonumber(found[7]) } end -- the same question once more: its answer was lost
if ARGV[6] ~= '1' and redis.call('EXISTS', KEYS[6]) == 1 then return { 'halted' } end
local parked = redis.call('PTTL', KEYS[7])
if parked > 0 then return { 'parked', parked } end

local now = now_ms()
local attempt = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('HINCRBY', KEYS[1], 'calls', 1)
redis.call('HSET', KEYS[1], 'state', 'calling', 'reason', '', 'called_ms', whole(now), 'changed_ms', whole(now),
           'before', ARGV[5], 'asked', ARGV[2])
if found[8] then redis.call('HSET', KEYS[1], 'event', found[8]) end
redis.call('HDEL', KEYS[1], 'ambiguous', 'again')
redis.call('ZADD', KEYS[2], whole(now + ARGV[3]), ARGV[1])
count(KEYS[3], found[1], 'calling')
tell(KEYS[4], KEYS[5], now, ARGV[4], { id = ARGV[1], object = found[3], field = found[4], rule = found[5],
                                       state = 'calling', attempt = attempt })
return { 'go', attempt }
