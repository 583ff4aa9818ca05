-- Shared by the scripts that change ledger entries. Prepended to them by service/scripts.py; does nothing by itself.

local FINAL = { filled = true, confirmed = true, empty = true, kept = true, previewed = true, skipped = true,
                gone = true, rejected = true, held = true, dead = true }

-- Final states that are no answer: a person has to look.
local NEEDS_A_PERSON = { rejected = true, held = true, dead = true }

-- About how many lines the history of everything keeps.
local HISTORY_LINES = 100000

-- A whole number as text: Lua's own conversion turns 1.7e12 into "1.7e+12".
local function whole(number)
  return string.format('%.0f', number)
end

-- Redis's clock in milliseconds.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Move one entry's count from a state (or false, for a new entry) to another.
local function count(counts_key, from, to)
  if from == to then return end
  if from then redis.call('HINCRBY', counts_key, from, -1) end
  redis.call('HINCRBY', counts_key, to, 1)
end

-- Save an RQ job in RQ's own format and put it where it belongs: scheduled when delay_ms > 0, else queued.
-- A scheduled job that is to go to the front bears RQ's own mark for it.
-- template: what all jobs have in common, as a flat list; keys: { job, queues, queue, scheduled }.
local function enqueue(keys, job_id, template, stamp, description, now, delay_ms, front)
  local status = delay_ms > 0 and 'scheduled' or 'queued'
  redis.call('HSET', keys.job, unpack(template))
  redis.call('HSET', keys.job, 'created_at', stamp, 'description', description, 'origin', keys.origin,
             'status', status)
  redis.call('SADD', keys.queues, keys.queue)
  if front and delay_ms > 0 then redis.call('HSET', keys.job, 'enqueue_at_front', 1) end
  if delay_ms > 0 then
    redis.call('ZADD', keys.scheduled, string.format('%.3f', (now + delay_ms) / 1000), job_id)
  elseif front then
    redis.call('LPUSH', keys.queue, job_id)
  else
    redis.call('RPUSH', keys.queue, job_id)
  end
end

-- Tell the story: one fact to the capped stream of everything and one to the entry's own capped list.
local function tell(history_key, story_key, now, ttl_seconds, fact)
  fact.at = now
  local line = cjson.encode(fact)
  redis.call('XADD', history_key, 'MAXLEN', '~', HISTORY_LINES, '*', 'fact', line)
  redis.call('RPUSH', story_key, line)
  redis.call('LTRIM', story_key, -100, -1)
  redis.call('EXPIRE', story_key, ttl_seconds)
end

-- Add to a day's price list: one metric of one rule and field.
local function note_cost(cost_key, rule, field, metric)
  redis.call('HINCRBY', cost_key, rule .. '\t' .. field .. '\t' .. metric, 1)
  redis.call('EXPIRE', cost_key, 400 * 86400)
end

-- Give reserved credits back: Close did not run the call. Counters that are gone stay gone.
local function give_back(counters, first, last)
  for i = first, last do
    if (tonumber(redis.call('GET', counters[i])) or 0) > 0 then redis.call('DECR', counters[i]) end
  end
end
