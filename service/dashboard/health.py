"""Whether all is well, in words. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    ATTENTION = "attention"
    STOPPED = "stopped"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        part: what of the service: `halted`, `workers`, `breaker`.
        words: what is wrong, in a sentence; of several breakers, budgets or rules, the first one's.
    """

    part: str
    words: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to "is it healthy?".

    Attributes:
        level: good; attention, when something is wrong while work goes on; stopped, when no field is filled.
        headline: in a few words.
        findings: what is wrong, the worst first.
    """

    level: Level
    headline: str
    findings: list[Finding]


_MANY = ("breaker", "budget", "rule")
_FIRST = ("halted", "workers", "redis", "rules", "rules file", "subscription", "signature key", "fields")


def health_of(
    *,
    problems: Mapping[str, str],
    degraded: Mapping[str, str],
    halted: bool,
    workers: int,
    used_up: Sequence[str],
) -> Health:
    """What the findings come to.

    Args:
        problems: why events cannot be taken, by part; see `service.readiness`.
        degraded: what else is wrong, by part.
        halted: whether no call leaves.
        workers: how many are alive.
        used_up: budgets without a credit left, in words.
    """
    found = {**degraded, **problems}
    for words in used_up:
        found[f"budget {words}"] = f"used up: {words}"
    findings = _folded(sorted(found.items(), key=_rank))
    if problems:
        return Health(level=Level.STOPPED, headline="Events cannot be taken", findings=findings)
    if halted:
        return Health(level=Level.STOPPED, headline="All calls are halted", findings=findings)
    if not workers:
        return Health(level=Level.STOPPED, headline="No worker is running", findings=findings)
    if findings:
        some = "One thing needs" if len(findings) == 1 else f"{len(findings)} things need"
        return Health(level=Level.ATTENTION, headline=f"{some} a look", findings=findings)
    return Health(level=Level.GOOD, headline="All is well", findings=[])


def _folded(found: Sequence[tuple[str, str]]) -> list[Finding]:
    """One finding a part: many fields may time out at once, and many rules lack their field."""
    parts: dict[str, list[str]] = {}
    for part, words in found:
        kind = next((one for one in _MANY if part.startswith(f"{one} ")), part)
        parts.setdefault(kind, []).append(words)
    return [
        Finding(part=part, words=_sentence(first) + (f" (and {len(more)} more)" if more else ""))
        for part, (first, *more) in parts.items()
    ]


def _rank(item: tuple[str, str]) -> tuple[int, str]:
    part = item[0]
    return (_FIRST.index(part) if part in _FIRST else len(_FIRST), part)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
