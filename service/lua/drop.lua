-- A person has done with a dead letter: its state stays, and it is not shown as one any more.
--
-- KEYS  1 entry  2 entries that need a person  3 history  4 story
-- ARGV  1 entry id  2 the fence that was looked at  3 reason  4 ttl_seconds
-- Returns "dropped" | "left" (it is no dead letter, or not the one that was looked at any more)

local found = redis.call('HMGET', KEYS[1], 'state', 'fence', 'object', 'name', 'rule')
if not found[1] or found[2] ~= ARGV[2] then return 'left' end
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 'left' end
local now = now_ms()
redis.call('HSET', KEYS[1], 'dropped_ms', whole(now))
tell(KEYS[3], KEYS[4], now, ARGV[4], { id = ARGV[1], object = found[3], field = found[4], rule = found[5],
                                       state = found[1], reason = ARGV[3] })
return 'dropped'
