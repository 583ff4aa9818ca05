"""Reading leads and contacts: one fresh read serves all enrichments of a record that need it just now."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from workers.ratelimit_header import parse_rate_limit
from workers.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.rules import ObjectType
    from workers.close_api import CloseApi
    from workers.reply import Failure
    from workers.throttle import Throttle

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

    def __init__(self, api: CloseApi, *, pace: Throttle | None, clock: Callable[[], float]) -> None:
        self._api = api
        self._pace = pace
        self._clock = clock
        self._reads: dict[tuple[ObjectType, str], _Read] = {}

    async def read(
        self,
        *,
        object_type: ObjectType,
        object_id: str,
        fields: frozenset[str] | None,
        most_age_seconds: float = FRESH_SECONDS,
        bulk: bool = False,
    ) -> Reply | Failure:
        """Read a record.

        Args:
            object_type: lead or contact.
            object_id: its id.
            fields: attributes and `custom.<id>`s that must be in it; None for all.
            most_age_seconds: do not take a read that was started longer ago; at most `FRESH_SECONDS`.
            bulk: let the reads of live work go first.
        """
        if fields is not None and len(fields) > MOST_NAMED_FIELDS:
            fields = None
        key = (object_type, object_id)
        now = self._clock()
        known = self._reads.get(key)
        if (
            known is None
            or now - known.at_seconds > min(most_age_seconds, FRESH_SECONDS)
            or not _covers(known.fields, fields)
            or not _usable(known.reply)
        ):
            self._forget_old(now)
            # taken out first, for the dict is to stay in the order of the reads
            self._reads.pop(key, None)
            call = partial(
                self._api.get_record,
                object_type=object_type,
                object_id=object_id,
                fields=None if fields is None else sorted(fields),
                timeout_seconds=READ_TIMEOUT_SECONDS,
            )
            task = asyncio.create_task(self._in_turn(call, bulk=bulk))
            known = self._reads[key] = _Read(fields, now, task)
        # shielded: one of several who wait may be cancelled, the others still want the reply
        return await asyncio.shield(known.reply)

    async def read_log(self, *, object_type: ObjectType, object_id: str, since: str) -> Reply | Failure:
        """The newest events of a record in Close's event log.

        Args:
            object_type: lead or contact.
            object_id: its id.
            since: the earliest `date_updated`, as Close writes it.
        """
        call = partial(
            self._api.get_events,
            object_type=object_type,
            object_id=object_id,
            updated_since=since,
            timeout_seconds=READ_TIMEOUT_SECONDS,
        )
        return await self._in_turn(call)

    async def _in_turn(
        self, call: Callable[[], Awaitable[Reply | Failure]], *, bulk: bool = False
    ) -> Reply | Failure:
        if self._pace is None:
            return await call()
        turn = await self._pace.permit(bulk=bulk)
        result = await call()
        if isinstance(result, Reply):
            refused = result.status == HTTPStatus.TOO_MANY_REQUESTS
            await self._pace.heard(turn, parse_rate_limit(result.headers), refused=refused)
        return result

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
