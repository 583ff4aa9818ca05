-- Prolong the leases of the entries in one worker's hands.
--
-- KEYS  1 active, then the entries
-- ARGV  1 lease_ms, then for each entry: its id and fence
-- Returns the ids that are no longer this worker's.

local until_ms = whole(now_ms() + ARGV[1])
local lost = {}
for i = 2, #KEYS do
  local id, fence = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if redis.call('HGET', KEYS[i], 'fence') == fence then
    redis.call('ZADD', KEYS[1], 'XX', 'GT', until_ms, id)
  else
    lost[#lost + 1] = id
  end
end
return lost
