"""`/_sandbox/…`, which asks for no key: statistics, invented leads, faults and options."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import msgspec

from service.sandbox import records
from service.sandbox.faults import parsed_faults
from service.sandbox.fields import is_empty
from service.sandbox.options import changed_options
from service.sandbox.people import invented_lead
from service.sandbox.wire import Reply, answer, failure, invalid, json_object

if TYPE_CHECKING:
    from service.sandbox.world import Record, World

MOST_LEADS_AT_ONCE = 100_000


def add_invented_leads(world: World, count: int) -> list[Record]:
    """Make leads as a person or a form would: with contacts, without an API key."""
    return [_add_one(world) for _ in range(count)]


def statistics(world: World) -> dict[str, Any]:
    """What has happened so far, as numbers."""
    calls, tally = world.calls, world.tally
    empty: Counter[str] = Counter()
    for object_type, all_records in (("lead", world.leads), ("contact", world.contacts)):
        for field in world.fields_of(object_type):
            lacking = sum(1 for record in all_records.values() if is_empty(record.get(field.key)))
            empty[f"{object_type}.{field.name}"] = lacking
    return {
        "leads": len(world.leads),
        "contacts": len(world.contacts),
        "events": len(world.journal),
        "requests": tally.requests,
        "rate_limited": tally.rate_limited,
        "enrichment": {
            "requests": calls.requests,
            "open": calls.open,
            "most_open": calls.most_open,
            "ran": calls.ran,
            "saved": calls.saved,
            "charged": calls.charged,
            "credits_left": world.credits,
            "most_runs_of_a_field": calls.most_runs_of_a_field,
            "statuses": {str(status or "none"): count for status, count in calls.statuses.items()},
        },
        "deliveries": {
            "succeeded": tally.deliveries_succeeded,
            "failed": tally.deliveries_failed,
            "dropped": tally.deliveries_dropped,
            "waiting": sum(subscription.backlog for subscription in world.subscriptions.values()),
        },
        "empty_fields": dict(empty),
    }


class Control:
    """The `/_sandbox/` endpoints; entered while the sandbox runs, for the leads that come at a pace."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answer(self, *, method: str, path: str, body: bytes) -> Reply:
        """The answer to one call below `/_sandbox/`."""
        actions = {
            ("GET", "/_sandbox/stats"): lambda: answer(statistics(self._world)),
            ("POST", "/_sandbox/leads"): lambda: self._post_leads(body),
            ("POST", "/_sandbox/faults"): lambda: self._post_faults(body),
            ("POST", "/_sandbox/options"): lambda: self._post_options(body),
        }
        action = actions.get((method, path.rstrip("/")))
        return failure(404, "Not part of the sandbox.") if action is None else action()

    def _post_leads(self, body: bytes) -> Reply:
        """`{"count": n}` makes leads at once, with `per_second` one after the other in the background."""
        wanted = json_object(body)
        if isinstance(wanted, Reply):
            return wanted
        problems = {name: "Unknown field." for name in wanted if name not in ("count", "per_second")}
        count, per_second = wanted.get("count", 1), wanted.get("per_second")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_LEADS_AT_ONCE:
            problems["count"] = f"Expected a whole number from 1 to {MOST_LEADS_AT_ONCE}."
        if per_second is not None and not (isinstance(per_second, int | float) and per_second > 0):
            problems["per_second"] = "Expected a number more than 0."
        if problems:
            return invalid(problems)
        if per_second is None:
            return answer({"ids": [lead["id"] for lead in add_invented_leads(self._world, count)]})
        task = asyncio.create_task(self._add_at_a_pace(count, 1 / per_second))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer({"ids": []}, status=202)

    async def _add_at_a_pace(self, count: int, pause_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        for number in range(count):
            # Measured from the start, so that the time an addition takes does not slow the pace.
            await asyncio.sleep(max(0.0, started_at + number * pause_seconds - loop.time()))
            _add_one(self._world)

    def _post_faults(self, body: bytes) -> Reply:
        """A fault rule or a list of them, in place of all before; an empty list ends all faults."""
        try:
            decoded = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return invalid(None, "The request body is not valid JSON.")
        rules = parsed_faults(decoded)
        if isinstance(rules, str):
            return invalid(None, rules)
        self._world.faults.replace(rules)
        return answer({"faults": len(rules)})

    def _post_options(self, body: bytes) -> Reply:
        """Some of `SandboxOptions` by name; `credits` sets the balance."""
        changes = json_object(body)
        if isinstance(changes, Reply):
            return changes
        options = changed_options(self._world.options, changes)
        if isinstance(options, str):
            return invalid(None, options)
        self._world.configure(options)
        if "credits" in changes:
            self._world.credits = options.credits
        return answer({"changed": sorted(changes)})


def _add_one(world: World) -> Record:
    cause = world.cause(path="/api/v1/lead/", method="POST")
    return records.create_lead(world, invented_lead(world.random), cause)
