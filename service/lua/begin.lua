-- Take an enrichment in hand: the execution that gets the new fence is the only one that may call or settle.
--
-- KEYS  1 entry  2 active  3 the organization that entries are of
-- ARGV  1 job id  2 entry id  3 holder (the same one asking again gets the same claim)  4 lease_ms  5 newest entry version this worker understands
-- Returns { "missing" } | { "stale" } (another job delivers it now, or it is final) | { "busy" } (in live hands)
--         | { "newer" } (written by a newer release) | { "taken", fence, entry as a flat list,
--         the organization }

local now = now_ms()
local found = redis.call('HMGET', KEYS[1], 'state', 'job', 'holder', 'v', 'fence')
local state = found[1]
if not state then return { 'missing' } end
if found[2] ~= ARGV[1] then return { 'stale' } end
if tonumber(found[4]) > tonumber(ARGV[5]) then return { 'newer' } end
if FINAL[state] then return { 'stale' } end
if found[3] == ARGV[3] then
  return { 'taken', tonumber(redis.call('HGET', KEYS[1], 'fence')), redis.call('HGETALL', KEYS[1]),
           redis.call('GET', KEYS[3]) }
end
local lease = redis.call('ZSCORE', KEYS[2], ARGV[2])
if found[3] and found[3] ~= '' and lease and tonumber(lease) > now then return { 'busy' } end

-- by the clock: a fence that a failover has lost, and its holder still shows, is not handed out once more
local fence = math.max((tonumber(found[5]) or 0) + 1, now)
redis.call('HSET', KEYS[1], 'holder', ARGV[3], 'fence', whole(fence))
-- whoever had it before was lost during the call, which may have run
if state == 'calling' then redis.call('HSET', KEYS[1], 'ambiguous', 1) end
redis.call('ZADD', KEYS[2], whole(now + ARGV[4]), ARGV[2])
return { 'taken', fence, redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[3]) }
