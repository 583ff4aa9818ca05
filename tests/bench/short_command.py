"""`python -m tests.bench short`: the short form beside the recorded ratios."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from tests.bench.recorded import RECORDED, better_of, compare, dump, load, medians
from tests.bench.short import SUITES
from tests.bench.wrk import NoWrkError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tests.bench.recorded import Ratio, Verdict


ROUNDS_RECORDED = 3
MORE_TRIES = 2


@click.command("short")
@click.option("--record", is_flag=True, help="Write medians of three runs to tests/bench/recorded.json.")
@click.option("--only", multiple=True, type=click.Choice(tuple(SUITES)), help="May be repeated.")
def short(*, record: bool, only: tuple[str, ...]) -> None:
    """About a minute: ratios beside the recorded ones. Needs wrk, and a machine that does nothing else.

    Fails when a ratio has fallen by more than a third or, where less is better, risen by more than half. What
    seems worse is measured up to twice more, and the best counts.

    Example: python -m tests.bench short
    """
    suites = only or tuple(SUITES)
    # what ran before may have left much to be written: Redis would wait for the disk, and not for its clients
    os.sync()
    if record and only:
        raise click.UsageError("--record writes all suites; expected no --only with it")
    try:
        ratios = medians([_measured(suites) for _ in range(ROUNDS_RECORDED if record else 1)])
        if record:
            today = dt.datetime.now(dt.UTC).date().isoformat()
            RECORDED.write_text(dump(ratios, when=today, machine=_machine()))
            click.echo(f"wrote {RECORDED.name}", err=True)
        verdicts = _compared(ratios, suites)
        for _ in range(MORE_TRIES):
            worse = {one.suite for one in verdicts if one.problem and one.suite}
            if worse:
                click.echo(f"once more, as it seems worse: {', '.join(sorted(worse))}", err=True)
                ratios = better_of(ratios, _measured(worse))
                verdicts = _compared(ratios, suites)
    except NoWrkError as error:
        raise click.UsageError(str(error)) from None
    _print(verdicts)
    if any(one.problem for one in verdicts):
        sys.exit(1)


def _measured(suites: Collection[str]) -> list[Ratio]:
    return [ratio for name in SUITES if name in suites for ratio in SUITES[name]()]


def _compared(ratios: Sequence[Ratio], suites: Collection[str]) -> list[Verdict]:
    try:
        recorded = load(RECORDED.read_text())
    except FileNotFoundError:
        recorded = {}
    except ValueError as error:
        raise click.UsageError(f"{RECORDED}: {error}") from None
    return compare(
        {key: value for key, value in recorded.items() if key.partition(": ")[0] in suites}, ratios
    )


def _print(verdicts: Sequence[Verdict]) -> None:
    table = Table(title="short form", title_justify="left", box=None)
    for name in ("ratio", "recorded", "now", ""):
        table.add_column(name, justify="right" if name in {"recorded", "now"} else "left")
    for one in verdicts:
        word = "not recorded yet" if one.recorded is None else "ok"
        table.add_row(one.key, _text(one.recorded), _text(one.now), one.problem or word)
    Console(stderr=True, width=120).print(table)
    click.echo(
        json.dumps(
            {
                one.key: {"recorded": one.recorded, "now": one.now, "problem": one.problem or None}
                for one in verdicts
            }
        )
    )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
