"""Charts as SVG. Pure: numbers in, markup out; words are escaped, colours are classes of `static/app.css`.

The drawings stretch to any width, so they hold no text but titles, which browsers show when pointed at and
screen readers read. Labels stand beside them as HTML.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from service.enrichment import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 600, 160
_GAP_SHARE = 0.18
_STEPS = (1, 2, 2.5, 5, 10)
_GRID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Outcomes that mean the same to whoever looks from afar.

    Attributes:
        name: of its colour, the class `k-<name>`.
        words: what people read.
        states: which outcomes it puts together.
    """

    name: str
    words: str
    states: tuple[State, ...]


KINDS = (
    Kind(name="filled", words="Filled", states=(State.FILLED, State.CONFIRMED)),
    Kind(name="previewed", words="Previewed", states=(State.PREVIEWED,)),
    Kind(name="empty", words="Nothing found", states=(State.EMPTY,)),
    Kind(name="spared", words="Not needed", states=(State.KEPT, State.SKIPPED, State.GONE)),
    Kind(name="failed", words="Needs a person", states=(State.REJECTED, State.HELD, State.DEAD)),
)
"""All outcomes, in the order in which they are stacked."""


def kinds_of(outcomes: Mapping[str, int]) -> dict[str, int]:
    """How many of each kind."""
    return {kind.name: sum(outcomes.get(state, 0) for state in kind.states) for kind in KINDS}


def legend(outcomes: Mapping[str, int]) -> list[tuple[Kind, int, float]]:
    """The kinds that occur with their count and share; the first three always."""
    counts = kinds_of(outcomes)
    total = sum(counts.values())
    always = {"filled", "empty", "spared"}
    return [
        (kind, counts[kind.name], counts[kind.name] / total if total else 0.0)
        for kind in KINDS
        if counts[kind.name] or kind.name in always
    ]


def ceiling(value: float) -> float:
    """A round number that is at least so large, for the top of a scale; 1 for nothing."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value * (1 - 1e-9))


def columns(times: Sequence[int], outcomes: Sequence[Mapping[str, int]], *, title: str) -> str:
    """Stacked columns of outcomes.

    Args:
        times: when each column begins, Unix seconds.
        outcomes: by state, one mapping a column.
        title: what the chart shows, with its most important numbers, for those who do not see it.
    """
    counts = [kinds_of(one) for one in outcomes]
    top = ceiling(max((sum(one.values()) for one in counts), default=0))
    width = WIDTH / max(1, len(counts))
    parts = []
    for at, (start, column) in enumerate(zip(times, counts, strict=True)):
        x = at * width
        bars = []
        below = list(accumulate(column.values(), initial=0))
        for kind, (low, high) in zip(KINDS, pairwise(below), strict=True):
            if high > low:
                y, height = HEIGHT * (1 - high / top), HEIGHT * (high - low) / top
                bars.append(
                    f'<rect class="k-{kind.name}" x="{x + width * _GAP_SHARE / 2:.2f}" y="{y:.2f}" '
                    f'width="{width * (1 - _GAP_SHARE):.2f}" height="{height:.2f}"/>'
                )
        words = ", ".join(f"{column[kind.name]} {kind.words.lower()}" for kind in KINDS if column[kind.name])
        parts.append(
            f'<g class="slot"><title>{_clock(start)}: {escape(words or "nothing")}</title>'
            f'<rect class="hit" x="{x:.2f}" y="0" width="{width:.2f}" height="{HEIGHT}"/>{"".join(bars)}</g>'
        )
    return _drawing(title, _grid() + "".join(parts))


def lines(
    times: Sequence[int],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    *,
    title: str,
    write: Callable[[float], str],
) -> str:
    """Lines over time, with gaps where nothing was measured.

    Args:
        times: when each step begins, Unix seconds.
        series: class, words and values of each line.
        title: what the chart shows, for those who do not see it.
        write: a value for people.
    """
    top = ceiling(max((value for _, _, line in series for value in line if value is not None), default=0))
    step = WIDTH / max(1, len(times))

    def point(at: int, value: float) -> str:
        return f"{(at + 0.5) * step:.2f} {HEIGHT * (1 - value / top):.2f}"

    drawn = []
    for name, _, values in series:
        # a measurement without neighbours has no line: it is drawn as a dot
        path, lone = [], []
        for at, value in enumerate(values):
            if value is None:
                continue
            before = at > 0 and values[at - 1] is not None
            after = at + 1 < len(values) and values[at + 1] is not None
            if before:
                path.append(f"L{point(at, value)}")
            elif after:
                path.append(f"M{point(at, value)}")
            else:
                lone.append(f"M{point(at, value)}h0")
        drawn.append(f'<path class="line {name}" d="{"".join(path)}"/>')
        if lone:
            drawn.append(f'<path class="line lone {name}" d="{"".join(lone)}"/>')
    hits = []
    for at, start in enumerate(times):
        words = ", ".join(
            f"{label} {write(value)}" for _, label, line in series if (value := line[at]) is not None
        )
        hits.append(
            f'<g class="slot"><title>{_clock(start)}: {escape(words or "nothing")}</title>'
            f'<rect class="hit" x="{at * step:.2f}" y="0" width="{step:.2f}" height="{HEIGHT}"/></g>'
        )
    return _drawing(title, _grid() + "".join(drawn) + "".join(hits))


def shares(outcomes: Mapping[str, int], *, title: str) -> str:
    """One bar, divided as the outcomes are."""
    counts = kinds_of(outcomes)
    total = sum(counts.values())
    below = list(accumulate(counts.values(), initial=0))
    parts = [
        f'<rect class="k-{kind.name}" x="{WIDTH * low / total:.2f}" y="0" '
        f'width="{WIDTH * (high - low) / total:.2f}" height="20">'
        f"<title>{escape(kind.words)}: {high - low} of {total}</title></rect>"
        for kind, (low, high) in zip(KINDS, pairwise(below), strict=True)
        if high > low
    ]
    return _drawing(title, "".join(parts), height=20, kind="bar")


def gauge(value: float, most: float, *, title: str) -> str:
    """A bar filled so far; red when full, amber from four fifths on."""
    share = min(1.0, max(0.0, value / most)) if most > 0 else 1.0
    name = "full" if share >= 1 else "near" if share >= 0.8 else "fine"  # noqa: PLR2004  said above
    bar = f'<rect class="gauge-{name}" x="0" y="0" width="{WIDTH * share:.2f}" height="12"/>'
    return _drawing(title, bar, height=12, kind="gauge")


def _drawing(title: str, inside: str, *, height: int = HEIGHT, kind: str = "plot") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" role="img" '
        f"aria-label={quoteattr(title)}>{inside}</svg>"
    )


def _grid() -> str:
    return "".join(
        f'<path class="grid" d="M0 {HEIGHT * at / _GRID:.0f}H{WIDTH}"/>' for at in range(_GRID + 1)
    )


def _clock(start_seconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(start_seconds, dt.UTC):%H:%M} UTC"
