-- Add up what one process has counted, once, however often it is asked to.
--
-- KEYS  1 metrics  2 rules that have been counted  3 number of this process's latest flush  4 what processes tell of now
--       then the minutes
-- ARGV  1 JSON { seq (number of the flush), mark_ttl, most_rules, minute_ttl, process, stale_ms,
--                now (what the process tells of now, JSON) or "",
--                totals = [ [ rule or "", field, field where the rule is one too many, amount as text ] ],
--                minutes = [ [ [ field, amount as text ] ] ], one list for each minute }
-- Returns 1, or 0 where this flush has been added up before.

local flush = cjson.decode(ARGV[1])
if flush.now ~= '' then
  local now = now_ms()
  redis.call('HSET', KEYS[4], flush.process, whole(now) .. ' ' .. flush.now)
  local told = redis.call('HGETALL', KEYS[4])
  for i = 1, #told, 2 do
    local at = tonumber(string.match(told[i + 1], '^(%d+) '))
    if not at or at < now - flush.stale_ms then redis.call('HDEL', KEYS[4], told[i]) end
  end
end
if redis.call('GET', KEYS[3]) == flush.seq then return 0 end
redis.call('SET', KEYS[3], flush.seq, 'EX', flush.mark_ttl)

-- Rules come and go over the years: the first ones keep their names for ever, so that nothing counted goes backwards.
local function known(rule)
  if redis.call('SISMEMBER', KEYS[2], rule) == 1 then return true end
  if redis.call('SCARD', KEYS[2]) >= flush.most_rules then return false end
  redis.call('SADD', KEYS[2], rule)
  return true
end

for _, one in ipairs(flush.totals) do
  local field = (one[1] == '' or known(one[1])) and one[2] or one[3]
  redis.call('HINCRBY', KEYS[1], field, one[4])
end
for i, minute in ipairs(flush.minutes) do
  for _, one in ipairs(minute) do redis.call('HINCRBY', KEYS[4 + i], one[1], one[2]) end
  redis.call('EXPIRE', KEYS[4 + i], flush.minute_ttl)
end
return 1
