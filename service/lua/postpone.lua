-- Put an enrichment back with a new job: for later, or for now. The one way an entry in hand leaves it unfinished.
-- Asking once more because the answer was lost changes nothing.
--
-- KEYS  1 entry  2 active  3 counts  4 history  5 story  6 next rq job  7 rq:queues  8 queue  9 scheduled
--       10 price list of the day  11 breaker of the field  12 open breakers  13 entries held by the burst guard
--       then the entries it waits for, then the budget counters that its call was charged to
-- ARGV  1 JSON { id, fence, job, reason, delay_ms, ttl, grace_ms, iso, origin, front,
--                ambiguous (may have run), uncalled (the call, if this fence was given leave for one, did not run),
--                unattempted (nor counts as an attempt), failed (counts for backoff), unreachable,
--                overdue_ms (only if nothing happened for so long), blocked,
--                blockers (how many entries it waits for), field, timed_out, breaker_most, breaker_first_ms,
--                breaker_longest_ms }
--       2.. the RQ job template
-- Returns "postponed" | "fenced"

local wish = cjson.decode(ARGV[1])
local found = redis.call('HMGET', KEYS[1], 'state', 'fence', 'object', 'name', 'rule', 'unreachable_ms', 'job',
                         'asked')
if found[7] == wish.job then return 'postponed' end
if found[2] ~= whole(wish.fence) and not (wish.fence == 0 and not found[2]) then return 'fenced' end
if not found[1] or FINAL[found[1]] then return 'fenced' end
local now = now_ms()
if wish.overdue_ms then
  local score = redis.call('ZSCORE', KEYS[2], wish.id)
  if score and tonumber(score) > now - wish.overdue_ms then return 'fenced' end
end
local delay_ms = wish.delay_ms
if wish.blocked then
  local still = false
  for i = 14, 13 + wish.blockers do
    local state = redis.call('HGET', KEYS[i], 'state')
    still = still or (state and not FINAL[state])
  end
  if not still then delay_ms = 0 end
end

redis.call('HINCRBY', KEYS[1], 'fence', 1)
-- a worker that is stopped while it asks for leave cannot know whether it was given
local asked = found[8] == whole(wish.fence)
if asked and wish.uncalled then
  redis.call('HINCRBY', KEYS[1], 'calls', -1)
  note_cost(KEYS[10], found[5], found[4], 'unpaid')
  give_back(KEYS, 14 + wish.blockers, #KEYS)
end
if wish.timed_out then
  -- a field that keeps timing out is left alone for longer and longer; calls that were under way when its pause began
  -- tell nothing new
  local timeouts = redis.call('HINCRBY', KEYS[11], 'timeouts', 1)
  local breaker = redis.call('HMGET', KEYS[11], 'until_ms', 'trial')
  local pauses = breaker[1] and tonumber(breaker[1]) > now and breaker[2] ~= wish.id
  if timeouts >= wish.breaker_most and not pauses then
    local opened = redis.call('HINCRBY', KEYS[11], 'opened', 1)
    local pause_ms = math.min(wish.breaker_longest_ms, wish.breaker_first_ms * 2 ^ math.min(opened - 1, 30))
    redis.call('HSET', KEYS[11], 'until_ms', whole(now + pause_ms), 'name', found[4], 'rule', found[5])
    redis.call('HDEL', KEYS[11], 'trial')
    redis.call('SADD', KEYS[12], wish.field)
  end
  redis.call('PEXPIRE', KEYS[11], whole(wish.breaker_longest_ms * 2))
end
redis.call('ZREM', KEYS[13], wish.id)
if asked and wish.unattempted then redis.call('HINCRBY', KEYS[1], 'attempts', -1) end
if wish.failed then redis.call('HINCRBY', KEYS[1], 'failures', 1) end
if wish.unreachable then
  if not found[6] then redis.call('HSET', KEYS[1], 'unreachable_ms', whole(now)) end
else
  redis.call('HDEL', KEYS[1], 'unreachable_ms')
end
redis.call('HSET', KEYS[1], 'state', 'waiting', 'reason', wish.reason, 'job', wish.job, 'changed_ms', whole(now),
           'due_ms', whole(now + delay_ms))
redis.call('HDEL', KEYS[1], 'holder')
if wish.ambiguous then redis.call('HSET', KEYS[1], 'ambiguous', 1) end
if wish.blocked and delay_ms > 0 then
  redis.call('HSET', KEYS[1], 'blocked', 1)
else
  redis.call('HDEL', KEYS[1], 'blocked')
end
local template = {}
for i = 2, #ARGV do template[#template + 1] = ARGV[i] end
enqueue({ job = KEYS[6], queues = KEYS[7], queue = KEYS[8], scheduled = KEYS[9], origin = wish.origin },
        wish.job, template, wish.iso, found[5], now, delay_ms, wish.front)
redis.call('ZADD', KEYS[2], whole(now + delay_ms + wish.grace_ms), wish.id)
count(KEYS[3], found[1], 'waiting')
tell(KEYS[4], KEYS[5], now, wish.ttl, { id = wish.id, object = found[3], field = found[4], rule = found[5],
     state = 'waiting', reason = wish.reason, delay_ms = delay_ms, ambiguous = wish.ambiguous })
return 'postponed'
