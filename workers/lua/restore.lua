-- Put a job back that was taken from a queue and never started.
--
-- KEYS  1 intermediate list  2 queue
-- ARGV  1 job id
-- Returns 1 where it was put back.

if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
