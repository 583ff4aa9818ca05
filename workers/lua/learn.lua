-- Publish what a reply said about the limit, for all workers. The reply to the latest call wins.
--
-- KEYS  1 limiter
-- ARGV  1 seq  2 at_ms  3 rate  4 limit or ""  5 remaining or ""  6 1 for a 429  7 epoch of the permit
-- Returns 1 where it was news.

local found = redis.call('HMGET', KEYS[1], 'epoch', 'at_seq')
if found[1] ~= ARGV[7] then return 0 end -- the limiter has begun anew since, and counts from 1 again
if ARGV[6] == '1' then redis.call('HINCRBY', KEYS[1], 'refusals', 1) end
if found[2] and tonumber(found[2]) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'rate', ARGV[3], 'at_seq', ARGV[1], 'at_ms', ARGV[2])
if ARGV[4] ~= '' and ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'limit', ARGV[4], 'remaining', ARGV[5])
else
  redis.call('HDEL', KEYS[1], 'limit', 'remaining') -- what an earlier reply said of its own moment
end
return 1
