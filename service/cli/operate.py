"""The commands that a person acts with: `halt`, `resume` and `release`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from service.brakes import PERSON
from service.cli.connection import connected
from service.cli.printing import print_json, report_console
from service.cli.start import give_up, settings_or_exit
from service.held import count_held, held, release
from service.overview import moment
from service.problem import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.brakes import Halt
    from service.held import Held
    from service.ledger import Ledger

NO_REASON = "a person halted it"
EXIT_DECLINED = 1


def describe_halt(halt: Halt | None) -> dict[str, Any] | None:
    """A halt as plain data."""
    return None if halt is None else {"reason": halt.reason, "kind": halt.kind, "since_ms": halt.since_ms}


def run_halt(*, reason: str | None, as_json: bool) -> None:
    """The command `halt`: stop every call; one that has left already is not called back."""

    async def work(ledger: Ledger) -> tuple[bool, Halt | None]:
        changed = await ledger.brakes.halt(reason=reason or NO_REASON, kind=PERSON)
        return changed, await ledger.brakes.halted()

    changed, halt = connected(settings_or_exit("REDIS_URL"), work)
    if as_json:
        print_json({"changed": changed, "halted": describe_halt(halt)})
    elif changed:
        click.echo("Halted: no call leaves until `close-enrich resume`. Calls in flight end as usual.")
    elif halt is not None:
        click.echo(f"Halted already since {moment(halt.since_ms)} UTC: {halt.reason}")


def run_resume(*, as_json: bool) -> None:
    """The command `resume`: let calls leave again, whoever or whatever has halted them."""

    async def work(ledger: Ledger) -> tuple[bool, Halt | None]:
        before = await ledger.brakes.halted()
        return await ledger.brakes.resume(), before

    changed, before = connected(settings_or_exit("REDIS_URL"), work)
    if as_json:
        print_json({"changed": changed, "was_halted": describe_halt(before if changed else None)})
    elif changed and before is not None:
        click.echo(f"Calls leave again. Halted since {moment(before.since_ms)} UTC: {before.reason}")
    elif changed:
        click.echo("Calls leave again.")
    else:
        click.echo("Calls were not halted; nothing has changed.")


def run_release(*, limit: int | None, rule: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """The command `release`: show what the burst guard holds, ask, and let it go, the oldest first.

    Exits 1 where the person says no, 2 where there is nobody to ask.
    """
    settings = settings_or_exit("REDIS_URL")
    everything: list[Held] = connected(settings, lambda ledger: held(ledger.redis))
    groups = [one for one in everything if rule in {None, one.rule}]
    count = sum(one.count for one in groups)
    count = count if limit is None else min(limit, count)
    if not as_json:
        _show(everything, groups, rule=rule)
    released = 0
    left = sum(one.count for one in everything)
    if count and not dry_run:
        if not yes:
            _ask(count)

        async def work(ledger: Ledger) -> tuple[int, int]:
            # no more than was shown and agreed to, although more may be held by now
            return await release(ledger, limit=count, rule=rule), await count_held(ledger.redis)

        released, left = connected(settings, work)
    if as_json:
        print_json(
            {
                "held": [
                    {
                        "rule": one.rule,
                        "held": one.count,
                        "credits_at_most": one.credits_at_most,
                        "oldest_ms": one.oldest_ms,
                    }
                    for one in groups
                ],
                "dry_run": dry_run,
                "released": released,
                "left": left,
            }
        )
    elif count and dry_run:
        click.echo(f"Would release {count}, for {_price(count)}. Nothing was released.")
    elif count:
        click.echo(f"Released {released}; {left} still held.")


def _ask(count: int) -> None:
    """Go on only if a person says so."""
    if not sys.stdin.isatty():
        give_up(
            f"releasing {count} costs {_price(count)}, and there is no terminal to ask at: "
            "add --yes to release, or --dry-run to look"
        )
    if not click.confirm(f"Release {count}, for {_price(count)}?", err=True):
        give_up("Nothing was released.", code=EXIT_DECLINED)


def _price(count: int) -> str:
    return f"at most {count} credit{'' if count == 1 else 's'}"


def _show(everything: Sequence[Held], groups: Sequence[Held], *, rule: str | None) -> None:
    if not everything:
        click.echo("The burst guard holds nothing.")
    elif not groups and rule is not None:
        near = nearest(rule, [one.rule for one in everything])
        hint = f"; did you mean '{near}'?" if near else ""
        click.echo(f"The burst guard holds nothing of rule '{rule}'{hint}")
    if not groups:
        return
    table = Table(title="Held by the burst guard", title_justify="left", box=None)
    table.add_column("rule")
    table.add_column("held", justify="right")
    table.add_column("credits at most", justify="right")
    table.add_column("oldest (UTC)", no_wrap=True)
    for one in groups:
        table.add_row(Text(one.rule), str(one.count), str(one.credits_at_most), moment(one.oldest_ms))
    report_console().print(table)
