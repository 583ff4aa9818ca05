-- Let the indexes say of one entry what the entry says of itself. What is not final is the postponement's business.
--
-- KEYS  1 entry  2 active  3 held by the burst guard  4 entries that need a person
-- ARGV  1 entry id
-- Returns how many indexes were changed.

local found = redis.call('HMGET', KEYS[1], 'state', 'ended_ms', 'dropped_ms')
local state, ended, dropped = found[1], tonumber(found[2]), tonumber(found[3])
local changed = 0
if not state or FINAL[state] then
  changed = redis.call('ZREM', KEYS[2], ARGV[1]) + redis.call('ZREM', KEYS[3], ARGV[1])
end
if state and NEEDS_A_PERSON[state] and ended and not (dropped and dropped >= ended) then
  return changed + redis.call('ZADD', KEYS[4], 'NX', whole(ended), ARGV[1])
end
return changed + redis.call('ZREM', KEYS[4], ARGV[1])
