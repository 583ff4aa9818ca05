"""What a person does about what waits for one; each a line in the log that says what, how many and by whom.

The work is the service's own, as the commands `dead`, `release`, `halt`, `resume` and `quarantine` do it. A
line never holds what somebody typed into a field: that may be about a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from service import trial
from service.brakes import PERSON
from service.dead_letters import DeadLetters
from service.held import release
from service.log import get_logger
from service.quarantine import Retried, drop_quarantined, retry_quarantined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.dashboard.desk import Desk
    from service.dashboard.visit import Visit
    from service.dead_letter_filter import Wanted

MOST_LOOKED_AT = 5000
"""Dead letters or held enrichments looked at for one request."""

HALTED = "halted on the dashboard"

LetterVerb = Literal["retry", "drop"]


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """What became of quarantined deliveries that were to be planned once more.

    Attributes:
        retried: ids of those that were handed to `web`.
        gone: of those that are not in quarantine, or not any more.
        cut: of those of which only the start was kept.
    """

    retried: list[str]
    gone: list[str]
    cut: list[str]


async def act_on_letters(
    visit: Visit,
    verb: LetterVerb,
    wanted: Wanted,
    *,
    ids: Sequence[str] | None,
    most: int,
    until_ms: int | None,
) -> int:
    """Retry or drop dead letters; how many this call has.

    Args:
        visit: whose doing it is.
        verb: which of the two.
        wanted: which ones, the newest first.
        ids: these instead, where given.
        most: at most so many; no more are looked at, either.
        until_ms: what ended later is left out; None for now.

    Raises:
        redis.RedisError: Redis cannot be asked; a part may be done.
    """
    letters = DeadLetters(visit.desk.ledger)
    act = letters.retry if verb == "retry" else letters.drop
    if ids is not None:
        done = await act((await letters.named(list(dict.fromkeys(ids))))[:most])
    else:
        moment = await letters.now_ms() if until_ms is None else until_ms
        found = await letters.look(wanted, until_ms=moment, most=most, looks=MOST_LOOKED_AT)
        done = await act(found.entries)
    _log(
        visit,
        "dead letters retried" if verb == "retry" else "dead letters dropped",
        count=done,
        rule=_rule(visit.desk, wanted.rule),
        state=None if wanted.state is None else str(wanted.state),
    )
    return done


async def release_held(visit: Visit, *, rule: str | None, limit: int) -> int:
    """Let go what the burst guard holds, the oldest first; how many this call let go.

    Raises:
        redis.RedisError: Redis cannot be asked; a part may be done.
    """
    released = await release(visit.desk.ledger, limit=limit, rule=rule, looks=MOST_LOOKED_AT)
    _log(visit, "held enrichments released", count=released, rule=_rule(visit.desk, rule))
    return released


async def halt(visit: Visit, *, reason: str | None) -> bool:
    """Stop every call; False where a person had done so already.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    changed = await visit.desk.ledger.brakes.halt(reason=reason or HALTED, kind=PERSON)
    _log(visit, "calls halted", changed=changed)
    return changed


async def resume(visit: Visit) -> bool:
    """Let calls leave again; False where they were not halted.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    changed = await visit.desk.ledger.brakes.resume()
    _log(visit, "calls resumed", changed=changed)
    return changed


async def try_field(visit: Visit, field_id: str) -> bool:
    """Try a field that is left alone at once; False where it is not, or is being tried already.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    changed = await trial.try_field(visit.desk.ledger, field_id, looks=MOST_LOOKED_AT)
    _log(visit, "a field's pause ended", changed=changed, field_id=field_id if changed else None)
    return changed


async def retry_bodies(visit: Visit, ids: Sequence[str]) -> Retries:
    """Have quarantined deliveries read and planned once more.

    Raises:
        redis.RedisError: Redis cannot be asked; a part may be done.
        ValueError: one of the ids is none.
    """
    answers = {one: await retry_quarantined(visit.desk.redis, one) for one in ids}
    of = {kind: [one for one, answer in answers.items() if answer is kind] for kind in Retried}
    _log(visit, "quarantined deliveries retried", count=len(of[Retried.RETRIED]))
    return Retries(retried=of[Retried.RETRIED], gone=of[Retried.GONE], cut=of[Retried.CUT])


async def drop_bodies(visit: Visit, ids: Sequence[str]) -> int:
    """Delete quarantined deliveries for good; how many this call has.

    Raises:
        redis.RedisError: Redis cannot be asked.
        ValueError: one of the ids is none.
    """
    dropped = await drop_quarantined(visit.desk.redis, ids)
    _log(visit, "quarantined deliveries dropped", count=dropped)
    return dropped


def by_whom(visit: Visit) -> str:
    """Whose doing it is: a session by the start of its digest, which opens nothing."""
    if visit.visitor.bearer:
        return "dashboard, a script with the admin token"
    return f"dashboard session {visit.visitor.session_key.rpartition(':')[2][:8]}"


def _log(visit: Visit, what: str, **facts: str | int | bool | None) -> None:
    told = {name: value for name, value in facts.items() if value is not None}
    get_logger("dashboard").info(what, by=by_whom(visit), **told)


def _rule(desk: Desk, name: str | None) -> str | None:
    """The name of a rule of ours; what else somebody has typed is not told."""
    return None if name is None else name if desk.knowledge().rule(name) else "another"
