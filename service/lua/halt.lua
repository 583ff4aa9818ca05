-- Stop every call. A person's halt replaces any other; otherwise the first one stays. What a call has to say that was
-- made before calls were last let go again is old news.
--
-- KEYS  1 halt  2 probe  3 when calls were last let go again (ms)
-- ARGV  1 reason  2 kind  3 the kind only a person lifts  4 seconds until the first trial call  5 when the call was made
--       that brought this to light (ms), or ""
-- Returns 1 where it changed anything.

local resumed = redis.call('GET', KEYS[3])
if ARGV[5] ~= '' and resumed and tonumber(ARGV[5]) <= tonumber(resumed) then return 0 end
local kind = redis.call('HGET', KEYS[1], 'kind')
if kind and (kind == ARGV[2] or ARGV[2] ~= ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'reason', ARGV[1], 'kind', ARGV[2], 'since_ms', whole(now_ms()))
redis.call('SET', KEYS[2], 1, 'EX', ARGV[4])
return 1
