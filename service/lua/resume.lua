-- Let calls leave again.
--
-- KEYS  1 halt  2 when calls were last let go again (ms)
-- ARGV  1 the kind of halt to leave alone, or ""
-- Returns 1 where a halt was lifted.

if redis.call('HGET', KEYS[1], 'kind') == ARGV[1] then return 0 end
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], whole(now_ms()), 'EX', 3600)
return 1
