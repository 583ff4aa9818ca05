"""What the Attention page shows: dead letters, what the burst guard holds, quarantine, the halt and breakers.

There may be hundreds of thousands of them. Each list is a page of the newest, and what is counted by rule is
counted among as many as `MOST_COUNTED`; the totals are Redis's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import keys
from service.brakes import PERSON
from service.dashboard.attention_views import (
    BrakesView,
    BreakerView,
    DeadLetter,
    HaltView,
    HeldGroup,
    HeldView,
    LetterCount,
    LetterGroup,
    LetterPage,
    QuarantinedBody,
    QuarantinedWhole,
    QuarantineView,
)
from service.dashboard.reading import read_attention
from service.dead_letter_filter import Place, Wanted, groups
from service.dead_letters import DeadLetters
from service.enrichment import State
from service.held import held
from service.quarantine import list_quarantined, read_quarantined
from service.readiness import breaker_words

if TYPE_CHECKING:
    from service.dashboard.desk import Desk
    from service.dead_letter_filter import Group
    from service.enrichment import Entry
    from service.quarantine import Quarantined

MOST_COUNTED = 5000
"""Dead letters or held enrichments looked at in one request."""

COUNTED_AT_A_GLANCE = 1000
"""Dead letters counted on a page that shows other things too."""

BODIES = 20
"""Quarantined bodies read at once: 1.3 MB at most."""


async def read_letters(desk: Desk, wanted: Wanted, *, most: int, after: Place | None) -> LetterPage:
    """A page of dead letters.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    letters = DeadLetters(desk.ledger)
    found = await letters.look(
        wanted, until_ms=await letters.now_ms(), most=most, looks=MOST_COUNTED, after=after
    )
    return LetterPage(
        letters=[_letter(entry) for entry in found.entries],
        next=None if found.next is None else str(found.next),
        all=await letters.count(),
    )


async def count_letters(
    desk: Desk, wanted: Wanted, *, ids: list[str] | None = None, most: int = MOST_COUNTED
) -> LetterCount:
    """How many dead letters are meant, and what retrying them costs.

    Args:
        desk: with the ledger.
        wanted: which ones.
        ids: these instead, where given.
        most: no more are counted.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    letters = DeadLetters(desk.ledger)
    until_ms = await letters.now_ms()
    if ids is not None:
        return _counted(groups(await letters.named(list(dict.fromkeys(ids)))), more=False, until_ms=until_ms)
    found = await letters.look(wanted, until_ms=until_ms, most=most, looks=MOST_COUNTED)
    return _counted(groups(found.entries), more=found.next is not None, until_ms=until_ms)


async def read_held(desk: Desk) -> HeldView:
    """What the burst guard holds.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    found = await held(desk.redis, most=MOST_COUNTED)
    count = int(await desk.redis.zcard(keys.HELD))
    return HeldView(
        groups=[
            HeldGroup(
                rule=one.rule,
                count=one.count,
                credits_at_most=one.credits_at_most,
                oldest_ms=one.oldest_ms,
            )
            for one in found
        ],
        count=count,
        more=count > sum(one.count for one in found),
    )


async def read_quarantine(desk: Desk, *, before: str | None) -> QuarantineView:
    """A page of quarantined deliveries, without their bodies.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    found = await list_quarantined(desk.redis, most=BODIES + 1, before=before)
    shown = found[:BODIES]
    return QuarantineView(
        bodies=[_about(one) for one in shown],
        next=shown[-1].id if len(found) > BODIES else None,
        count=int(await desk.redis.xlen(keys.QUARANTINE)),
    )


async def read_body(desk: Desk, quarantine_id: str) -> QuarantinedWhole | None:
    """One quarantined delivery with its body, for somebody who asked to see it; None where there is none.

    Raises:
        redis.RedisError: Redis cannot be asked.
        ValueError: the id is none.
    """
    found = await read_quarantined(desk.redis, quarantine_id)
    if found is None:
        return None
    return QuarantinedWhole(about=_about(found), body=found.body.decode(errors="replace"))


async def read_brakes(desk: Desk) -> BrakesView:
    """What keeps calls from leaving.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    brakes = desk.ledger.brakes
    halt = await brakes.halted()
    counts = await desk.ledger.counts()
    waiting = counts[State.PLANNED] + counts[State.WAITING] - (await read_attention(desk.redis)).held
    return BrakesView(
        halt=None
        if halt is None
        else HaltView(reason=halt.reason, by_person=halt.kind == PERSON, since_ms=halt.since_ms),
        breakers=[
            BreakerView(
                field=one.field_name,
                field_id=one.field_id,
                rule=one.rule,
                timeouts=one.timeouts,
                until_ms=one.until_ms,
                hint=breaker_words(one),
            )
            for one in await brakes.open_breakers()
        ],
        waiting=max(0, waiting),
    )


def _letter(entry: Entry) -> DeadLetter:
    return DeadLetter(
        id=entry.id,
        object_id=entry.object_id,
        field=entry.field_name or entry.field_id,
        rule=entry.rule,
        state=str(entry.state),
        reason=entry.reason,
        ended_ms=entry.ended_ms or entry.changed_ms,
        attempts=entry.attempts,
        credits=entry.calls,
        ambiguous=entry.ambiguous,
    )


def _counted(found: list[Group], *, more: bool, until_ms: int) -> LetterCount:
    return LetterCount(
        groups=[
            LetterGroup(
                rule=one.rule,
                state=str(one.state),
                count=one.count,
                credits_at_most=one.credits_at_most,
            )
            for one in found
        ],
        count=sum(one.count for one in found),
        more=more,
        until_ms=until_ms,
    )


def _about(one: Quarantined) -> QuarantinedBody:
    return QuarantinedBody(
        id=one.id,
        received_ms=int(one.id.partition("-")[0]),
        reason=one.reason,
        size_bytes=one.size_bytes,
        whole=one.whole,
    )
