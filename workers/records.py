"""Reading leads and contacts: one fresh read serves all enrichments of a record that need it just now."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from workers.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.rules import ObjectType
    from workers.close_api import CloseApi
    from workers.reply import Failure

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
            or not _usable(known.reply)
        ):
            self._forget_old(now)
            # taken out first, for the dict is to stay in the order of the reads
            self._reads.pop(key, None)
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
        old = itertools.takewhile(lambda item: now - item[1].at_seconds > FRESH_SECONDS, self._reads.items())
        for key, read in tuple(old):
            if read.reply.done():
                del self._reads[key]


def _covers(have: frozenset[str] | None, want: frozenset[str] | None) -> bool:
    return have is None or (want is not None and want <= have)


def _usable(reply: asyncio.Task[Reply | Failure]) -> bool:
    """Whether others may have the reply as well; one who comes back after a refusal wants to know anew."""
    if not reply.done():
        return True
    if reply.cancelled() or reply.exception() is not None:
        return False
    result = reply.result()
    return isinstance(result, Reply) and result.status == HTTPStatus.OK
