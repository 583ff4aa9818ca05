-- Stop every call. A person's halt replaces any other; otherwise the first one stays.
--
-- KEYS  1 halt  2 probe
-- ARGV  1 reason  2 kind  3 the kind only a person lifts  4 seconds until the first trial call
-- Returns 1 where it changed anything.

local kind = redis.call('HGET', KEYS[1], 'kind')
if kind and (kind == ARGV[2] or ARGV[2] ~= ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'reason', ARGV[1], 'kind', ARGV[2], 'since_ms', whole(now_ms()))
redis.call('SET', KEYS[2], 1, 'EX', ARGV[4])
return 1
