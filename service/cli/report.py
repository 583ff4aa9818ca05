"""`status` and `show`: what the ledger says, for people or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table
from rich.text import Text

from service.cli.connection import connected
from service.cli.printing import print_json, report_console
from service.cli.start import give_up, settings_or_exit
from service.enrichment import STATE_MEANINGS, Entry, State, entry_of_job
from service.overview import moment, read_status, status_warnings
from service.redis_health import redis_health
from service.sought import sought_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.ledger import Ledger

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
    return connected(settings_or_exit("REDIS_URL"), work)


def print_status(*, as_json: bool) -> None:
    """The command `status`."""
    from service.cli.budgets import budgets_table, read_budgets

    settings = settings_or_exit("REDIS_URL")

    async def read(ledger: Ledger) -> dict[str, Any]:
        health = await redis_health(ledger.redis)
        return {
            **await read_status(ledger),
            "budgets": await read_budgets(ledger.redis, settings),
            "redis_problems": list(health.problems),
        }

    found = connected(settings, read)
    if as_json:
        print_json(found)
        return
    console = report_console()
    console.print(states_table(found["states"], all_states=False))
    console.print(queues_table(found["queues"]))
    if found["budgets"]:
        console.print(budgets_table(found["budgets"], zone=settings.budget_timezone))
    console.print(f"Workers alive: {len(found['workers'])}")
    for warning in (*(f"Redis: {one}" for one in found["redis_problems"]), *status_warnings(found)):
        console.print(Text(warning, style="bold red"), soft_wrap=True)


def queues_table(queues: dict[str, dict[str, int]]) -> Table:
    """How many jobs are in each queue."""
    table = Table(title="Queues", title_justify="left", box=None)
    table.add_column("queue")
    for name in ("queued", "scheduled"):
        table.add_column(name, justify="right")
    for name, sizes in queues.items():
        table.add_row(name, str(sizes["queued"]), str(sizes["scheduled"]))
    return table


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
    """The command `show`; the id may stand in an address of Close's."""
    wanted = object_id.strip()
    if not wanted:
        give_up("say what to show: lead_…, cont_…, an enrichment's id, or a lead's address in Close")
    # only there: an enrichment's own id, or a job's, is taken as it is
    object_id = sought_id(wanted) if "/" in wanted else wanted
    found = _with_ledger(lambda ledger: _read_story(ledger, object_id))
    if as_json:
        print_json([{**entry.describe(), "story": story} for entry, story in found])
    if not found:
        give_up(
            f"nothing is known of {object_id}: no rule has wanted it in the last 35 days", code=EXIT_NOT_FOUND
        )
    if as_json:
        return
    console = report_console()
    for entry, story in found:
        console.print(_headline(entry), soft_wrap=True)
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
    table.add_row(moment(entry.planned_ms), "planned", f"by rule {entry.rule} for {entry.cause}")
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
