"""Faults on demand: which call goes wrong, and how. Pure but for the randomness passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from random import Random

_BEFORE = ("drop_before", "html", "redirect")
_AFTER = ("drop_after", "timeout_after_saved", "garbage", "huge")
_WITH_NUMBER = ("status", "status_after", "slow")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One way for calls to go wrong.

    Attributes:
        kind: `status:<code>`: answered so, nothing done. `status_after:<code>`: done, then answered so.
            `slow:<seconds>`: that much later than usual. `drop_before`: the connection closed, nothing done.
            `drop_after`: done (saved and charged), then closed without an answer. `timeout_after_saved`:
            done, then silence until the client gives up. `garbage`: done, then 200 with malformed JSON.
            `huge`: done, then 200 with 16 MiB. `html`: 200 with a web page, nothing done. `redirect`: 302,
            nothing done.
        group: the endpoint group it applies to, as in `POST enrich_field`; None for every call.
        field_id: only enrichments of this custom field; None for all.
        probability: share of matching calls, 0 to 1; used when `count` is None.
        count: exactly the next so many matching calls.
        retry_after_seconds: what the answer says about when to come back; a 429 without it says 1.
    """

    kind: str
    group: str | None = None
    field_id: str | None = None
    probability: float = 1.0
    count: int | None = None
    retry_after_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown kind or an impossible number."""
        name, _, number = self.kind.partition(":")
        if name in _WITH_NUMBER:
            _require_number(self.kind, name, number)
        elif self.kind not in (*_BEFORE, *_AFTER):
            kinds = [f"{kind}:<number>" for kind in _WITH_NUMBER]
            raise ValueError(
                f"kind is {self.kind!r}; expected one of {', '.join([*kinds, *_BEFORE, *_AFTER])}"
            )
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}; expected 0 to 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is {self.count}; expected at least 1")
        if self.retry_after_seconds is not None and not 0 <= self.retry_after_seconds < math.inf:
            raise ValueError(f"retry_after_seconds is {self.retry_after_seconds}; expected at least 0")

    @property
    def name(self) -> str:
        """The kind without its number."""
        return self.kind.partition(":")[0]

    @property
    def number(self) -> float:
        """The status or seconds after the colon; 0 where the kind has none."""
        return float(self.kind.partition(":")[2] or 0)

    @property
    def happens_before(self) -> bool:
        """Whether the call ends before anything is done."""
        return self.name in _BEFORE or self.name == "status"


def _require_number(kind: str, name: str, number: str) -> None:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name == "slow":
        if not 0 <= value < math.inf:
            raise ValueError(f"kind is {kind!r}; expected slow:<seconds>")
    elif value not in range(200, 600):
        raise ValueError(f"kind is {kind!r}; expected {name}:<status from 200 to 599>")


class Faults:
    """The fault rules in force, and how often the counted ones still apply."""

    def __init__(self, rules: tuple[FaultRule, ...] = ()) -> None:
        self._rules: list[tuple[FaultRule, int | None]] = []
        self.replace(rules)

    def __bool__(self) -> bool:
        """Whether any rule is left."""
        return bool(self._rules)

    def replace(self, rules: tuple[FaultRule, ...]) -> None:
        """Put these rules in place of all others; none ends all faults."""
        self._rules = [(rule, rule.count) for rule in rules]

    def add(self, *rules: FaultRule) -> None:
        """Put these rules behind those in force."""
        self._rules += [(rule, rule.count) for rule in rules]

    def pick(self, *, group: str, field_id: str | None, random: Random) -> FaultRule | None:
        """The fault of one call: that of the first rule which matches it and strikes, or None.

        Args:
            group: the call's endpoint group.
            field_id: the custom field an enrichment names; None for other calls.
            random: decides for rules with a probability.
        """
        for index, (rule, left) in enumerate(self._rules):
            if rule.group not in (None, group) or rule.field_id not in (None, field_id):
                continue
            if left is None:
                if random.random() < rule.probability:
                    return rule
                continue
            if left == 1:
                del self._rules[index]
            else:
                self._rules[index] = (rule, left - 1)
            return rule
        return None


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    """A fault rule as JSON, with every mistake refused."""

    kind: str
    group: str | None = None
    field_id: str | None = None
    probability: float = 1.0
    count: int | None = None
    retry_after_seconds: float | None = None


def parsed_faults(decoded: object) -> tuple[FaultRule, ...] | str:
    """Fault rules from decoded JSON, one object or a list of them, or a sentence saying what is wrong."""
    items = decoded if isinstance(decoded, list) else [decoded]
    try:
        wires = msgspec.convert(items, list[_Wire])
        return tuple(FaultRule(**msgspec.structs.asdict(wire)) for wire in wires)
    except (msgspec.ValidationError, ValueError) as problem:
        return str(problem)
