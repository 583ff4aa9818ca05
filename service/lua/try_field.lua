-- End the pause of a field that is left alone: the next call for it is the one that is tried. A breaker that is closed
-- stays closed, and a call that is on trial already is waited for.
--
-- KEYS  1 breaker of the field
-- Returns until when (ms) it would have been left alone, or false where nothing has changed.

local found = redis.call('HMGET', KEYS[1], 'until_ms', 'trial')
local now = now_ms()
if not found[1] or tonumber(found[1]) <= now or found[2] then return false end
redis.call('HSET', KEYS[1], 'until_ms', whole(now))
return found[1]
