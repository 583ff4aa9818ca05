-- Claim every field an event leads to and enqueue its job, in one step: all of it is durable, or none.
--
-- KEYS  1 counts  2 active  3 history  4 event  5 rq:queues
--       6 live queue  7 live scheduled  8 bulk queue  9 bulk scheduled  10 held entries  11 newest plannings
--       12 price list of the day  13 entries that need a person  14 since when Redis remembers
--       15 the organization that entries are of
--       then for each item: entry, rq job, entries of the object
-- ARGV  1 JSON { event, action, began_ms (nobody can have called for the record before, or 0), unsure_ms (how long a call
--                from before a loss may run), stamp, iso, org, ttl, grace_ms, live, bulk, version,
--                burst = { most, within_ms } or nil, trace (what the executions are part of) or nil,
--                items = [ { id, job, rule, type, object, lead, field, name, mode, delay_ms, bulk, front, reopens, judged } ] }
--       2.. the RQ job template, field and value in turn
-- Returns for each item: "planned" | "reopened" | "again" (will run once more when what is under way has ended)
--         | "held" (the burst guard wants a person to release it) | "duplicate"
--
-- An entry is claimed by being created. A finished one is planned anew only when the item says the event may do so
-- and neither this version of the event (its date_updated) nor a later one has been planned before. One that is in
-- hand, or whose last call may have run, may have looked at the record before it changed: it is marked to run again.
--
-- After a complete loss of Redis, a record from before may have been in a call that is still under way. Its entry says
-- so, and its fences begin where those of its former life cannot have come.

local plan = cjson.decode(ARGV[1])
local template = {}
for i = 2, #ARGV do template[#template + 1] = ARGV[i] end
local now = now_ms()

local may_reopen = false
for _, item in ipairs(plan.items) do may_reopen = may_reopen or item.reopens end
local seen = false
if may_reopen then
  local planned = redis.call('GET', KEYS[4])
  -- ISO 8601 in one zone sorts as text; an older version comes late when a delivery is repeated
  seen = planned and planned >= plan.stamp
  if not seen then redis.call('SET', KEYS[4], plan.stamp, 'EX', plan.ttl) end
end

-- The burst guard: more than `most` planned within the window, and the rest is held.
local function held_by_guard()
  if not plan.burst then return false end
  local oldest = redis.call('LINDEX', KEYS[11], plan.burst.most - 1)
  if plan.burst.most == 0 or (oldest and tonumber(oldest) > now - plan.burst.within_ms) then return true end
  redis.call('LPUSH', KEYS[11], whole(now))
  redis.call('LTRIM', KEYS[11], 0, plan.burst.most - 1)
  return false
end

local since = tonumber(redis.call('GET', KEYS[14]))
if not since then
  since = now
  redis.call('SET', KEYS[14], whole(now))
end
local lost = plan.began_ms <= since and now < since + plan.unsure_ms

-- An organization is written once, and into the entries of another one only.
redis.call('SET', KEYS[15], plan.org, 'NX')
local usual_org = redis.call('GET', KEYS[15])

-- What is usual is left out of an entry, to save memory: service/enrichment.py says what is.
local function facts_of(item, to, why)
  local facts = { 'v', plan.version, 'object', item.object, 'field', item.field, 'name', item.name, 'rule', item.rule,
                  'event', plan.event, 'state', to, 'job', item.job, 'planned_ms', whole(now) }
  local function note(name, value, usual)
    if value ~= usual then
      facts[#facts + 1] = name
      facts[#facts + 1] = value
    end
  end
  note('org', plan.org, usual_org)
  note('type', item.type, 'lead')
  note('lead', item.lead, item.type == 'lead' and item.object or '')
  note('mode', item.mode, 'fill')
  note('queue', item.bulk and plan.bulk or plan.live, plan.live)
  note('action', plan.action, 'created')
  note('reason', why, '')
  note('judged', item.judged and 1 or 0, 0)
  note('trace', plan.trace, nil)
  note('due_ms', whole(now + item.delay_ms), whole(now))
  return facts
end

local answers = {}
for i, item in ipairs(plan.items) do
  local base = 15 + (i - 1) * 3
  local entry, job, entries = KEYS[base + 1], KEYS[base + 2], KEYS[base + 3]
  local found = redis.call('HMGET', entry, 'state', 'holder', 'ambiguous')
  local state = found[1]
  local fresh = not state
  local newer = item.reopens and not seen
  local reopen = state and FINAL[state] and newer
  if fresh or reopen then
    local waits = item.delay_ms > 0
    if reopen then
      redis.call('HDEL', entry, 'value', 'confidence', 'reasoning', 'before', 'ambiguous', 'called_ms', 'ended_ms',
                 'unreachable_ms', 'failures', 'again', 'org', 'type', 'lead', 'action', 'mode', 'queue', 'reason',
                 'attempts', 'judged', 'due_ms', 'changed_ms', 'trace')
      redis.call('PERSIST', entry)
      redis.call('ZREM', KEYS[13], item.id)
    end
    local held = held_by_guard()
    local to = (waits or held) and 'waiting' or 'planned'
    local why = held and 'held by the burst guard until released' or ''
    redis.call('HSET', entry, unpack(facts_of(item, to, why)))
    if held then
      redis.call('ZADD', KEYS[10], whole(now), item.id)
    else
      enqueue({ job = job, queues = KEYS[5], queue = item.bulk and KEYS[8] or KEYS[6],
                scheduled = item.bulk and KEYS[9] or KEYS[7], origin = item.bulk and plan.bulk or plan.live },
              item.job, template, plan.iso, item.rule, now, item.delay_ms, item.front)
      redis.call('ZADD', KEYS[2], whole(now + item.delay_ms + plan.grace_ms), item.id)
    end
    if fresh and lost then redis.call('HSET', entry, 'lost_ms', whole(since), 'fence', whole(now)) end
    redis.call('HSET', entries, item.id, '')
    redis.call('PERSIST', entries)
    count(KEYS[1], state, to)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'fact', cjson.encode({ at = now, id = item.id,
      object = item.object, field = item.name, rule = item.rule, state = to, event = plan.event }))
    answers[i] = held and 'held' or fresh and 'planned' or 'reopened'
  elseif newer and not FINAL[state] and (found[2] or found[3]) then
    redis.call('HSET', entry, 'again', plan.event)
    answers[i] = 'again'
  else
    note_cost(KEYS[12], item.rule, item.name, 'duplicates')
    answers[i] = 'duplicate'
  end
end
return answers
