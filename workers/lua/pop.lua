-- Take jobs in hand, live before bulk. Each moves to its queue's intermediate list, as RQ's own pop does, so that a
-- worker that dies now loses nothing.
--
-- KEYS  1 halt  2 live queue  3 its intermediate list  4 bulk queue  5 its intermediate list
-- ARGV  1 how many at most  2 1 to take jobs although calls are halted  3 how many of these places bulk jobs leave free
-- Returns { "halted" } | { "jobs", ids from the live queue, ids from the bulk queue }

if ARGV[2] ~= '1' and redis.call('EXISTS', KEYS[1]) == 1 then return { 'halted' } end
local room = tonumber(ARGV[1])
local taken = { {}, {} }
local kept_free = { 0, tonumber(ARGV[3]) }
for q = 1, 2 do
  while room > kept_free[q] do
    local id = redis.call('LMOVE', KEYS[2 * q], KEYS[2 * q + 1], 'LEFT', 'RIGHT')
    if not id then break end
    taken[q][#taken[q] + 1] = id
    room = room - 1
  end
end
return { 'jobs', taken[1], taken[2] }
