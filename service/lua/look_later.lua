-- Nothing is wrong with an overdue entry: let the sweeper look at it again later. One that somebody has taken in hand
-- since is not overdue any more, and keeps its lease.
--
-- KEYS  1 active
-- ARGV  1 entry id  2 grace_ms
-- Returns 1 where it was overdue.

local now = now_ms()
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) > now then return 0 end
redis.call('ZADD', KEYS[1], whole(now + ARGV[2]), ARGV[1])
return 1
