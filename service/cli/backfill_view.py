"""How a backfill's progress is shown: a bar on a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.cli.agree import noun
from service.cli.backfill_price import duration
from service.enrichment import NEEDS_A_PERSON
from workers.backfill_run import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from service.brakes import Halt
    from workers.backfill_run import Run
    from workers.backfill_watch import Progress as Watched

LINE_EVERY_SECONDS = 10.0
RATE_OVER_SECONDS = 30.0


class View:
    """Shows how far a backfill is.

    Args:
        quiet: show no progress, only what is said.
        clock: seconds that never go back.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        console = Console(stderr=True)
        self.run: Run | None = None
        self._clock = clock
        self._quiet = quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, facts="")
        self._line_due = clock() + LINE_EVERY_SECONDS
        self._notice = ""
        self._marks: deque[tuple[float, int]] = deque()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, run: Run) -> None:
        """Show a run that is being gathered or planned."""
        self.run = run
        if run.stage is Stage.GATHERING:
            expected = [one.walk.expected for one in run.searches]
            total = None if None in expected else sum(one or 0 for one in expected)
            searched = max((one.searched for one in run.tallies), default=0)
            self._show("searching", searched, total, f"{run.total.wanted:,} to enrich")
        elif run.stage is Stage.PLANNING:
            self._show("planning", run.planned_pages, run.pages, "")

    def watch(self, progress: Watched) -> None:
        """Show how far the workers are."""
        now = self._clock()
        self._marks.append((now, progress.done))
        while now - self._marks[0][0] > RATE_OVER_SECONDS:
            self._marks.popleft()
        facts = f"found {progress.found:,}  empty {progress.empty:,}  spent {progress.calls:,}"
        (then, before), left = self._marks[0], progress.total - progress.done
        if now > then and progress.done > before:
            rate = (progress.done - before) / (now - then)
            facts += f"  {rate:.3g}/s"
            if left:
                facts += f"  {duration(left / rate)} left"
        self._show("enriching", progress.done, progress.total, facts)

    def notice(self, words: str) -> None:
        """Say something that stands in the way, once until it changes."""
        if words != self._notice:
            self._notice = words
            if words and not self._quiet:
                self._bar.console.print(words, style="yellow", markup=False, soft_wrap=True)

    def _show(self, what: str, done: int, total: int | None, facts: str) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total, facts=facts)
        if self._bar.disable and not self._quiet and self._clock() >= self._line_due:
            self._line_due = self._clock() + LINE_EVERY_SECONDS
            of_all = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            click.echo(f"{what} {of_all}  {facts}".rstrip(), err=True)


def hindrance(*, halt: Halt | None, workers: Sequence[object], progress: Watched, stuck: bool) -> str:
    """What keeps a backfill from going on, in words; "" where nothing does.

    Args:
        halt: why no call leaves, or None.
        workers: those alive.
        progress: how far it is.
        stuck: whether nothing has ended for a while.
    """
    if halt is not None:
        return f"All calls are halted: {halt.reason}. It goes on after `close-enrich resume`."
    if not workers:
        return "No worker is running; it goes on as soon as one does: close-enrich worker"
    return "" if not stuck or not progress.waits else f"Nothing ends at present: {progress.waits}."


def ended_lines(run: Run) -> list[str]:
    """How a backfill has ended, a sentence each."""
    outcomes = ", ".join(f"{count:,} {state}" for state, count in sorted(run.outcomes.items()))
    lines = [
        f"Backfill {run.id} has ended: {outcomes or 'nothing to enrich'}.",
        f"Spent {run.calls:,} of at most {run.total.wanted:,} {noun(run.total.wanted, 'credit')}.",
    ]
    if run.elsewhere:
        lines.append(f"{run.elsewhere:,} had been planned elsewhere before it came to them.")
    attention = sum(run.outcomes.get(one.value, 0) for one in NEEDS_A_PERSON)
    if attention:
        lines.append(f"{attention:,} need a person: close-enrich dead list")
    return lines
