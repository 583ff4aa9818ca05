-- Read a page of a queue. Entries whose jobs are met there are not overdue for a while: those that are, or soon would be.
-- The further back in line, the longer the while: nobody misses a job before its turn can have come.
-- One that is in hand, that another job delivers, or whose job has lost its hash is not vouched for.
--
-- KEYS  1 active  2 queue  3 what an entry's key begins with  4 what a job's key begins with
-- ARGV  1 first index  2 last index  3 how soon it would be overdue, ms  4 grace_ms
--       5 how long the line takes at least for each job, ms
-- Returns how many jobs the page has.

local job_ids = redis.call('LRANGE', KEYS[2], ARGV[1], ARGV[2])
if #job_ids == 0 then return 0 end
local ids = {}
for i, job_id in ipairs(job_ids) do ids[i] = string.match(job_id, '^[^-]*') end
local now = now_ms()
local before = math.max(0, redis.call('LLEN', KEYS[2]) + ARGV[1])
local later = whole(now + ARGV[4] + before * ARGV[5])
local met = {}
for i, score in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(ids))) do
  if score and tonumber(score) <= now + ARGV[3] then
    local found = redis.call('HMGET', KEYS[3] .. ids[i], 'job', 'holder')
    local waits = found[1] == job_ids[i] and (not found[2] or found[2] == '')
    if waits and redis.call('EXISTS', KEYS[4] .. job_ids[i]) == 1 then
      met[#met + 1] = later
      met[#met + 1] = ids[i]
    end
  end
end
if #met > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(met)) end
return #job_ids
