-- Take jobs in hand, live before bulk. Each moves to its queue's intermediate list, as RQ's own pop does, so that a
-- worker that dies now loses nothing. Jobs of a newer release stay where they are, first in line for its workers.
--
-- KEYS  1 halt  2 live queue  3 its intermediate list  4 bulk queue  5 its intermediate list
-- ARGV  1 how many at most  2 1 to take jobs although calls are halted  3 how many of these places bulk jobs leave free
--       4 newest entry version this worker understands  5 how many newer jobs to look past, in each queue
--       6 1 to move so many newer ones to the end, lest they keep what is behind them from this worker
-- Returns { "halted" } | { "jobs", ids from the live queue, ids from the bulk queue, newer ones seen in the live queue,
--         newer ones seen in the bulk queue }

if ARGV[2] ~= '1' and redis.call('EXISTS', KEYS[1]) == 1 then return { 'halted' } end
local room, understood, most_newer = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
local taken = { {}, {} }
local newer = { 0, 0 }
local kept_free = { 0, tonumber(ARGV[3]) }

-- As service/enrichment.py has it in job_version.
local function is_newer(id)
  local of_entry, version = string.match(id, '^([a-z2-7]+)%-(%d+)%-[0-9a-f]+$')
  return version and #of_entry == 20 and #version <= 6 and tonumber(version) > understood
end

for q = 1, 2 do
  local queue, intermediate = KEYS[2 * q], KEYS[2 * q + 1]
  while room > kept_free[q] and newer[q] < most_newer do
    local id = redis.call('LINDEX', queue, newer[q])
    if not id then break end
    if is_newer(id) then
      newer[q] = newer[q] + 1
    else
      if newer[q] == 0 then
        redis.call('LMOVE', queue, intermediate, 'LEFT', 'RIGHT')
      else
        redis.call('LREM', queue, 1, id)
        redis.call('RPUSH', intermediate, id)
      end
      taken[q][#taken[q] + 1] = id
      room = room - 1
    end
  end
  if newer[q] >= most_newer and ARGV[6] == '1' then
    for _ = 1, newer[q] do redis.call('LMOVE', queue, queue, 'LEFT', 'RIGHT') end
  end
end
return { 'jobs', taken[1], taken[2], newer[1], newer[2] }
