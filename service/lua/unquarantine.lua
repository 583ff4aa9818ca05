-- Plan a body from quarantine once more: it moves to the list that web works off. Only a whole body can.
--
-- KEYS  1 quarantine  2 backlog
-- ARGV  1 quarantine id
-- Returns "retried" | "gone" | "cut" (only its start was kept)

local row = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not row then return 'gone' end
local kept = {}
for i = 1, #row[2], 2 do kept[row[2][i]] = row[2][i + 1] end
if tonumber(kept.size) ~= #kept.body then return 'cut' end
redis.call('RPUSH', KEYS[2], kept.body)
redis.call('XDEL', KEYS[1], ARGV[1])
return 'retried'
