"""A ledger of any size, made in Redis itself, to see that what is read does not depend on it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from service import jobs, keys
from service.metrics_catalogue import (
    DONE,
    EVENTS,
    LEAD_TO_FILLED_SECONDS,
    PAID,
    PLANNED,
    Series,
    encode_series,
)

if TYPE_CHECKING:
    from redis import Redis

AT_ONCE = 5_000
RULES = 40
LEADS_SHARE = 3
"""Enrichments of one lead."""

_ENTRIES = """
-- ARGV: first, last, now_ms, rules, enrichments of a lead. A service in deep trouble: of ten, three are held
-- by the burst guard, one waits for later, one for a worker, three are dead and two filled.
local function id_of(n)
  return (string.format('%020d', n):gsub('[0189]', { ['0'] = 'a', ['1'] = 'b', ['8'] = 'c', ['9'] = 'd' }))
end
local now, rules = tonumber(ARGV[3]), tonumber(ARGV[4])
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local id, lead = id_of(n), 'lead_' .. math.floor(n / tonumber(ARGV[5]))
  local rule, at = 'Rule ' .. n % rules, string.format('%.0f', now - n)
  local of_ten = n % 10
  local state = of_ten < 5 and 'waiting' or of_ten < 8 and 'dead' or 'filled'
  local key, job = 'enrich:entry:' .. id, id .. '-0123456789'
  redis.call('HSET', key, 'v', 2, 'object', lead, 'field', 'cf_' .. n % rules, 'name', 'Field ' .. n % rules,
             'rule', rule, 'event', 'ev_' .. n, 'state', state, 'job', job, 'planned_ms', at, 'org', 'orga_1')
  redis.call('HSET', 'enrich:of:' .. lead, id, '')
  redis.call('HINCRBY', KEYS[1], state, 1)
  if state == 'waiting' then
    redis.call('ZADD', KEYS[2], at, id)
    if of_ten < 3 then
      redis.call('ZADD', KEYS[3], at, id)
    elseif of_ten == 3 then
      redis.call('ZADD', KEYS[4], at / 1000, job)
    else
      redis.call('RPUSH', KEYS[5], job)
    end
  else
    redis.call('HSET', key, 'ended_ms', at, 'changed_ms', at, 'called_ms', at, 'calls', 1, 'attempts', 1)
    if state == 'dead' then
      redis.call('HSET', key, 'reason', 'all 5 attempts failed: timed out')
      redis.call('ZADD', KEYS[6], at, id)
    else
      redis.call('HSET', key, 'value', '"Software for joineries"', 'confidence', 'high',
                 'reasoning', 'The web site describes planning software and names no other business.')
    end
  end
end
"""

_HISTORY = """
-- ARGV: how many facts, now_ms, rules, entries. Each third one is a result.
local function id_of(n)
  return (string.format('%020d', n):gsub('[0189]', { ['0'] = 'a', ['1'] = 'b', ['8'] = 'c', ['9'] = 'd' }))
end
for n = 1, tonumber(ARGV[1]) do
  local of = n % tonumber(ARGV[4])
  local state = n % 3 == 0 and 'filled' or n % 3 == 1 and 'planned' or 'calling'
  local fact = { at = tonumber(ARGV[2]) - n, id = id_of(of), object = 'lead_' .. math.floor(of / 3),
                 state = state, field = 'Field ' .. of % tonumber(ARGV[3]),
                 rule = 'Rule ' .. of % tonumber(ARGV[3]) }
  redis.call('XADD', KEYS[1], '*', 'fact', cjson.encode(fact))
end
"""


def fill(client: Redis, *, entries: int, history: int, now_seconds: float, quarantined: int = 1_000) -> None:
    """Fill an empty Redis.

    Args:
        client: a blocking client.
        entries: how many enrichments, three a lead.
        history: how many facts.
        now_seconds: Unix seconds; everything was a moment before.
        quarantined: deliveries that could not be read.
    """
    now_ms = round(now_seconds * 1000)
    live = jobs.LIVE_QUEUE
    names = [
        keys.COUNTS,
        keys.ACTIVE,
        keys.HELD,
        jobs.scheduled_key(live),
        jobs.queue_key(live),
        keys.ATTENTION,
    ]
    for first in range(0, entries, AT_ONCE):
        last = min(first + AT_ONCE, entries) - 1
        client.eval(_ENTRIES, len(names), *names, first, last, now_ms, RULES, LEADS_SHARE)
    for first in range(0, history, AT_ONCE):
        some = min(AT_ONCE, history - first)
        client.eval(_HISTORY, 1, keys.HISTORY, some, now_ms - first, RULES, max(1, entries))
    with client.pipeline(transaction=False) as pipeline:
        for number in range(quarantined):
            body = {"reason": f"no event {number}", "size": 201, "body": "{" + "x" * 200}
            pipeline.xadd(keys.QUARANTINE, body, id=f"{number + 1}-1")
        for number in range(60):
            pipeline.hset(keys.minute(int(now_seconds // 60) - number), mapping=_minute(number))
        day = dt.datetime.fromtimestamp(now_seconds, dt.UTC).date().isoformat()
        for number in range(RULES):
            for metric in ("calls", "found", "empty", "skipped", "duplicates"):
                pipeline.hset(keys.cost(day), f"Rule {number}\tField {number}\t{metric}", 7 * number)
        for number in range(10):
            pipeline.sadd(keys.BREAKERS, f"cf_{number}")
            facts = {
                "name": f"Field {number}",
                "rule": f"Rule {number}",
                "timeouts": 5,
                "until_ms": now_ms + 60_000,
            }
            pipeline.hset(keys.breaker(f"cf_{number}"), mapping=facts)
        for number in range(10):
            worker = f"rq:worker:{number:032x}"
            pipeline.sadd("rq:workers", worker)
            pipeline.hset(worker, mapping={"queues": live, "hostname": "vm", "pid": number})
        pipeline.execute()


def _minute(number: int) -> dict[str, int]:
    """One minute's counts, as `service.meter` adds them up."""
    counts = {
        Series(EVENTS.name, ("accepted",)): 100,
        Series(PLANNED.name, ("planned",)): 90,
        Series(PAID.name): 60,
        **{Series(DONE.name, (state,)): 10 + number for state in ("filled", "empty", "kept", "dead")},
        **{Series(LEAD_TO_FILLED_SECONDS.name, ("live",), str(bucket)): 5 for bucket in range(6)},
    }
    return {encode_series(series): count for series, count in counts.items()}
