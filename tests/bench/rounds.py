"""Figures of rounds in which several receivers had the same deliveries: medians of the rounds' own ratios."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What a round took one receiver.

    Attributes:
        deliveries: how many were answered.
        seconds: from the first request to the last answer.
        web_cpu_seconds: of the receiver's process.
        redis_cpu_seconds: of its Redis; 0 where it has none.
    """

    deliveries: int
    seconds: float
    web_cpu_seconds: float
    redis_cpu_seconds: float

    @property
    def cpu_seconds(self) -> float:
        """Of both."""
        return self.web_cpu_seconds + self.redis_cpu_seconds


def in_turns(names: Sequence[str], number: int) -> Iterator[str]:
    """Each name once; each round begins with another one.

    Args:
        names: at least one.
        number: of the round.
    """
    first = number % len(names)
    yield from names[first:]
    yield from names[:first]


def median_ratio(these: Sequence[Took], those: Sequence[Took], of: Callable[[Took], float]) -> float:
    """The median of the rounds' ratios of what a delivery took."""
    ratios = (
        (of(this) / this.deliveries) / (of(that) / that.deliveries)
        for this, that in zip(these, those, strict=True)
    )
    return round(median(ratios), 3)


def each_ms(rounds: Sequence[Took], of: Callable[[Took], float]) -> float:
    """The median of what a delivery took, in milliseconds."""
    return round(1000 * median(of(took) / took.deliveries for took in rounds), 4)


def per_second(rounds: Sequence[Took]) -> int:
    """The median of the deliveries answered a second."""
    return round(median(took.deliveries / took.seconds for took in rounds))
