"""What pages, forms and calls about what waits for a person are asked."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec

from service.dashboard.activity import CURSOR_PATTERN
from service.dead_letter_filter import Place, Wanted
from service.durations import DURATION_PATTERN, parse_duration
from service.enrichment import State

MOST_LETTERS = 5000
"""Dead letters that one request retries or drops at most."""

MOST_RELEASED = 1000
"""Held enrichments that one request lets go at most; each is a step of its own."""

_Text = Annotated[str, msgspec.Meta(max_length=200)]
_Duration = Annotated[
    str, msgspec.Meta(pattern=DURATION_PATTERN, max_length=20, description="a time such as 12h or 3d")
]
_EntryId = Annotated[str, msgspec.Meta(pattern="^[a-z2-7]{1,40}$", description="the id of an enrichment")]
_FieldId = Annotated[
    str, msgspec.Meta(pattern="^[A-Za-z0-9_]{1,100}$", description="Close's id of a custom field")
]
_Moment = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
_BodyId = Annotated[str, msgspec.Meta(pattern=CURSOR_PATTERN, description="the id of a quarantined delivery")]
_Place = Annotated[
    str, msgspec.Meta(pattern="^[0-9]{1,15}-[a-z2-7]{1,40}$", description="the `next` of a page")
]
_BodyIds = Annotated[
    str,
    msgspec.Meta(
        pattern="^[0-9]{1,15}-[0-9]{1,15}(,[0-9]{1,15}-[0-9]{1,15}){0,99}$",
        max_length=4000,
        description="ids of at most 100 quarantined deliveries with commas between them",
    ),
]
_Back = Annotated[
    str,
    msgspec.Meta(pattern="^/(attention|records/[A-Za-z0-9_-]{1,100})$", description="a page to come back to"),
]
_Most = Annotated[int, msgspec.Meta(ge=1, le=MOST_LETTERS)]
_Released = Annotated[int, msgspec.Meta(ge=1, le=MOST_RELEASED)]


class LettersWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; what is left out does not matter.

    Attributes:
        rule: of this rule.
        reason: with this text in the reason.
        state: that ended so.
        object_id: of this lead or contact.
        older: that ended at least so long ago: `12h`, `3d`.
        newer: that ended at most so long ago.
    """

    rule: _Text | None = None
    reason: _Text | None = None
    state: Literal["dead", "held", "rejected"] | None = None
    object_id: _Text | None = msgspec.field(default=None, name="object")
    older: _Duration | None = None
    newer: _Duration | None = None

    @property
    def wanted(self) -> Wanted:
        """The same for `service.dead_letters`."""
        return Wanted(
            rule=self.rule,
            reason=self.reason,
            state=None if self.state is None else State(self.state),
            object_id=None if self.object_id is None else self.object_id.strip(),
            older_seconds=_seconds(self.older),
            newer_seconds=_seconds(self.newer),
        )

    @property
    def named(self) -> dict[str, str]:
        """What is given, by the names of a query."""
        given = {
            "rule": self.rule,
            "reason": self.reason,
            "state": self.state,
            "object": self.object_id,
            "older": self.older,
            "newer": self.newer,
        }
        return {name: value for name, value in given.items() if value}

    def query(self, **more: str) -> str:
        """The same as a query."""
        return urlencode({**self.named, **more})


class LettersAsked(LettersWanted, frozen=True, kw_only=True):
    """A page of dead letters.

    Attributes:
        after: where the page before has ended: its `next`.
        limit: at most so many.
    """

    after: _Place | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 25

    @property
    def place(self) -> Place | None:
        """Where the page begins."""
        return None if self.after is None else Place.read(self.after)


class AttentionAsked(LettersAsked, frozen=True, kw_only=True):
    """The whole page.

    Attributes:
        bodies: where the page of quarantined deliveries before has ended.
    """

    bodies: _BodyId | None = None


class LettersMeant(LettersWanted, frozen=True, kw_only=True):
    """What a form about dead letters is for: one, or all that the filters mean.

    Attributes:
        id: this one.
        back: where to go then.
    """

    id: _EntryId | None = None
    back: _Back = "/attention"

    @property
    def ids(self) -> list[str] | None:
        """Those that are named, if any are."""
        return None if self.id is None else [self.id]


class LettersAgreed(LettersMeant, frozen=True, kw_only=True):
    """What somebody has said yes to.

    Attributes:
        most: at most so many, the newest first: as many as were shown.
        until_ms: the moment that ages were counted from; what ended later is left out.
    """

    most: _Most
    until_ms: _Moment


class LettersAct(LettersWanted, frozen=True, kw_only=True):
    """Dead letters to retry or drop: `ids`, or filters, or `everything`.

    Attributes:
        ids: these.
        everything: all of them.
        most: at most so many, the newest first.
        until_ms: what ended later is left out; null for now.
    """

    ids: Annotated[list[_EntryId], msgspec.Meta(min_length=1, max_length=500)] | None = None
    everything: bool = False
    most: _Most = MOST_LETTERS
    until_ms: _Moment | None = None

    @property
    def clear(self) -> bool:
        """Whether it says one thing."""
        return (self.ids is not None) + bool(self.named) + self.everything == 1


class HeldMeant(msgspec.Struct, frozen=True, kw_only=True):
    """What of the burst guard is to go.

    Attributes:
        rule: only what this rule has planned.
    """

    rule: _Text | None = None


class HeldAgreed(HeldMeant, frozen=True, kw_only=True):
    """What somebody has said yes to, or a script wants.

    Attributes:
        limit: at most so many, the oldest first.
    """

    limit: _Released = MOST_RELEASED


class FieldMeant(msgspec.Struct, frozen=True, kw_only=True):
    """A field that is left alone.

    Attributes:
        field_id: Close's id of it.
    """

    field_id: _FieldId


class BodiesMeant(msgspec.Struct, frozen=True, kw_only=True):
    """Quarantined deliveries, in a query or a form.

    Attributes:
        ids: with commas between them.
    """

    ids: _BodyIds

    @property
    def all(self) -> list[str]:
        """Each id once."""
        return list(dict.fromkeys(self.ids.strip().split(",")))


class BodiesAct(msgspec.Struct, frozen=True, kw_only=True):
    """Quarantined deliveries.

    Attributes:
        ids: theirs.
    """

    ids: Annotated[list[_BodyId], msgspec.Meta(min_length=1, max_length=100)]


class BodyAsked(msgspec.Struct, frozen=True, kw_only=True):
    """One quarantined delivery.

    Attributes:
        quarantine_id: its id.
    """

    quarantine_id: _BodyId


class QuarantineAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A page of quarantined deliveries.

    Attributes:
        before: where the page before has ended: its `next`.
    """

    before: _BodyId | None = None


class HaltAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Why calls are halted.

    Attributes:
        reason: in words, which everybody sees.
    """

    reason: _Text | None = None


def _seconds(written: str | None) -> float | None:
    """A duration; a pattern's `$` lets a line break pass, which means nothing."""
    return None if written is None else parse_duration(written.strip())
