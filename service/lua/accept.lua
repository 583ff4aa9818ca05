-- Claim every field that events lead to and enqueue its job, in one step for a batch of events. Of each event all is
-- durable, or none; one that cannot be written is refused by itself.
--
-- KEYS  1 counts  2 active  3 history  4 rq:queues  5 live queue  6 live scheduled  7 bulk queue  8 bulk scheduled
--       9 held entries  10 newest plannings  11 price list of the day  12 entries that need a person
--       13 since when Redis remembers  14 the organization that entries are of
--       15 .. 18 what keys of entries, of a record's entries, of events and of RQ's jobs begin with
-- ARGV  1 MessagePack { iso, ttl, grace_ms, unsure_ms (how long a call from before a loss may run), live, bulk (names of the
--                       queues), version, template (RQ's job, field and value in turn),
--                       kinds = [ [ number, rule, type, field, name, mode, delay_ms, bulk, front ] ] }
--       2.. for each event MessagePack [ event, action, org, stamp, began (ISO 8601: nobody can have called for the record
--           before, or ""), burst guard's most or -1, its within_ms, trace (what the executions are part of) or "",
--           saves (whether what is there already counts as saved: not where we have only looked again ourselves),
--           [ [ number of the kind, id, job, object, lead, judged, reopens ] ] ]
-- Returns for each event a letter for each of its items, or "!" and why it was refused:
--         p planned | r reopened | a again (will run once more when what is under way has ended)
--         | h held (the burst guard wants a person to release it) | d duplicate
--
-- An entry is claimed by being created. A finished one is planned anew only when the item says the event may do so
-- and neither this version of the event (its date_updated) nor a later one has been planned before. One that is in
-- hand, or whose last call may have run, may have looked at the record before it changed: it is marked to run again.
--
-- After a complete loss of Redis, a record from before may have been in a call that is still under way. Its entry says
-- so, and its fences begin where those of its former life cannot have come.

local batch = cmsgpack.unpack(ARGV[1])
local now = now_ms()
local now_text = whole(now)
local call, concat = redis.call, table.concat

-- What all events share is written at the end: were one of these another kind of key, nothing must have been written yet.
call('HLEN', KEYS[1])
call('XLEN', KEYS[3])
call('SCARD', KEYS[4])
call('LLEN', KEYS[5])
call('LLEN', KEYS[7])
call('LLEN', KEYS[10])
call('HLEN', KEYS[11])
for _, i in ipairs({ 2, 6, 8, 9, 12 }) do call('ZCARD', KEYS[i]) end

local since = tonumber(call('GET', KEYS[13]))
if not since then
  since = now
  call('SET', KEYS[13], now_text)
end
local usual_org = call('GET', KEYS[14])

-- What becomes of the shared keys.
local counted, costs = {}, {}
local active, held = {}, {}
local queued, first, scheduled = { {}, {} }, { {}, {} }, { {}, {} }

local function append(list, one, two)
  list[#list + 1] = one
  if two then list[#list + 1] = two end
end

local function tally(sums, name, amount)
  sums[name] = (sums[name] or 0) + amount
end

-- Give a command a long list of arguments, some at a time: Lua's stack is small.
local function give(command, key, arguments)
  for i = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, i, math.min(i + 999, #arguments)))
  end
end

-- What entries and jobs of one rule have in common. In an entry, what is usual is left out to save memory:
-- service/enrichment.py says what is.
local kinds = {}
local STATE, OBJECT, EVENT, JOB = 12, 14, 16, 18
for _, kind in ipairs(batch.kinds) do
  local number, rule, type, field, name, mode, delay_ms, bulk, front = unpack(kind)
  local entry = { 'v', batch.version, 'field', field, 'name', name, 'rule', rule, 'planned_ms', now_text,
                  'state', '', 'object', '', 'event', '', 'job', '' }
  local due_ms = now + delay_ms
  if type ~= 'lead' then append(entry, 'type', type) end
  if mode ~= 'fill' then append(entry, 'mode', mode) end
  if bulk then append(entry, 'queue', batch.bulk) end
  if delay_ms > 0 then append(entry, 'due_ms', whole(due_ms)) end
  local job = { unpack(batch.template) }
  append(job, 'created_at', batch.iso)
  append(job, 'description', rule)
  append(job, 'origin', bulk and batch.bulk or batch.live)
  append(job, 'status', delay_ms > 0 and 'scheduled' or 'queued')
  if front and delay_ms > 0 then append(job, 'enqueue_at_front', 1) end
  kinds[number] = {
    type = type, entry = entry, own = #entry, job = job, waits = delay_ms > 0, queue = bulk and 2 or 1, front = front,
    due = string.format('%.3f', due_ms / 1000), overdue = whole(due_ms + batch.grace_ms),
    cost = rule .. '\t' .. name .. '\tduplicates',
    fact = ',"field":' .. cjson.encode(name) .. ',"rule":' .. cjson.encode(rule) .. ',"state":"',
  }
end

-- The burst guard: more than `most` planned within the window, and the rest is held.
local function held_by_guard(most, within_ms)
  if most < 0 then return false end
  local oldest = call('LINDEX', KEYS[10], most - 1)
  if most == 0 or (oldest and tonumber(oldest) > now - within_ms) then return true end
  call('LPUSH', KEYS[10], now_text)
  call('LTRIM', KEYS[10], 0, most - 1)
  return false
end

local MOST_DAYS = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- ISO 8601 as Unix milliseconds; 0 for what is none, or in another zone than UTC.
local function unix_ms(time)
  local year, month, day, hour, minute, second, zone =
    time:match('^(%d%d%d%d)%-(%d%d)%-(%d%d)[T ](%d%d):(%d%d):(%d%d%.?%d*)(.*)$')
  if not year or not (zone == '' or zone == 'Z' or zone == '+00:00') then return 0 end
  local most_days = MOST_DAYS[tonumber(month)]
  if not most_days or day < '01' or tonumber(day) > most_days or hour > '23' or minute > '59' or second >= '60' then
    return 0
  end
  -- the year begins with March, so that a leap day is its last
  local y, m = year - (month < '03' and 1 or 0), (month + 9) % 12
  local days = y * 365 + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
               + math.floor((m * 153 + 2) / 5) + day - 719469
  return math.floor((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
end

-- A job of the same rule is copied: that costs half of writing it.
local function write_job(kind, id)
  local key = KEYS[18] .. id
  if kind.written then
    call('COPY', kind.written, key)
  else
    call('HSET', key, unpack(kind.job))
    kind.written = key
  end
end

local function put_in_line(kind, id)
  if kind.waits then
    append(scheduled[kind.queue], kind.due, id)
  else
    append((kind.front and first or queued)[kind.queue], id)
  end
end

local MOST_LOOKED_AT = 1000 -- Lua's stack is small
local NOTHING = { false, false, false }

local function take(event)
  local event_id, action, org, stamp, began, most, within_ms, trace, saves, items = unpack(event)
  -- all that may go wrong comes before anything is written
  local found, objects, may_reopen, names = {}, {}, false, {}
  for _, item in ipairs(items) do
    append(names, KEYS[15] .. item[2])
    local object = item[4]
    if not objects[object] then
      objects[object] = { json = cjson.encode(object), entries = {}, known = false }
      append(names, KEYS[16] .. object)
    end
    may_reopen = may_reopen or item[7]
  end
  -- of most records nothing is known yet, and one look tells
  if #names > MOST_LOOKED_AT or call('EXISTS', unpack(names)) > 0 then
    for i, item in ipairs(items) do
      found[i] = redis.pcall('HMGET', KEYS[15] .. item[2], 'state', 'holder', 'ambiguous')
      if found[i].err then return '!' .. found[i].err end
    end
    for object, one in pairs(objects) do
      local known = redis.pcall('HLEN', KEYS[16] .. object)
      if type(known) == 'table' then return '!' .. known.err end
      one.known = known > 0
    end
  end
  local seen = false
  if may_reopen then
    local planned = redis.pcall('GET', KEYS[17] .. event_id)
    if type(planned) == 'table' then return '!' .. planned.err end
    -- ISO 8601 in one zone sorts as text; an older version comes late when a delivery is repeated
    seen = planned and planned >= stamp
    if not seen then call('SET', KEYS[17] .. event_id, stamp, 'EX', batch.ttl) end
  end
  local lost = now < since + batch.unsure_ms and unix_ms(began) <= since
  if not usual_org then
    usual_org = org
    call('SET', KEYS[14], org)
  end
  local event_json = cjson.encode(event_id)

  local letters, claimed = {}, {}
  for i, item in ipairs(items) do
    local number, id, job, object, lead, judged, reopens = unpack(item)
    local kind, before = kinds[number], found[i] or NOTHING
    local state = before[1]
    local newer = reopens and not seen
    if claimed[id] then
      letters[i] = 'd'
      if saves then tally(costs, kind.cost, 1) end
    elseif not state or (FINAL[state] and newer) then
      local key = KEYS[15] .. id
      if state then
        call('HDEL', key, 'value', 'confidence', 'reasoning', 'before', 'ambiguous', 'called_ms', 'ended_ms',
             'unreachable_ms', 'failures', 'again', 'org', 'type', 'lead', 'action', 'mode', 'queue', 'reason',
             'attempts', 'judged', 'due_ms', 'changed_ms', 'trace')
        call('PERSIST', key)
        call('ZREM', KEYS[12], id)
        tally(counted, state, -1)
      end
      local is_held = held_by_guard(most, within_ms)
      local to = (kind.waits or is_held) and 'waiting' or 'planned'
      local entry, length = kind.entry, kind.own
      entry[STATE], entry[OBJECT], entry[EVENT], entry[JOB] = to, object, event_id, job
      local function note(name, value)
        entry[length + 1], entry[length + 2] = name, value
        length = length + 2
      end
      if org ~= usual_org then note('org', org) end
      if lead ~= (kind.type == 'lead' and object or '') then note('lead', lead) end
      if action ~= 'created' then note('action', action) end
      if is_held then note('reason', 'held by the burst guard until released') end
      if judged then note('judged', 1) end
      if trace ~= '' then note('trace', trace) end
      if lost and not state then
        note('lost_ms', whole(since))
        note('fence', now_text)
      end
      call('HSET', key, unpack(entry, 1, length))
      if is_held then
        append(held, now_text, id)
      else
        write_job(kind, job)
        put_in_line(kind, job)
        append(active, kind.overdue, id)
      end
      append(objects[object].entries, id, '')
      tally(counted, to, 1)
      call('XADD', KEYS[3], '*', 'fact',
           concat({ '{"at":', now_text, ',"id":"', id, '","object":', objects[object].json, kind.fact, to,
                    '","event":', event_json, '}' }))
      claimed[id] = true
      letters[i] = is_held and 'h' or state and 'r' or 'p'
    elseif newer and not FINAL[state] and (before[2] or before[3]) then
      call('HSET', KEYS[15] .. id, 'again', event_id)
      letters[i] = 'a'
    else
      if saves then tally(costs, kind.cost, 1) end
      letters[i] = 'd'
    end
  end
  for object, one in pairs(objects) do
    if #one.entries > 0 then
      give('HSET', KEYS[16] .. object, one.entries)
      if one.known then call('PERSIST', KEYS[16] .. object) end
    end
  end
  return concat(letters)
end

local answers = {}
for i = 2, #ARGV do answers[i - 1] = take(cmsgpack.unpack(ARGV[i])) end
if next(counted) then call('XTRIM', KEYS[3], 'MAXLEN', '~', HISTORY_LINES) end

for q, line in ipairs({ { KEYS[5], KEYS[6] }, { KEYS[7], KEYS[8] } }) do
  if #queued[q] + #first[q] + #scheduled[q] > 0 then call('SADD', KEYS[4], line[1]) end
  give('RPUSH', line[1], queued[q])
  give('LPUSH', line[1], first[q])
  give('ZADD', line[2], scheduled[q])
end
give('ZADD', KEYS[2], active)
give('ZADD', KEYS[9], held)
for state, amount in pairs(counted) do
  if amount ~= 0 then call('HINCRBY', KEYS[1], state, amount) end
end
for cost, amount in pairs(costs) do call('HINCRBY', KEYS[11], cost, amount) end
if next(costs) then call('EXPIRE', KEYS[11], 400 * 86400) end
return answers
