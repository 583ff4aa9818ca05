"""The JSON API of what waits for a person: what the Attention page shows and does."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from service.dashboard import acts
from service.dashboard.attention import (
    count_letters,
    read_body,
    read_brakes,
    read_held,
    read_letters,
    read_quarantine,
)
from service.dashboard.attention_asked import (
    BodiesAct,
    BodyAsked,
    FieldMeant,
    HaltAsked,
    HeldAgreed,
    LettersAct,
    LettersAsked,
    LettersWanted,
    QuarantineAsked,
)
from service.dashboard.attention_views import (
    BrakesView,
    HeldView,
    LetterCount,
    LetterPage,
    QuarantinedWhole,
    QuarantineView,
)
from service.dashboard.routes import Call, Refused

if TYPE_CHECKING:
    from service.dashboard.acts import LetterVerb
    from service.dashboard.visit import Visit

TAG = "attention"
NOT_CLEAR = "say which dead letters: ids, or filters, or everything"


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What an act has come to.

    Attributes:
        count: how many were changed by it.
    """

    count: int


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an act has changed anything.

    Attributes:
        changed: false where it was so already.
    """

    changed: bool


async def letters_json(visit: Visit, asked: LettersAsked) -> LetterPage:
    """A page of dead letters."""
    return await read_letters(visit.desk, asked.wanted, most=asked.limit, after=asked.place)


async def count_json(visit: Visit, asked: LettersWanted) -> LetterCount:
    """What a retry would cost."""
    return await count_letters(visit.desk, asked.wanted)


async def act_json(verb: LetterVerb, visit: Visit, wish: LettersAct) -> Done | Refused:
    """Retry or drop."""
    if not wish.clear:
        return Refused(status=HTTPStatus.BAD_REQUEST, error=NOT_CLEAR)
    done = await acts.act_on_letters(
        visit, verb, wish.wanted, ids=wish.ids, most=wish.most, until_ms=wish.until_ms
    )
    return Done(count=done)


async def held_json(visit: Visit, _: Any) -> HeldView:
    """What the burst guard holds."""
    return await read_held(visit.desk)


async def release_json(visit: Visit, wish: HeldAgreed) -> Done:
    """Let some of it go."""
    return Done(count=await acts.release_held(visit, rule=wish.rule, limit=wish.limit))


async def brakes_json(visit: Visit, _: Any) -> BrakesView:
    """What keeps calls from leaving."""
    return await read_brakes(visit.desk)


async def halt_json(visit: Visit, wish: HaltAsked) -> Changed:
    """Stop every call."""
    return Changed(changed=await acts.halt(visit, reason=wish.reason))


async def resume_json(visit: Visit, _: Any) -> Changed:
    """Let calls leave."""
    return Changed(changed=await acts.resume(visit))


async def try_json(visit: Visit, wish: FieldMeant) -> Changed:
    """End a field's pause."""
    return Changed(changed=await acts.try_field(visit, wish.field_id))


async def quarantine_json(visit: Visit, asked: QuarantineAsked) -> QuarantineView:
    """A page of quarantined deliveries."""
    return await read_quarantine(visit.desk, before=asked.before)


async def body_json(visit: Visit, asked: BodyAsked) -> QuarantinedWhole | Refused:
    """One of them with its body."""
    found = await read_body(visit.desk, asked.quarantine_id)
    if found is None:
        return Refused(status=HTTPStatus.NOT_FOUND, error="not in quarantine, or not any more")
    return found


async def retry_bodies_json(visit: Visit, wish: BodiesAct) -> acts.Retries:
    """Have them read and planned once more."""
    return await acts.retry_bodies(visit, list(dict.fromkeys(wish.ids)))


async def drop_bodies_json(visit: Visit, wish: BodiesAct) -> Done:
    """Delete them for good."""
    return Done(count=await acts.drop_bodies(visit, list(dict.fromkeys(wish.ids))))


ROUTES = (
    Call(
        path="/api/attention/dead-letters",
        summary="Enrichments that ended without an answer, newest first.",
        handler=letters_json,
        answers=LetterPage,
        asks=LettersAsked,
        tag=TAG,
    ),
    Call(
        path="/api/attention/dead-letters/count",
        summary="How many dead letters are meant, by rule and state, and what retrying them costs.",
        handler=count_json,
        answers=LetterCount,
        asks=LettersWanted,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/dead-letters/retry",
        summary="Plan dead letters anew, for at most one credit each.",
        handler=partial(act_json, "retry"),
        answers=Done,
        asks=LettersAct,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/dead-letters/drop",
        summary="Take dead letters off the list for good.",
        handler=partial(act_json, "drop"),
        answers=Done,
        asks=LettersAct,
        tag=TAG,
    ),
    Call(
        path="/api/attention/held",
        summary="What the burst guard holds, by rule, and what letting it go costs.",
        handler=held_json,
        answers=HeldView,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/held/release",
        summary="Let held enrichments go, the oldest first, for at most one credit each.",
        handler=release_json,
        answers=Done,
        asks=HeldAgreed,
        tag=TAG,
    ),
    Call(
        path="/api/attention/brakes",
        summary="Why no call leaves, and which fields are left alone.",
        handler=brakes_json,
        answers=BrakesView,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/halt",
        summary="Let no call leave until somebody resumes.",
        handler=halt_json,
        answers=Changed,
        asks=HaltAsked,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/resume",
        summary="Let calls leave again, whoever or whatever has halted them.",
        handler=resume_json,
        answers=Changed,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/breakers/try",
        summary="Try a field that is left alone at once, for at most one credit.",
        handler=try_json,
        answers=Changed,
        asks=FieldMeant,
        tag=TAG,
    ),
    Call(
        path="/api/attention/quarantine",
        summary="Signed deliveries that could not be read, newest first, without their bodies.",
        handler=quarantine_json,
        answers=QuarantineView,
        asks=QuarantineAsked,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/quarantine/retry",
        summary="Have quarantined deliveries read and planned once more.",
        handler=retry_bodies_json,
        answers=acts.Retries,
        asks=BodiesAct,
        tag=TAG,
    ),
    Call(
        method="POST",
        path="/api/attention/quarantine/drop",
        summary="Delete quarantined deliveries for good.",
        handler=drop_bodies_json,
        answers=Done,
        asks=BodiesAct,
        tag=TAG,
    ),
    Call(
        path="/api/attention/quarantine/{quarantine_id}",
        summary="One quarantined delivery with its body, which may hold personal data.",
        handler=body_json,
        answers=QuarantinedWhole,
        asks=BodyAsked,
        refuses=((HTTPStatus.NOT_FOUND, "It is not in quarantine, or not any more."),),
        tag=TAG,
    ),
)
