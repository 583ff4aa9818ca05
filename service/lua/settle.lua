-- End an enrichment. Only the newest fence may; whoever comes late changes nothing, and whoever asks once more
-- because the answer was lost gets the same answer.
--
-- KEYS  1 entry  2 active  3 counts  4 history  5 story  6 entries of the object
--       7 next rq job  8 rq:queues  9 queue  10 scheduled  11 price list of the day  12 breaker of the field
--       13 open breakers  14 entries that need a person, then the budget counters that the call was charged to
-- ARGV  1 entry id  2 fence  3 final state  4 reason  5 ttl_seconds  6 value JSON or ""  7 confidence  8 reasoning
--       9 1 when Close did not run the call, if this fence was given leave for one  10 next job id  11 iso now
--       12 origin  13 grace_ms  14 metric for the price list, or ""  15 1 where Close answered the call  16 field id
--       17.. the RQ job template
-- Returns "settled" | "again" (an event came in meanwhile: planned once more, unless the field is filled now and the
--         rule only fills) | "fenced"

local found = redis.call('HMGET', KEYS[1], 'state', 'fence', 'object', 'name', 'rule', 'again', 'mode', 'job',
                         'asked')
if found[8] == ARGV[10] then return 'again' end
-- taking over and ending would have used two fences
if found[1] and FINAL[found[1]] and tonumber(found[2]) == ARGV[2] + 1 then return 'settled' end
if found[2] ~= ARGV[2] or not found[1] or FINAL[found[1]] then return 'fenced' end
local now = now_ms()
if ARGV[9] == '1' and found[9] == ARGV[2] then
  redis.call('HINCRBY', KEYS[1], 'calls', -1)
  note_cost(KEYS[11], found[5], found[4], 'unpaid')
  give_back(KEYS, 15, #KEYS)
end
if ARGV[14] ~= '' then note_cost(KEYS[11], found[5], found[4], ARGV[14]) end
if ARGV[15] == '1' then
  redis.call('DEL', KEYS[12])
  redis.call('SREM', KEYS[13], ARGV[16])
end
redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'reason', ARGV[4], 'changed_ms', whole(now), 'ended_ms', whole(now))
redis.call('HDEL', KEYS[1], 'holder', 'unreachable_ms', 'failures', 'due_ms', 'again', 'blocked', 'value', 'confidence',
           'reasoning')
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'value', ARGV[6]) end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'confidence', ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'reasoning', ARGV[8]) end
tell(KEYS[4], KEYS[5], now, ARGV[5], { id = ARGV[1], object = found[3], field = found[4], rule = found[5],
                                       state = ARGV[3], reason = ARGV[4] })
local filled = (found[7] or 'fill') == 'fill' and (ARGV[3] == 'filled' or ARGV[3] == 'confirmed')
if found[6] and not filled then
  local template = {}
  for i = 17, #ARGV do template[#template + 1] = ARGV[i] end
  redis.call('HSET', KEYS[1], 'state', 'planned', 'reason', 'changed meanwhile', 'event', found[6],
             'job', ARGV[10], 'attempts', 0, 'planned_ms', whole(now), 'due_ms', whole(now))
  redis.call('HDEL', KEYS[1], 'ended_ms', 'called_ms', 'ambiguous', 'before')
  enqueue({ job = KEYS[7], queues = KEYS[8], queue = KEYS[9], scheduled = KEYS[10], origin = ARGV[12] },
          ARGV[10], template, ARGV[11], found[5], now, 0, false)
  redis.call('ZADD', KEYS[2], whole(now + ARGV[13]), ARGV[1])
  count(KEYS[3], found[1], 'planned')
  tell(KEYS[4], KEYS[5], now, ARGV[5], { id = ARGV[1], object = found[3], field = found[4], rule = found[5],
                                         state = 'planned', reason = 'changed meanwhile', event = found[6] })
  return 'again'
end
redis.call('ZREM', KEYS[2], ARGV[1])
if NEEDS_A_PERSON[ARGV[3]] then
  -- whoever has it tried again must know that a call may have run
  if ARGV[3] == 'held' then redis.call('HSET', KEYS[1], 'ambiguous', 1) end
  redis.call('ZADD', KEYS[14], whole(now), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[14], '-inf', whole(now - ARGV[5] * 1000)) -- those have expired
else
  redis.call('HDEL', KEYS[1], 'ambiguous', 'before')
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('HSET', KEYS[6], ARGV[1], '') -- a release of version 1 kept it elsewhere
redis.call('EXPIRE', KEYS[6], ARGV[5])
count(KEYS[3], found[1], ARGV[3])
return 'settled'
