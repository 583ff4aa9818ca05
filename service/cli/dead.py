"""The commands `dead list|show|retry|drop`: what ended so that a person has to look, and what then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.dead_letter_filter import Group, Place, Wanted
    from service.dead_letters import DeadLetters
    from service.enrichment import Entry
    from service.ledger import Ledger

STATES = ("dead", "held", "rejected")
EXIT_NOT_FOUND = 1


def _seconds(_ctx: click.Context, _param: click.Parameter, written: str | None) -> float | None:
    """A length of time such as `90m` or `3d` as seconds, or what was expected."""
    from service.durations import nearest_duration, parse_duration

    seconds = None if written is None else parse_duration(written)
    if written is not None and seconds is None:
        near = nearest_duration(written)
        hint = f"; did you mean '{near}'?" if near else ""
        raise click.BadParameter(f"expected a duration such as 90m, 12h or 3d, not '{written}'{hint}")
    return seconds


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which dead letters are meant."""
    options = (
        click.option("--rule", metavar="NAME", help="Of this rule."),
        click.option("--reason", metavar="TEXT", help="With this text in the reason."),
        click.option("--state", type=click.Choice(STATES), help="That ended so."),
        click.option("--object", "object_id", metavar="ID", help="Of this lead or contact."),
        click.option(
            "--older", metavar="DURATION", callback=_seconds, help="That ended at least so long ago: 12h, 3d."
        ),
        click.option(
            "--newer", metavar="DURATION", callback=_seconds, help="That ended at most so long ago."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _bulk(command: Callable[..., None]) -> Callable[..., None]:
    """What `retry` and `drop` take besides: ids, or filters, or all."""
    options = (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        _filters,
        click.option("--all", "everything", is_flag=True, help="All of them, where no filter is given."),
        click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest first."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def dead() -> None:
    """Enrichments that ended without an answer and need a person: dead, held or rejected."""


@dead.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--after", metavar="PLACE", help="Go on where a list before has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dead_list(*, limit: int, after: str | None, as_json: bool, **filters: Any) -> None:
    """List them, newest first.

    Example: close-enrich dead list --rule Industry --newer 1d
    """
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.cli.start import settings_or_exit
    from service.dead_letters import DeadLetters

    wanted, place = _wanted(**filters), _place(after)

    async def read(ledger: Ledger) -> Any:
        letters = DeadLetters(ledger)
        return await letters.page(wanted, limit=limit, after=place), await letters.count()

    page, count = connected(settings_or_exit("REDIS_URL"), read)
    if as_json:
        following = None if page.next is None else str(page.next)
        letters = [entry.describe() for entry in page.entries]
        print_json({"dead_letters": letters, "next": following, "all": count})
        return
    if not page.entries:
        click.echo("There are no dead letters." if not count else f"None of the {count} is meant.")
        return
    _print_list(page.entries)
    if page.next is not None:
        click.echo(f"More: the same with --after {page.next}")


@dead.command("show")
@click.argument("enrichment_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dead_show(enrichment_id: str, *, as_json: bool) -> None:
    """Tell the story of one, or of all enrichments of a lead or contact.

    Example: close-enrich dead show lead_M3mBxgm1KvKx5ghAbbnJlL43xA40w7S3sc5EdurJySW
    """
    from service.cli.report import print_story

    print_story(enrichment_id, as_json=as_json)


@dead.command("retry")
@_bulk
def dead_retry(ids: tuple[str, ...], **options: Any) -> None:
    """Plan them anew, after showing the price.

    Attempts are counted from nothing. Where an earlier call may have run, the field is read back first.

    Example: close-enrich dead retry --rule Industry --reason timed --newer 1d
    """
    _act("retry", ids, **options)


@dead.command("drop")
@_bulk
def dead_drop(ids: tuple[str, ...], **options: Any) -> None:
    """Take them off the list for good. They stay as they are, and their story says so.

    Example: close-enrich dead drop --state rejected --older 7d
    """
    _act("drop", ids, **options)


def _act(
    verb: str,
    ids: Sequence[str],
    *,
    everything: bool,
    limit: int | None,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Count, show the price, ask, and do it: exactly as many as were shown, a page at a time."""
    from service.cli.agree import agree_or_exit, number
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.cli.start import settings_or_exit
    from service.dead_letter_filter import groups as groups_of
    from service.dead_letters import DeadLetters

    filtered = any(one is not None for one in filters.values())
    if bool(ids) + filtered + everything != 1:
        raise click.UsageError(f"say which to {verb}: ids, or filters, or --all")
    wanted = _wanted(**filters)
    settings = settings_or_exit("REDIS_URL")

    async def count_them(ledger: Ledger) -> tuple[list[Group], int]:
        letters = DeadLetters(ledger)
        until_ms = await letters.now_ms()
        if ids:
            return groups_of(await _named(letters, ids)), until_ms
        return await letters.tally(wanted, until_ms=until_ms), until_ms

    groups, until_ms = connected(settings, count_them)
    count = sum(one.count for one in groups)
    count = count if limit is None else min(limit, count)
    price = f", for at most {number(count, 'credit')}" if verb == "retry" else ""
    if not as_json:
        _print_groups(groups, priced=verb == "retry")
    if count and not yes:
        question = f"{verb.capitalize()} {number(count, 'dead letter')}{price}?"
        agree_or_exit(question, otherwise=f"add --yes to {verb}")

    async def do_them(ledger: Ledger) -> int:
        letters = DeadLetters(ledger)
        act = letters.retry if verb == "retry" else letters.drop
        if ids:
            return await act((await letters.named(ids))[:count])
        return await letters.all_wanted(act, wanted, most=count, until_ms=until_ms)

    done = connected(settings, do_them) if count else 0
    past = "retried" if verb == "retry" else "dropped"
    if as_json:
        print_json({"found": [_describe(one, priced=bool(price)) for one in groups], past: done})
    elif count:
        click.echo(f"{past.capitalize()} {number(done, 'dead letter')}.")


def _describe(one: Group, *, priced: bool) -> dict[str, Any]:
    price = {"credits_at_most": one.credits_at_most} if priced else {}
    return {"rule": one.rule, "state": str(one.state), "count": one.count, **price}


async def _named(letters: DeadLetters, ids: Sequence[str]) -> list[Entry]:
    """The entries of these ids, or that some are no dead letters, and exit 1."""
    from service.cli.start import give_up

    found = await letters.named(list(dict.fromkeys(ids)))
    missing = sorted(set(ids) - {entry.id for entry in found})
    if missing:
        give_up(
            f"not a dead letter, or not any more: {', '.join(missing)}. See close-enrich dead list",
            code=EXIT_NOT_FOUND,
        )
    return found


def _wanted(*, older: float | None, newer: float | None, state: str | None, **others: Any) -> Wanted:
    from service.dead_letter_filter import Wanted
    from service.enrichment import State

    return Wanted(
        state=None if state is None else State(state), older_seconds=older, newer_seconds=newer, **others
    )


def _place(after: str | None) -> Place | None:
    from service.dead_letter_filter import Place

    if after is None:
        return None
    place = Place.read(after)
    if place is None:
        raise click.UsageError("--after takes what the list before has printed at its end")
    return place


def _print_groups(groups: Sequence[Group], *, priced: bool) -> None:
    from rich.table import Table

    from service.cli.printing import report_console

    if not groups:
        click.echo("There are no such dead letters.")
        return
    table = Table(title="Dead letters", title_justify="left", box=None)
    table.add_column("rule")
    table.add_column("state")
    table.add_column("count", justify="right")
    if priced:
        table.add_column("credits at most", justify="right")
    for one in groups:
        price = [str(one.credits_at_most)] if priced else []
        table.add_row(one.rule, str(one.state), str(one.count), *price)
    report_console().print(table)


def _print_list(entries: Sequence[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from service.cli.printing import fits, report_console
    from service.cli.report import STATE_STYLES
    from service.overview import moment

    console = report_console()
    table = Table(box=None)
    for name in ("ended (UTC)", "id", "record", "field", "state", "reason"):
        table.add_column(name)
    for entry in entries:
        table.add_row(
            moment(entry.ended_ms or entry.changed_ms),
            entry.id,
            Text(entry.object_id),
            Text(entry.field_name or entry.field_id),
            Text(str(entry.state), style=STATE_STYLES[entry.state]),
            Text(entry.reason),
        )
    if fits(console, table):
        console.print(table)
        return
    # folded cells would tear ids apart, which are there to be copied
    for entry in entries:
        state = (str(entry.state), STATE_STYLES[entry.state])
        console.print(Text.assemble(f"{entry.id}  {entry.object_id}  ", state), soft_wrap=True)
        ended = moment(entry.ended_ms or entry.changed_ms)
        words = f"  {ended}  {entry.field_name or entry.field_id}: {entry.reason}"
        console.print(Text(words), soft_wrap=True)
