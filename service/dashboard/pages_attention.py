"""Attention: what waits for a person, why, what it costs; and doing something about it.

Every button leads to a page that says what would happen and at what price. Only the form on that page changes
anything.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from service.dashboard import acts
from service.dashboard.attention import (
    COUNTED_AT_A_GLANCE,
    count_letters,
    read_body,
    read_brakes,
    read_held,
    read_letters,
    read_quarantine,
)
from service.dashboard.attention_asked import (
    MOST_RELEASED,
    AttentionAsked,
    BodiesMeant,
    BodyAsked,
    FieldMeant,
    HaltAsked,
    HeldAgreed,
    HeldMeant,
    LettersAgreed,
    LettersMeant,
)
from service.dashboard.rendering import duration
from service.dashboard.routes import Form, Page
from service.problem import printable

if TYPE_CHECKING:
    from starlette.responses import Response

    from service.dashboard.acts import LetterVerb
    from service.dashboard.visit import Visit


async def attention(visit: Visit, asked: AttentionAsked) -> Response:
    """The page."""
    desk = visit.desk
    letters = await read_letters(desk, asked.wanted, most=asked.limit, after=asked.place)
    quarantine = await read_quarantine(desk, before=asked.bodies)
    return await visit.page(
        "attention.html",
        asked=asked,
        letters=letters,
        counted=await count_letters(desk, asked.wanted, most=COUNTED_AT_A_GLANCE),
        held=await read_held(desk),
        quarantine=quarantine,
        brakes=await read_brakes(desk),
        query=asked.query(),
        older=f"/attention?{asked.query(after=letters.next)}#dead" if letters.next else "",
        older_bodies=f"/attention?{urlencode({'bodies': quarantine.next})}#quarantine"
        if quarantine.next
        else "",
        whole=",".join(one.id for one in quarantine.bodies if one.whole),
        every=",".join(one.id for one in quarantine.bodies),
    )


async def confirm_letters(verb: LetterVerb, visit: Visit, meant: LettersMeant) -> Response:
    """What a retry or a drop would come to."""
    counted = await count_letters(visit.desk, meant.wanted, ids=meant.ids)
    what = counted_words(counted.count, "dead letter")
    hidden = {
        **meant.named,
        "most": str(max(1, counted.count)),
        "until_ms": str(counted.until_ms),
        "back": meant.back,
    }
    if meant.id is not None:
        hidden["id"] = meant.id
    price = priced_words(counted.credits_at_most)
    if verb == "drop":
        price = "No credit. They stay as they are and leave this list for good; their story says so."
    more = f"Only the newest {counted.count:,}; there are more, for another time." if counted.more else ""
    return await visit.page(
        "confirm.html",
        title=f"{verb.capitalize()} {what}?" if counted.count else f"Nothing to {verb}",
        groups=counted.groups,
        priced=verb == "retry",
        price=price if counted.count else "",
        words=[more] if more else [],
        action=f"/attention/dead/{verb}" if counted.count else "",
        hidden=hidden,
        button=f"{verb.capitalize()} {what}",
        danger=verb == "drop",
        extra="",
        most=0,
        back=f"{meant.back}#dead" if meant.back == "/attention" else meant.back,
    )


async def do_letters(verb: LetterVerb, visit: Visit, agreed: LettersAgreed) -> Response:
    """Retry or drop as many as were shown."""
    done = await acts.act_on_letters(
        visit, verb, agreed.wanted, ids=agreed.ids, most=agreed.most, until_ms=agreed.until_ms
    )
    past = "Retried" if verb == "retry" else "Dropped"
    back = "/attention#dead" if agreed.back == "/attention" else agreed.back
    return await visit.done(back, f"{past} {counted_words(done, 'dead letter')}.")


async def confirm_release(visit: Visit, meant: HeldMeant) -> Response:
    """What a release would come to."""
    found = await read_held(visit.desk)
    groups = [one for one in found.groups if meant.rule in {None, one.rule}]
    most = min(MOST_RELEASED, sum(one.count for one in groups))
    what = counted_words(most, "held enrichment")
    return await visit.page(
        "confirm.html",
        title=f"Release up to {what}?" if most else "Nothing to release",
        groups=groups,
        priced=True,
        price=priced_words(most) if most else "",
        words=[f"At most {MOST_RELEASED:,} go at once, the oldest first."] if most == MOST_RELEASED else [],
        action="/attention/held/release" if most else "",
        hidden={} if meant.rule is None else {"rule": meant.rule},
        button="Release",
        danger=False,
        extra="limit",
        most=most,
        back="/attention#held",
    )


async def do_release(visit: Visit, agreed: HeldAgreed) -> Response:
    """Let them go."""
    released = await acts.release_held(visit, rule=agreed.rule, limit=agreed.limit)
    return await visit.done("/attention#held", f"Released {counted_words(released, 'held enrichment')}.")


async def confirm_halt(visit: Visit, _: Any) -> Response:
    """What a halt would come to."""
    return await visit.page(
        "confirm.html",
        title="Halt all calls?",
        groups=[],
        priced=False,
        price="No credit is spent until somebody resumes.",
        words=["No call leaves any worker. Calls in flight end as usual, and events go on being accepted."],
        action="/attention/halt",
        hidden={},
        button="Halt all calls",
        danger=True,
        extra="reason",
        most=0,
        back="/attention#halted",
    )


async def do_halt(visit: Visit, asked: HaltAsked) -> Response:
    """Stop every call."""
    changed = await acts.halt(visit, reason=asked.reason)
    told = "No call leaves until somebody resumes." if changed else "Calls were halted by a person already."
    return await visit.done("/attention#halted", told)


async def confirm_resume(visit: Visit, _: Any) -> Response:
    """What a resumption would come to."""
    brakes = await read_brakes(visit.desk)
    waits = counted_words(brakes.waiting, "enrichment")
    return await visit.page(
        "confirm.html",
        title="Let calls leave again?" if brakes.halt else "Calls are not halted",
        groups=[],
        priced=False,
        price=f"{waits} wait, for at most as many credits, within the budgets." if brakes.halt else "",
        words=[f"Halted because: {brakes.halt.reason}"] if brakes.halt else [],
        action="/attention/resume" if brakes.halt else "",
        hidden={},
        button="Resume",
        danger=False,
        extra="",
        most=0,
        back="/attention#halted",
    )


async def do_resume(visit: Visit, _: Any) -> Response:
    """Let calls leave."""
    told = "Calls leave again." if await acts.resume(visit) else "Calls were not halted; nothing has changed."
    return await visit.done("/attention#halted", told)


async def confirm_try(visit: Visit, meant: FieldMeant) -> Response:
    """What trying a field now would come to."""
    now_ms = visit.desk.now_ms()
    breakers = (await read_brakes(visit.desk)).breakers
    found = next((one for one in breakers if one.field_id == meant.field_id and one.until_ms > now_ms), None)
    return await visit.page(
        "confirm.html",
        title=f"Try {found.field} now?" if found else "Nothing to try",
        groups=[],
        priced=False,
        price=priced_words(1) if found else "",
        words=[
            f"One call is tried at once instead of in {duration(found.until_ms - now_ms)}.",
            "Once it is answered, the field is called for as usual; another timeout begins a longer pause.",
        ]
        if found
        else [],
        action="/attention/breakers/try" if found else "",
        hidden={"field_id": meant.field_id},
        button="Try now",
        danger=False,
        extra="",
        most=0,
        back="/attention#breakers",
    )


async def do_try(visit: Visit, meant: FieldMeant) -> Response:
    """End its pause."""
    changed = await acts.try_field(visit, meant.field_id)
    told = (
        "The next call for that field is tried at once."
        if changed
        else "That field is being tried already, or is not left alone any more; nothing has changed."
    )
    return await visit.done("/attention#breakers", told)


async def confirm_bodies(verb: LetterVerb, visit: Visit, meant: BodiesMeant) -> Response:
    """What a retry or a drop of quarantined deliveries would come to."""
    what = counted_words(len(meant.all), "delivery", "deliveries")
    retry = verb == "retry"
    return await visit.page(
        "confirm.html",
        title=f"Retry {what}?" if retry else f"Delete {what} for good?",
        groups=[],
        priced=False,
        price="The credits that rules then spend on what can be read." if retry else "No credit.",
        words=[
            "They are read and planned once more. What still cannot be read comes back under a new id."
            if retry
            else "Nobody can retry or read them any more."
        ],
        action=f"/attention/quarantine/{verb}",
        hidden={"ids": ",".join(meant.all)},
        button=f"Retry {what}" if retry else f"Delete {what}",
        danger=not retry,
        extra="",
        most=0,
        back="/attention#quarantine",
    )


async def do_retry_bodies(visit: Visit, meant: BodiesMeant) -> Response:
    """Hand them to `web` once more."""
    found = await acts.retry_bodies(visit, meant.all)
    told = [f"Handed {counted_words(len(found.retried), 'delivery', 'deliveries')} to web."]
    if found.cut:
        told.append(f"Of {len(found.cut)} only the start was kept: they cannot be retried.")
    if found.gone:
        told.append(f"{len(found.gone)} were not there any more.")
    return await visit.done("/attention#quarantine", " ".join(told))


async def do_drop_bodies(visit: Visit, meant: BodiesMeant) -> Response:
    """Delete them for good."""
    dropped = await acts.drop_bodies(visit, meant.all)
    told = f"Deleted {counted_words(dropped, 'delivery', 'deliveries')}."
    return await visit.done("/attention#quarantine", told)


async def body(visit: Visit, asked: BodyAsked) -> Response:
    """One quarantined delivery with its body, for somebody who asked to see it."""
    found = await read_body(visit.desk, asked.quarantine_id.strip())
    return await visit.page(
        "quarantined.html",
        status=HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK,
        found=found,
        body="" if found is None else "\n".join(map(printable, found.body.splitlines())),
    )


def priced_words(credits_at_most: int) -> str:
    """What calls cost."""
    credits_words = counted_words(credits_at_most, "credit")
    return f"At most {credits_words}: one call each, and none where the field is filled by then."


def counted_words(count: int, one: str, many: str | None = None) -> str:
    """A number and its noun: `1 credit`, `2,000 credits`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


ROUTES = (
    Page(path="/attention", handler=attention, asks=AttentionAsked, nav="Attention"),
    Page(path="/attention/dead/retry", handler=partial(confirm_letters, "retry"), asks=LettersMeant),
    Form(path="/attention/dead/retry", handler=partial(do_letters, "retry"), asks=LettersAgreed),
    Page(path="/attention/dead/drop", handler=partial(confirm_letters, "drop"), asks=LettersMeant),
    Form(path="/attention/dead/drop", handler=partial(do_letters, "drop"), asks=LettersAgreed),
    Page(path="/attention/held/release", handler=confirm_release, asks=HeldMeant),
    Form(path="/attention/held/release", handler=do_release, asks=HeldAgreed),
    Page(path="/attention/halt", handler=confirm_halt),
    Form(path="/attention/halt", handler=do_halt, asks=HaltAsked),
    Page(path="/attention/resume", handler=confirm_resume),
    Form(path="/attention/resume", handler=do_resume),
    Page(path="/attention/breakers/try", handler=confirm_try, asks=FieldMeant),
    Form(path="/attention/breakers/try", handler=do_try, asks=FieldMeant),
    Page(path="/attention/quarantine/retry", handler=partial(confirm_bodies, "retry"), asks=BodiesMeant),
    Form(path="/attention/quarantine/retry", handler=do_retry_bodies, asks=BodiesMeant),
    Page(path="/attention/quarantine/drop", handler=partial(confirm_bodies, "drop"), asks=BodiesMeant),
    Form(path="/attention/quarantine/drop", handler=do_drop_bodies, asks=BodiesMeant),
    Page(path="/attention/quarantine/show/{quarantine_id}", handler=body, asks=BodyAsked),
)
