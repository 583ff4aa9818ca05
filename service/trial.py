"""Trying a field that is left alone because a person wants it, instead of at the end of its pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import keys
from service.enrichment import State
from service.redis_text import texts

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.ledger import Ledger

PAGE = 500
"""Enrichments looked at in one round trip."""


async def try_field(ledger: Ledger, field_id: str, *, looks: int) -> bool:
    """End a field's pause, and let the first enrichment that waits for its end run at once.

    Whichever call for the field comes first is the trial, as after any pause; the others wait for what comes
    of it. Where nothing waits, it is the next one that is planned.

    Args:
        ledger: where they are.
        field_id: the custom field.
        looks: look at so many enrichments that wait, or a page more, and no further.

    Returns:
        False where the field is not left alone, or is being tried already.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    until_ms = await ledger.brakes.end_pause(field_id)
    if until_ms is None:
        return False
    waiting = await _first_waiting(ledger, field_id, from_ms=until_ms, looks=looks)
    if waiting is not None:
        await ledger.promote(waiting.queue, [waiting.job_id])
    return True


async def _first_waiting(ledger: Ledger, field_id: str, *, from_ms: int, looks: int) -> Entry | None:
    """The first enrichment of a field that is due after its pause; None where there is none so near."""
    for start in range(0, looks, PAGE):
        ids = texts(
            await ledger.redis.zrange(keys.ACTIVE, from_ms, "+inf", byscore=True, offset=start, num=PAGE)
        )
        for entry in await ledger.entries(ids):
            waits = entry.state is State.WAITING and (entry.due_ms or 0) >= from_ms
            if entry.field_id == field_id and waits and not entry.blocked:
                return entry
        if len(ids) < PAGE:
            return None
    return None
