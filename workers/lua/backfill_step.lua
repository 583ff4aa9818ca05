-- One step of a backfill: what it has found, and how far it has come, together or not at all. Whoever took the step
-- from another revision than the present one was overtaken, or asks once more because the answer was lost.
--
-- KEYS  1 run  2 what it has found  3 newest run with the same arguments  4 the newest runs
-- ARGV  1 revision the step was taken from, 0 for a new run  2 the run afterwards, JSON  3 ttl_seconds  4 run id
--       5 when it began (ms)  6 most runs to remember  7 what was found, JSON, or ""  8 1 to forget what was found
-- Returns the new revision, or 0 where it was overtaken.

local revision = tonumber(redis.call('HGET', KEYS[1], 'revision')) or 0
if revision ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'revision', revision + 1, 'run', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if ARGV[7] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[7]) end
if ARGV[8] == '1' then redis.call('DEL', KEYS[2]) end
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[3])
redis.call('ZADD', KEYS[4], 'NX', ARGV[5], ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - ARGV[6])
return revision + 1
