"""Reading leads and contacts: one fresh read serves all enrichments of a record that need it just now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.rules import ObjectType
    from workers.close_api import CloseApi
    from workers.reply import Failure, Reply

FRESH_SECONDS = 3.0
"""How long one read is shared: nobody typed much since, and a record's few rules had time to ask."""

READ_TIMEOUT_SECONDS = 30.0
MOST_NAMED_FIELDS = 60
"""Above this many fields the whole record is read: an address line has its limits."""


@dataclass(frozen=True, slots=True)
class _Read:
    fields: frozenset[str] | None
    at_seconds: float
    reply: asyncio.Task[Reply | Failure]


class RecordReader:
    """Shares reads within one process: requests that come soon after each other get one reply."""

    def __init__(self, api: CloseApi, *, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._reads: dict[tuple[ObjectType, str], _Read] = {}

    async def read(
        self, *, object_type: ObjectType, object_id: str, fields: frozenset[str] | None, fresh: bool = False
    ) -> Reply | Failure:
        """Read a record.

        Args:
            object_type: lead or contact.
            object_id: its id.
            fields: attributes and `custom.<id>`s that must be in it; None for all.
            fresh: do not take a read that was started before now.
        """
        if fields is not None and len(fields) > MOST_NAMED_FIELDS:
            fields = None
        key = (object_type, object_id)
        now = self._clock()
        known = self._reads.get(key)
        if (
            known is None
            or fresh
            or now - known.at_seconds > FRESH_SECONDS
            or not _covers(known.fields, fields)
            or known.reply.cancelled()
        ):
            self._forget_old(now)
            task = asyncio.create_task(
                self._api.get_record(
                    object_type=object_type,
                    object_id=object_id,
                    fields=None if fields is None else sorted(fields),
                    timeout_seconds=READ_TIMEOUT_SECONDS,
                )
            )
            known = self._reads[key] = _Read(fields, now, task)
        # shielded: one of several who wait may be cancelled, the others still want the reply
        return await asyncio.shield(known.reply)

    def _forget_old(self, now: float) -> None:
        # the dict is in order of insertion, so the oldest reads come first
        for key in list(self._reads):
            if now - self._reads[key].at_seconds <= FRESH_SECONDS:
                break
            if self._reads[key].reply.done():
                del self._reads[key]


def _covers(have: frozenset[str] | None, want: frozenset[str] | None) -> bool:
    return have is None or (want is not None and want <= have)
