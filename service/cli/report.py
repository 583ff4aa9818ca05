"""`status`, `show` and `quarantine list`: what the ledger says, for people or as JSON."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import click
import msgspec
import redis.asyncio
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service import jobs
from service.cli.start import give_up, redis_url_or_exit, settings_or_exit
from service.enrichment import STATE_MEANINGS, Entry, State, entry_of_job
from service.ledger import Ledger
from service.quarantine import list_quarantined
from service.readiness import alive_workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from service.brakes import Halt

STATE_STYLES = {
    State.FILLED: "green",
    State.CONFIRMED: "green",
    State.PREVIEWED: "cyan",
    State.CALLING: "bold yellow",
    State.WAITING: "yellow",
    State.PLANNED: "yellow",
    State.REJECTED: "red",
    State.HELD: "red",
    State.DEAD: "red",
}

EXIT_NOT_FOUND = 1


def _with_ledger(work: Callable[[Ledger], Awaitable[Any]]) -> Any:
    url = redis_url_or_exit(settings_or_exit("REDIS_URL"))

    async def run() -> Any:
        connection: Redis = redis.asyncio.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=10)
        try:
            return await work(Ledger(connection))
        finally:
            await connection.aclose()

    try:
        return asyncio.run(run())
    except (RedisError, OSError) as error:
        give_up(f"Redis does not answer at REDIS_URL ({type(error).__name__})", code=1)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


async def read_status(ledger: Ledger) -> dict[str, Any]:
    """States, queues, workers and the halt, as plain data."""
    counts = await ledger.counts()
    async with ledger.redis.pipeline(transaction=False) as pipeline:
        for queue in jobs.QUEUES:
            pipeline.llen(jobs.queue_key(queue))
            pipeline.zcard(jobs.scheduled_key(queue))
        sizes = await pipeline.execute()
    halt: Halt | None = await ledger.brakes.halted()
    return {
        "states": {str(state): count for state, count in counts.items()},
        "queues": {
            queue: {"queued": sizes[2 * at], "scheduled": sizes[2 * at + 1]}
            for at, queue in enumerate(jobs.QUEUES)
        },
        "workers": await alive_workers(ledger),
        "halted": None
        if halt is None
        else {"reason": halt.reason, "kind": halt.kind, "since_ms": halt.since_ms},
    }


def print_status(*, as_json: bool) -> None:
    """The command `status`."""
    found = _with_ledger(read_status)
    if as_json:
        print_json(found)
        return
    console = Console()
    console.print(states_table(found["states"], all_states=False))
    queues = Table(title="Queues", title_justify="left", box=None)
    queues.add_column("queue")
    queues.add_column("queued", justify="right")
    queues.add_column("scheduled", justify="right")
    for name, sizes in found["queues"].items():
        queues.add_row(name, str(sizes["queued"]), str(sizes["scheduled"]))
    console.print(queues)
    console.print(f"Workers alive: {len(found['workers'])}")
    if found["halted"]:
        console.print(Text(f"All calls are halted: {found['halted']['reason']}", style="bold red"))


def states_table(states: dict[str, int], *, all_states: bool) -> Table:
    """How many enrichments are in each state; those of none only if asked for."""
    table = Table(title="Enrichments", title_justify="left", box=None)
    table.add_column("state")
    table.add_column("count", justify="right")
    table.add_column("meaning", style="dim")
    for state in State:
        if all_states or states[state]:
            table.add_row(
                Text(state.value, style=STATE_STYLES.get(state, "")),
                str(states[state]),
                STATE_MEANINGS[state],
            )
    if not table.row_count:
        table.add_row("none yet", "", "")
    return table


async def _read_story(ledger: Ledger, wanted: str) -> list[tuple[Entry, list[dict[str, Any]]]]:
    entries = await ledger.entries_of(wanted)
    if not entries:
        one = await ledger.entry(entry_of_job(wanted))
        entries = [] if one is None else [one]
    return [(entry, await ledger.story(entry.id)) for entry in entries]


def print_story(object_id: str, *, as_json: bool) -> None:
    """The command `show`."""
    found = _with_ledger(lambda ledger: _read_story(ledger, object_id))
    if as_json:
        print_json([{**entry.describe(), "story": story} for entry, story in found])
    if not found:
        give_up(
            f"nothing is known of {object_id}: no rule has wanted it in the last 35 days", code=EXIT_NOT_FOUND
        )
    if as_json:
        return
    console = Console()
    for entry, story in found:
        console.print(_headline(entry))
        console.print(_story_table(entry, story))


def _headline(entry: Entry) -> Text:
    line = Text()
    line.append(entry.field_name or entry.field_id, style="bold")
    line.append(f" of {entry.object_id}: ")
    line.append(entry.state.value, style=STATE_STYLES.get(entry.state, ""))
    if entry.value is not None:
        line.append(f" {msgspec.json.encode(entry.value).decode()}")
    if entry.confidence:
        line.append(f" (confidence {entry.confidence})", style="dim")
    return line


def _story_table(entry: Entry, story: list[dict[str, Any]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_row(
        moment(entry.planned_ms), "planned", f"by rule {entry.rule} for {entry.action} event {entry.event_id}"
    )
    for fact in story:
        words = [fact.get("reason", "")]
        if "attempt" in fact:
            words.append(f"attempt {fact['attempt']}")
        if fact.get("delay_ms"):
            words.append(f"for {fact['delay_ms'] / 1000:.1f} s")
        table.add_row(moment(fact["at"]), fact["state"], ", ".join(word for word in words if word))
    if not entry.state.final and entry.due_ms:
        table.add_row(moment(entry.due_ms), "due", entry.reason)
    if entry.reasoning:
        table.add_row("", "reasoning", entry.reasoning)
    table.add_row(
        "", "cost", f"{entry.calls} call{'' if entry.calls == 1 else 's'} that may have been charged"
    )
    return table


def moment(at_ms: int) -> str:
    """A moment for people, UTC, to the tenth of a second."""
    at = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + str(at.microsecond // 100_000)


def print_quarantine(*, as_json: bool, bodies: bool) -> None:
    """The command `quarantine list`."""
    found = _with_ledger(lambda ledger: list_quarantined(ledger.redis))
    rows = [
        {
            "id": one.id,
            "received_at": moment(int(one.id.partition("-")[0])),
            "reason": one.reason,
            "size_bytes": one.size_bytes,
            **({"body": one.body.decode(errors="replace")} if bodies else {}),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    console = Console()
    if not rows:
        console.print("The quarantine is empty.")
    for row in rows:
        console.print(
            f"{row['received_at']}  {row['id']}  {row['size_bytes']} bytes: {row['reason']}", highlight=False
        )
        if bodies:
            console.print(Text(row["body"]))
