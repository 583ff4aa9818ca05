"""Ratios as they were recorded, and whether one has become much worse since. Pure, but for reading the file.

Only ratios of figures from one run on one machine are recorded, so that another machine can be compared.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORDED = Path(__file__).parent / "recorded.json"
LEAST_OF_RECORDED = 2 / 3
"""Where more is better: fallen by more than a third is too little."""

MOST_OF_RECORDED = 3 / 2
"""Where less is better: risen by more than half is too much."""


class Better(StrEnum):
    """Which way a ratio improves."""

    MORE = "more"
    LESS = "less"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One ratio of a run; `suite` and `name` together tell it from all others."""

    suite: str
    name: str
    value: float
    better: Better

    @property
    def key(self) -> str:
        """What it is recorded as."""
        return f"{self.suite}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A ratio beside what was recorded; None for what is not there.

    Attributes:
        suite: where it belongs; None for a recorded ratio that no suite has measured.
        key: see `Ratio`.
        recorded: the value in the file.
        now: the value of this run.
        problem: what is wrong, or "".
    """

    suite: str | None
    key: str
    recorded: float | None
    now: float | None
    problem: str = ""


def compare(recorded: Mapping[str, float], now: Sequence[Ratio]) -> list[Verdict]:
    """Each ratio's verdict, in the run's order, and those that are only recorded at the end.

    A ratio that was never recorded is no problem. One that is recorded and was not measured is: otherwise a
    suite that measures nothing would pass.

    Args:
        recorded: values by `Ratio.key`.
        now: what this run has measured.
    """
    verdicts = [
        Verdict(
            suite=one.suite,
            key=one.key,
            recorded=recorded.get(one.key),
            now=one.value,
            problem=_problem(one, recorded.get(one.key)),
        )
        for one in now
    ]
    measured = {one.key for one in now}
    return verdicts + [
        Verdict(suite=None, key=key, recorded=value, now=None, problem="recorded, but not measured")
        for key, value in recorded.items()
        if key not in measured
    ]


def _problem(ratio: Ratio, recorded: float | None) -> str:
    if not math.isfinite(ratio.value):
        return "not a number"
    if recorded is None:
        return ""
    if ratio.better is Better.MORE and ratio.value < recorded * LEAST_OF_RECORDED:
        return f"fallen by {1 - ratio.value / recorded:.0%}; expected a third at most"
    if ratio.better is Better.LESS and ratio.value > recorded * MOST_OF_RECORDED:
        return f"risen by {ratio.value / recorded - 1:.0%}; expected half at most"
    return ""


def medians(runs: Sequence[Sequence[Ratio]]) -> list[Ratio]:
    """Each ratio's median of several runs of the same suites, in the order of the first."""
    return [
        replace(ratios[0], value=round(median(one.value for one in ratios), 3))
        for ratios in zip(*runs, strict=True)
    ]


def better_of(first: Sequence[Ratio], second: Sequence[Ratio]) -> list[Ratio]:
    """Of two runs the better value of each ratio: what else a machine does makes figures worse."""
    again = {one.key: one for one in second}
    return [_better(one, again.get(one.key, one)) for one in first]


def _better(one: Ratio, other: Ratio) -> Ratio:
    more = other.value > one.value
    return other if more is (one.better is Better.MORE) else one


def dump(ratios: Sequence[Ratio], *, when: str, machine: str) -> str:
    """The text of a file of records.

    Args:
        ratios: to be recorded.
        when: the day, as ISO 8601.
        machine: what they were measured on, for people.
    """
    values = {one.key: one.value for one in ratios}
    return json.dumps({"recorded": when, "machine": machine, "ratios": values}, indent=2) + "\n"


def load(text: str) -> dict[str, float]:
    """The values of a file of records, by `Ratio.key`.

    Raises:
        ValueError: it is none; the message says what is wrong.
    """
    try:
        told: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    ratios = told.get("ratios") if isinstance(told, dict) else None
    if not isinstance(ratios, dict):
        raise ValueError("expected an object with `ratios`, values by name")  # noqa: TRY004  it is the text that is wrong
    wrong = [key for key, value in ratios.items() if not _is_positive(value)]
    if wrong:
        raise ValueError(f"expected a number above 0 for {', '.join(map(repr, wrong))}")
    return {key: float(value) for key, value in ratios.items()}


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
