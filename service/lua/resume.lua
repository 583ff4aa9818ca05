-- Let calls leave again.
--
-- KEYS  1 halt
-- ARGV  1 the kind of halt to leave alone, or ""
-- Returns 1 where a halt was lifted.

if redis.call('HGET', KEYS[1], 'kind') == ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
