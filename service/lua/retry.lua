-- Plan a dead letter anew, because a person wants it: a new job, and attempts counted from nothing. A call that may
-- have run stays marked, so that the field is read back before another.
--
-- KEYS  1 entry  2 active  3 counts  4 history  5 story  6 next rq job  7 rq:queues  8 queue  9 scheduled
--       10 entries that need a person  11 entries of the object
-- ARGV  1 JSON { id, fence, job, reason, ttl, grace_ms, iso, origin }
--       2.. the RQ job template
-- Returns "retried" | "left" (it is no dead letter, or not the one that was looked at any more)

local wish = cjson.decode(ARGV[1])
local found = redis.call('HMGET', KEYS[1], 'state', 'fence', 'object', 'name', 'rule', 'job')
if found[6] == wish.job then return 'retried' end -- the same wish once more: its answer was lost
if not found[1] or not NEEDS_A_PERSON[found[1]] or found[2] ~= whole(wish.fence) then return 'left' end
if not redis.call('ZSCORE', KEYS[10], wish.id) then return 'left' end
local now = now_ms()

redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'state', 'planned', 'reason', wish.reason, 'job', wish.job, 'queue', wish.origin,
           'attempts', 0, 'planned_ms', whole(now), 'changed_ms', whole(now), 'due_ms', whole(now),
           'retried_ms', whole(now))
redis.call('HDEL', KEYS[1], 'ended_ms', 'failures', 'unreachable_ms', 'again')
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[11])
redis.call('ZREM', KEYS[10], wish.id)
local template = {}
for i = 2, #ARGV do template[#template + 1] = ARGV[i] end
enqueue({ job = KEYS[6], queues = KEYS[7], queue = KEYS[8], scheduled = KEYS[9], origin = wish.origin },
        wish.job, template, wish.iso, found[5], now, 0, false)
redis.call('ZADD', KEYS[2], whole(now + wish.grace_ms), wish.id)
count(KEYS[3], found[1], 'planned')
tell(KEYS[4], KEYS[5], now, wish.ttl, { id = wish.id, object = found[3], field = found[4], rule = found[5],
                                        state = 'planned', reason = wish.reason })
return 'retried'
