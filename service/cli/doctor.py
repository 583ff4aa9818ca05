"""The command `doctor`. The looking is in `service.cli.doctor_looks`, imported when it runs."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.doctor import Finding

EXIT_PROBLEM = 1
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗", "not checked": "·"}
_PLAIN_MARKS = {"ok": "ok", "warning": "!", "problem": "X", "not checked": "-"}
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "not checked": "dim"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> None:
    """Look at all that has to work together, and say what to do about what does not.

    Key, clock, Redis, rules, subscription, public address, workers and what waits. Nothing is changed; one
    signed event that leads to nothing is sent to PUBLIC_URL. Exit 1 where something is a problem.

    Example: close-enrich doctor
    """
    import asyncio

    from service.cli.doctor_looks import examine
    from service.cli.printing import print_json
    from service.cli.start import settings_or_exit
    from service.doctor import State

    settings = settings_or_exit()
    findings = asyncio.run(examine(settings))
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        _print(findings)
    if any(one.state is State.PROBLEM for one in findings):
        raise SystemExit(EXIT_PROBLEM)


def _print(findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from service.cli.printing import report_console

    marks = _MARKS if _can_show("".join(_MARKS.values()) + "→") else _PLAIN_MARKS
    arrow = "→" if marks is _MARKS else "->"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in together(findings):
        words = Text(one.finding, style="dim" if one.state == "not checked" else "")
        if one.fix:
            words.append(f"\n{arrow} {one.fix}", style="cyan")
        table.add_row(Text(marks[one.state], style=_STYLES[one.state]), Text(one.check), words)
    report_console().print(table)
    click.echo(summary(findings))


def together(findings: Sequence[Finding]) -> list[Finding]:
    """The findings for people: checks that were not possible for the same reason share a line, at the end."""
    from service.doctor import Finding, State

    shared: dict[str, list[str]] = {}
    for one in findings:
        if one.state is State.NOT_CHECKED:
            shared.setdefault(one.finding, []).append(one.check)
    several = {why: checks for why, checks in shared.items() if len(checks) > 1}
    alone = [one for one in findings if one.state is not State.NOT_CHECKED or one.finding not in several]
    return alone + [
        Finding(check="not checked", state=State.NOT_CHECKED, finding=f"{', '.join(checks)}: {why}")
        for why, checks in several.items()
    ]


def summary(findings: Sequence[Finding]) -> str:
    """How the examination ended, in a line."""
    from service.cli.agree import number
    from service.doctor import State

    counts = Counter(one.state for one in findings)
    parts = [number(counts[state], state.value) for state in (State.PROBLEM, State.WARNING) if counts[state]]
    if counts[State.NOT_CHECKED]:
        parts.append(f"{counts[State.NOT_CHECKED]} not checked")
    return f"{', '.join(parts)}." if parts else "All is well."


def _can_show(text: str) -> bool:
    """Whether the output's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeError):
        return False
    return True
