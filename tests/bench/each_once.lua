-- For wrk, with one thread: sends each prepared request once over all connections, and ends when all are answered.
--
-- args  1 file of requests: for each its length as 8 digits and a newline, then the request
--       2 file for the result: JSON { seconds (from the first request to the last answer), statuses = { [status] = count } }
--
-- wrk counts by time; what is counted in Redis afterwards needs an exact number of requests, each answered.

local ffi = require('ffi')
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_moment;
  int clock_gettime(int clock, bench_moment *moment);
  int getpid(void);
  int kill(int pid, int signal);
]]
local MONOTONIC, SIGINT = 1, 2

local requests, result = {}, nil
local tried, sent, answered, began = false, 0, 0, nil
local statuses = {}

local function now()
  local moment = ffi.new('bench_moment')
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

function init(args)
  local file = assert(io.open(args[1], 'rb'))
  for length in function() return file:read(9) end do
    requests[#requests + 1] = file:read(tonumber(length))
  end
  file:close()
  result = args[2]
end

function request()
  -- wrk asks once before it begins, to see what a request looks like
  if not tried then
    tried = true
    return requests[1]
  end
  began = began or now()
  sent = sent + 1
  -- nothing left: the connection stays silent
  return requests[sent] or ''
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
  answered = answered + 1
  if answered < #requests then return end
  local seconds, counts = now() - began, {}
  for code, count in pairs(statuses) do counts[#counts + 1] = string.format('"%d": %d', code, count) end
  local file = assert(io.open(result, 'w'))
  file:write(string.format('{"seconds": %.6f, "statuses": {%s}}', seconds, table.concat(counts, ', ')))
  file:close()
  -- wrk sleeps until its time is up, or until it is interrupted
  ffi.C.kill(ffi.C.getpid(), SIGINT)
end
