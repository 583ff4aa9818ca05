-- Jobs are being started: from now on their entries are the sweeper's business if nobody takes them in hand soon.
-- An entry that another job delivers, or that is in hand already, is left alone.
--
-- KEYS  1 active, then the jobs' entries
-- ARGV  1 lease_ms, then for each entry: its id and the job
-- Returns how many entries are waited for.

local until_ms = whole(now_ms() + ARGV[1])
local expected = 0
for i = 2, #KEYS do
  local id, job = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local found = redis.call('HMGET', KEYS[i], 'job', 'holder')
  if found[1] == job and not found[2] then
    redis.call('ZADD', KEYS[1], 'XX', until_ms, id)
    expected = expected + 1
  end
end
return expected
