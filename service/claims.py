"""What accept.lua reads about an event, and how it answers. Pure.

What enrichments of one rule have in common, their kind, crosses the wire once for all events of a round trip:
an event's items name it by a number.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from service.enrichment import ENTRY_VERSION, new_job_ids
from service.rules import Action, Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.event import Event
    from service.planning import PlannedEnrichment
    from service.rules import Burst, Target

MOST_KINDS = 10_000
"""Rules come and go: so many are remembered before it begins anew."""

RESULTS = {"p": "planned", "r": "reopened", "a": "again", "h": "held", "d": "duplicate"}
"""What accept.lua answers about an enrichment."""

REFUSED = "!"
"""What its answer about an event begins with that could not be written; the reason follows."""

Kind: TypeAlias = tuple[str, str, str, str, str, int, bool, bool]
"""Rule, object type, field, its name, mode, milliseconds of delay, whether it is bulk, and goes first."""


class Claim(msgspec.Struct, frozen=True):
    """An event on its way to accept.lua.

    Attributes:
        message: as the script reads it.
        kinds: those that it names, by their numbers.
        items: how many enrichments it has.
    """

    message: bytes
    kinds: dict[int, Kind]
    items: int


class Claims:
    """Makes claims, and numbers kinds for one process."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[Target, bool], tuple[int, Kind]] = {}
        self._numbers = itertools.count(1)

    def claim(
        self,
        event: Event,
        enrichments: Sequence[PlannedEnrichment],
        ids: Sequence[str],
        *,
        bulk: bool,
        burst: Burst | None,
        trace: str,
        saves: bool = True,
    ) -> Claim:
        """What the script is to do about an event.

        Args:
            event: what planned the enrichments.
            enrichments: at least one.
            ids: their entries' ids.
            bulk: put them all behind live work, whatever their rules say.
            burst: the burst guard, or None for none.
            trace: what their executions are part of; "" for nothing.
            saves: whether what is there already counts as saved.
        """
        kinds: dict[int, Kind] = {}
        items = []
        for one, job_id, item in zip(ids, new_job_ids(ids, version=ENTRY_VERSION), enrichments, strict=True):
            number, kinds[number] = self._numbered(item.target, bulk=bulk)
            items.append((number, one, job_id, item.object_id, item.lead_id or "", item.judged, item.reopens))
        most, within_ms = (-1, 0) if burst is None else (burst.most, round(burst.within_seconds * 1000))
        message = msgspec.msgpack.encode(
            (
                event.id,
                event.action,
                event.organization_id,
                event.date_updated,
                # nobody can have called for a record before it was there
                event.date_created if event.action == Action.CREATED else "",
                most,
                within_ms,
                trace,
                saves,
                items,
            )
        )
        return Claim(message, kinds, len(items))

    def _numbered(self, target: Target, *, bulk: bool) -> tuple[int, Kind]:
        """A kind, and the number by which this process calls it; none is given twice."""
        known = self._kinds.get((target, bulk))
        if known is None:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            known = self._kinds[target, bulk] = next(self._numbers), _kind(target, bulk=bulk)
        return known


def _kind(target: Target, *, bulk: bool) -> Kind:
    return (
        target.rule,
        target.object_type,
        target.field_id,
        target.field_name,
        target.mode,
        round(target.settle_seconds * 1000),
        bulk or target.priority is Priority.LOW,
        target.priority is Priority.HIGH,
    )
