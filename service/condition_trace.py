"""What a condition saw of a record, and which of its parts held. Pure; for people who ask why.

A condition's reason never holds a record's value, as reasons are stored and logged. A trace does, as
somebody asked to see it: it belongs on a screen and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service import cel_text
from service.condition import Condition, compile_condition
from service.problem import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_LOOSER_THAN_AND = frozenset("|?")
"""The first characters of the operators that bind less than `&&`: `||` and `?:`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenValue:
    """One field that a condition names.

    Attributes:
        name: as conditions write it: `lead.url`, `lead.custom["Industry"]`, `event.action`.
        present: it has a value; without one it reads as empty text.
        value: as Close gives it; None where it is absent or not known. No repr shows it.
        known: False for a custom field of which nobody can tell which one is meant.
    """

    name: str
    present: bool
    value: Any = field(default=None, repr=False)
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPart:
    """One of the parts that `&&` joins; `met` is None where a field that it needs is not known."""

    source: str
    met: bool | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionTrace:
    """A condition judged on a record.

    Attributes:
        source: the expression as written.
        met: whether the record meets it; None where that cannot be told.
        reason: why not, in words.
        values: every field that it names.
        parts: what `&&` joins, in order; a single one where nothing is joined.
    """

    source: str
    met: bool | None
    reason: str
    values: tuple[SeenValue, ...] = ()
    parts: tuple[TracedPart, ...] = ()


def trace_condition(
    condition: Condition,
    *,
    record: Mapping[str, Any],
    event: Mapping[str, Any],
    organization: Mapping[str, Any],
    known_ids: frozenset[str] | None = None,
) -> ConditionTrace:
    """Judge a condition and each of its parts, and say what they saw.

    Args:
        condition: checked already.
        record: what `service.evidence.record_view` made of the lead or contact.
        event: what `service.evidence.event_view` made of the event.
        organization: `{"id": …}`.
        known_ids: the ids of the custom fields that can be told apart, where Close's fields are not known;
            None where they are. What names another one is not judged, but a part that does not hold decides
            without it.
    """
    judge = _Judge(record=record, event=event, organization=organization, known_ids=known_ids)
    parts = tuple(judge.part(one) for one in _parts(condition))
    whole = judge.part(condition)
    if whole.met is None:
        # what does not hold makes the whole false, whatever the others are
        whole = next((part for part in parts if part.met is False), whole)
    return ConditionTrace(
        source=condition.source,
        met=whole.met,
        reason=whole.reason,
        values=tuple(judge.values(condition)),
        parts=parts,
    )


def conjuncts(source: str) -> tuple[str, ...]:
    """What `&&` joins at the top of a valid expression, in order; the whole where nothing is joined."""
    words = cel_text.tokens(source)
    starts, ends = [0], []
    depth = 0
    for index, word in enumerate(words):
        depth += (word.text in _OPENING) - (word.text in _CLOSING)
        if depth or word.kind is not None:
            continue
        if word.text in _LOOSER_THAN_AND:
            return (source.strip(),)
        if word.text == "&" and words[index - 1].text != "&":
            ends.append(index)
            starts.append(index + 2)
    ends.append(len(words))
    return tuple(
        source[words[start].start : words[end - 1].start + len(words[end - 1].text)]
        for start, end in zip(starts, ends, strict=True)
    )


def _parts(condition: Condition) -> tuple[Condition, ...]:
    sources = conjuncts(condition.source)
    if len(sources) == 1:
        return (condition,)
    compiled = [compile_condition(one, object_type=condition.object_type) for one in sources]
    # one that is never true or false by itself leaves the whole to speak for all
    found = tuple(one for one in compiled if isinstance(one, Condition))
    return found if len(found) == len(compiled) else (condition,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    record: Mapping[str, Any] = field(repr=False)
    event: Mapping[str, Any]
    organization: Mapping[str, Any]
    known_ids: frozenset[str] | None

    def part(self, condition: Condition) -> TracedPart:
        unsure = [name for name in condition.custom_fields if not self._knows(name)]
        if condition.reads_whole_record and self.known_ids is not None:
            unsure.append(condition.object_type.value)
        if unsure:
            names = ", ".join(map(shown, unsure))
            reason = f"it takes Close's custom fields to know what is meant by {names}"
            return TracedPart(source=condition.source, met=None, reason=reason)
        verdict = condition.judge(record=self.record, event=self.event, organization=self.organization)
        return TracedPart(source=condition.source, met=verdict.met, reason=verdict.reason)

    def values(self, condition: Condition) -> Iterator[SeenValue]:
        own = condition.object_type.value
        for name in condition.attributes:
            yield _value(f"{own}.{name}", self.record.get(name))
        custom = self.record.get("custom", {})
        for name in condition.custom_fields:
            yield _value(f'{own}.custom["{name}"]', custom.get(name), known=self._knows(name))
        for root, view in (("event", self.event), ("organization", self.organization)):
            for name in _named(condition.source, root):
                yield _value(f"{root}.{name}", view.get(name))

    def _knows(self, name: str) -> bool:
        return self.known_ids is None or name in self.known_ids


def _value(name: str, value: Any, *, known: bool = True) -> SeenValue:
    present = known and value is not None and value not in ("", [])
    return SeenValue(name=name, present=present, value=value if present else None, known=known)


def _named(source: str, root: str) -> tuple[str, ...]:
    """The fields of a variable that an expression names, each once."""
    words = cel_text.tokens(source)
    paths = [
        cel_text.path_after(words, index)[0]
        for index, word in enumerate(words)
        if word.text == root and cel_text.is_root(words, index)
    ]
    return tuple(dict.fromkeys(path[0].text.strip("'\"") for path in paths if path))
