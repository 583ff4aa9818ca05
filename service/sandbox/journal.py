"""The event log: what happened to the organization's records, newest last, consolidated as Close does it.

Sources: https://developer.close.com/api/resources/events; changes to one object within a few seconds become
one event (Close's post "Event Log at Close", 2022): its `date_updated` moves, its `id` and `date_created`
stay.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.sandbox.ids import event_time, new_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

Event = dict[str, Any]
"""An event as the API and the deliveries show it. Replaced when consolidated, never changed in place."""

HISTORY_SECONDS = 30 * 86400.0
"""How far back Close's event log reaches."""

CONSOLIDATED_ACTIONS = frozenset({"updated", "deleted"})
"""Actions whose events are delivered after the consolidation delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Who made a change and by which call.

    Attributes:
        user_id: the acting user.
        api_key_id: the key used; None for a person in the app.
        request_id: groups the events of one call.
        path: the call's path.
        method: the call's method.
        merged: source and destination lead of a merge, or None.
    """

    user_id: str
    api_key_id: str | None
    request_id: str
    path: str
    method: str
    merged: tuple[str, str] | None = None

    @property
    def meta(self) -> dict[str, str]:
        """The `meta` of the events it causes."""
        meta = {"request_path": self.path, "request_method": self.method}
        if self.merged is not None:
            meta["merge_source_lead_id"], meta["merge_destination_lead_id"] = self.merged
        return meta


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and its place in the log; a consolidated event moves to the end."""

    sequence: int
    event: Event


class Journal:
    """All events still kept."""

    def __init__(self, *, organization_id: str, random: Random) -> None:
        self._organization_id = organization_id
        self._random = random
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._open: OrderedDict[tuple[str, ...], tuple[float, str]] = OrderedDict()
        self._sequence = 0

    def __len__(self) -> int:
        """How many events are kept."""
        return len(self._entries)

    def newest_first(self) -> Iterator[Entry]:
        """The entries by `date_updated`, newest first."""
        return reversed(self._entries.values())

    def get(self, event_id: str) -> Event | None:
        """An event as it is now, or None."""
        entry = self._entries.get(event_id)
        return None if entry is None else entry.event

    def append(  # all but self are keyword-only
        self,
        *,
        object_type: str,
        action: str,
        object_id: str,
        lead_id: str | None,
        data: dict[str, Any] | None,
        previous: dict[str, Any],
        changed: tuple[str, ...],
        cause: Cause,
        now: float,
        consolidation_seconds: float,
        retained: int,
    ) -> Event | None:
        """Write an event down; None if it became part of an earlier one.

        Args:
            object_type: of the record.
            action: what happened to it.
            object_id: its id.
            lead_id: its lead.
            data: the record afterwards; the journal keeps it, so it must never change again.
            previous: what the changed attributes were before.
            changed: names of the changed attributes.
            cause: who did it and how.
            now: Unix seconds.
            consolidation_seconds: real seconds within which `updated` events of one cause become one.
            retained: the most events to keep.
        """
        self._forget_closed(now)
        moment = event_time(now)
        key = (
            object_type,
            object_id,
            action,
            cause.user_id,
            cause.api_key_id or "",
            cause.path,
            cause.method,
        )
        earlier = self._open.get(key)
        if earlier is not None and (entry := self._entries.pop(earlier[1], None)) is not None:
            event = {
                **entry.event,
                "date_updated": moment,
                "request_id": cause.request_id,
                "changed_fields": list(dict.fromkeys([*entry.event["changed_fields"], *changed])),
                "data": data,
                # The oldest value of an attribute is what the one event replaced. One without a value before
                # has none here, though a later change within the window saw the value in between.
                "previous_data": {
                    **{k: v for k, v in previous.items() if k not in entry.event["changed_fields"]},
                    **entry.event["previous_data"],
                },
            }
            self._keep(event, retained=retained, now=now)
            return None
        event = {
            "id": new_id("ev", self._random),
            "date_created": moment,
            "date_updated": moment,
            "organization_id": self._organization_id,
            "user_id": cause.user_id,
            "request_id": cause.request_id,
            "api_key_id": cause.api_key_id,
            "oauth_client_id": None,
            "oauth_scope": None,
            "object_type": object_type,
            "object_id": object_id,
            "lead_id": lead_id,
            "action": action,
            "changed_fields": list(changed),
            "meta": cause.meta,
            "data": data,
            "previous_data": previous,
        }
        self._keep(event, retained=retained, now=now)
        if action == "updated" and consolidation_seconds > 0:
            self._open[key] = (now + consolidation_seconds, event["id"])
        return event

    def _keep(self, event: Event, *, retained: int, now: float) -> None:
        self._sequence += 1
        self._entries[event["id"]] = Entry(self._sequence, event)
        oldest_kept = event_time(now - HISTORY_SECONDS)
        while len(self._entries) > retained or self._oldest_moment() < oldest_kept:
            self._entries.popitem(last=False)

    def _oldest_moment(self) -> str:
        oldest: str = next(iter(self._entries.values())).event["date_updated"]
        return oldest

    def _forget_closed(self, now: float) -> None:
        # In order of opening, which is the order of closing too: the window's length is the same for all.
        while self._open and next(iter(self._open.values()))[0] <= now:
            self._open.popitem(last=False)
