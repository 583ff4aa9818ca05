-- Look at a page of the overdue entries, those that have been so for longest first. One whose job is scheduled, or has
-- just been taken from its queue, is as it should be: it is not overdue for a while.
--
-- KEYS  1 active  2 what an entry's key begins with  3 what a job's key begins with, then for each queue
--       its scheduled jobs and its intermediate list
-- ARGV  1 how many overdue ones to leave out  2 how many to look at  3 grace_ms
--       4 newest entry version that may be judged  5 until when (ms) an entry must have been overdue that is lost if its
--       job has not been met in line  6 the usual queue, then the queues' names
-- Returns { 1 where there may be more, how many stay overdue, 1 where a job has yet to be met in line,
--         the last one's score or "", ids of those that must be put back }

local now = now_ms()
local first, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local page = redis.call('ZRANGE', KEYS[1], first, first + most - 1, 'WITHSCORES')
local judged, unmet_is_lost_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local places = {}
for i = 7, #ARGV do places[ARGV[i]] = { KEYS[2 * i - 10], KEYS[2 * i - 9] } end

local function is_on_its_way(job_id, queue)
  local place = places[queue]
  return place and (redis.call('ZSCORE', place[1], job_id) or redis.call('LPOS', place[2], job_id))
end

local more, stay, unmet, last, lost, fine = #page == 2 * most and 1 or 0, 0, 0, '', {}, {}
for i = 1, #page, 2 do
  local id, score = page[i], tonumber(page[i + 1])
  if score > now then
    more = 0
    break
  end
  last = page[i + 1]
  local found = redis.call('HMGET', KEYS[2] .. id, 'v', 'holder', 'job', 'queue')
  local ours = (tonumber(found[1]) or 0) <= judged
  local in_hand = found[2] and found[2] ~= ''
  local job_id, queue = found[3], found[4]
  if not queue or queue == '' then queue = ARGV[6] end
  local has_job = not in_hand and job_id and redis.call('EXISTS', KEYS[3] .. job_id) == 1
  if has_job and is_on_its_way(job_id, queue) then
    fine[#fine + 1] = whole(now + ARGV[3])
    fine[#fine + 1] = id
  else
    stay = stay + 1
    if has_job and score > unmet_is_lost_ms then
      unmet = 1
    elseif ours then
      lost[#lost + 1] = id
    end
  end
end
if #fine > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(fine)) end
return { more, stay, unmet, last, lost }
