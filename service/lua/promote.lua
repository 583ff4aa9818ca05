-- Move scheduled jobs into their queue, to its front those that bear RQ's mark for it. A job that someone else moved
-- first is left alone.
--
-- KEYS  1 scheduled  2 queue, then the rq jobs
-- ARGV  the job ids, in the jobs' order
-- Returns how many were moved.

local moved = 0
for i = 3, #KEYS do
  local job_id = ARGV[i - 2]
  if redis.call('ZREM', KEYS[1], job_id) == 1 and redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('HSET', KEYS[i], 'status', 'queued')
    local push = redis.call('HGET', KEYS[i], 'enqueue_at_front') == '1' and 'LPUSH' or 'RPUSH'
    redis.call(push, KEYS[2], job_id)
    moved = moved + 1
  end
end
return moved
