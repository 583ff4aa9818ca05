"""What `doctor` makes of what Close says: the key, the clock, fields and subscriptions. Pure.

Sources: https://developer.close.com/api/resources/webhooks, and `GET /me/`. What a member may do is said by
`permissions_granted`, which Close does not document: where it is missing, nothing is said about it.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from service.doctor import Finding, State
from service.problem import printable
from workers.subscription import filtered, rotation, same_receiver, subscription_of
from workers.webhook_reply import Trouble

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from service.binding import Bindings
    from workers.subscription import Interest, Subscription

SKEW_SECONDS = 30
ADMIN = "manage_organization"
ENRICH = "ai_enrich"
ENSURE = "close-enrich webhook ensure"

NO_KEY = Finding(
    check="API key",
    state=State.PROBLEM,
    finding="CLOSE_API_KEY is not set",
    fix="make one in Close under Settings > Developer, as an admin, and set CLOSE_API_KEY",
)


def key_findings(me: Mapping[str, Any] | Trouble, *, organization_id: str | None) -> list[Finding]:
    """The API key, its organization, and what it may do.

    Args:
        me: what `GET /me/` shows, or why it does not.
        organization_id: the organization that Close's fields belong to; None where that is not known.
    """
    if isinstance(me, Trouble):
        return [_no_answer(me)]
    names = {one["id"]: one.get("name") for one in _objects(me.get("organizations")) if "id" in one}
    of_key = organization_id or (next(iter(names)) if len(names) == 1 else None)
    return [
        Finding(check="API key", state=State.OK, finding="Close takes it"),
        _organization(names, of_key),
        *_permissions(me, of_key),
    ]


def _no_answer(me: Trouble) -> Finding:
    if me.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Finding(
            check="API key",
            state=State.PROBLEM,
            finding=f"Close refuses it: {me.reason}",
            fix="set CLOSE_API_KEY to a key that exists under Settings > Developer in Close",
        )
    if me.status is None:
        return Finding(
            check="API key",
            state=State.PROBLEM,
            finding=me.reason,
            fix="see CLOSE_API_URL, the proxy settings and https://status.close.com",
        )
    return Finding(
        check="API key",
        state=State.NOT_CHECKED,
        finding=me.reason,
        fix="try again in a minute; https://status.close.com",
    )


def _organization(names: Mapping[str, Any], of_key: str | None) -> Finding:
    if of_key is None:
        said = f"Close names {len(names)} organizations, and no fields to tell which one is the key's"
        return Finding(
            check="organization", state=State.NOT_CHECKED, finding=said if names else "Close names none"
        )
    name = names.get(of_key)
    words = f"{printable(name)} ({of_key})" if isinstance(name, str) else of_key
    return Finding(check="organization", state=State.OK, finding=words)


def _permissions(me: Mapping[str, Any], of_key: str | None) -> list[Finding]:
    granted = [
        one.get("permissions_granted")
        for one in _objects(me.get("memberships"))
        if of_key is not None and one.get("organization_id") == of_key
    ]
    known = granted[0] if granted and isinstance(granted[0], list) else None
    if known is None:
        return [
            Finding(check=check, state=State.NOT_CHECKED, finding="Close does not say what the key may do")
            for check in ("admin", ENRICH)
        ]
    return [
        Finding(check="admin", state=State.OK, finding="the key is an admin's")
        if ADMIN in known
        else Finding(
            check="admin",
            state=State.WARNING,
            finding="the key does not seem to be an admin's: it sees only its own subscriptions, and what an "
            "event of the log holds for an hour only",
            fix="use an admin's key",
        ),
        Finding(check=ENRICH, state=State.OK, finding="the key may use AI enrichment")
        if ENRICH in known
        else Finding(
            check=ENRICH,
            state=State.WARNING,
            finding=f"the permission {ENRICH} is not granted: Close may refuse to enrich",
            fix="grant it to the key's user under Settings > Roles in Close",
        ),
    ]


def clock_finding(date_header: str | None, *, now_seconds: float) -> Finding:
    """This machine's clock against Close's.

    Args:
        date_header: of an answer of Close's; None where there was none.
        now_seconds: when that came, Unix seconds.
    """
    check = "clock"
    try:
        close_seconds = parsedate_to_datetime(date_header or "").timestamp()
    except (ValueError, OverflowError):
        return Finding(check=check, state=State.NOT_CHECKED, finding="Close did not tell the time")
    off_seconds = round(now_seconds - close_seconds)
    if abs(off_seconds) <= SKEW_SECONDS:
        return Finding(check=check, state=State.OK, finding=f"within {SKEW_SECONDS} s of Close's")
    way = "ahead of" if off_seconds > 0 else "behind"
    return Finding(
        check=check,
        state=State.WARNING,
        finding=f"{abs(off_seconds)} s {way} Close's: the age of signatures, which SIGNATURE_MAX_AGE limits, "
        "and the days of budgets are judged by it",
        fix="set the clock by NTP",
    )


def fields_finding(bindings: Bindings | None) -> Finding:
    """The rules joined with Close's fields; None where the fields could not be read."""
    check, fix = "fields", "close-enrich rules check shows the nearest names"
    if bindings is None:
        return Finding(check=check, state=State.NOT_CHECKED, finding="Close's fields could not be read")
    unbound = [f"rule {one.rule.name} cannot run: {one.problem}" for one in bindings.unbound]
    if unbound:
        return Finding(check=check, state=State.PROBLEM, finding="; ".join(unbound), fix=fix)
    if bindings.warnings:
        return Finding(check=check, state=State.WARNING, finding="; ".join(bindings.warnings), fix=fix)
    rules = "1 rule has its field" if len(bindings.bound) == 1 else f"{len(bindings.bound)} rules have theirs"
    return Finding(check=check, state=State.OK, finding=f"{rules} in Close")


def subscription_finding(
    listed: Sequence[Subscription] | Trouble,
    *,
    url: str | None,
    needed: Sequence[Interest],
    left_paused: Collection[str],
    keyed: Collection[str] | None,
) -> Finding:
    """The webhook subscription at Close, and how its deliveries have fared.

    Args:
        listed: all of them, or why Close does not list them.
        url: the receiver's address; None where it is not set.
        needed: the events that the rules listen to.
        left_paused: the subscriptions that a person has paused.
        keyed: the subscriptions whose signature keys are learned; None where that does not tell.
    """
    if isinstance(listed, Trouble):
        state, finding, fix = State.NOT_CHECKED, listed.reason, ""
    elif url is None:
        state, finding, fix = State.NOT_CHECKED, "PUBLIC_URL is not set: it is nobody's to look after", ""
    else:
        one = subscription_of(listed, url=url)
        state, finding, fix = (
            (State.PROBLEM, "none delivers to PUBLIC_URL", ENSURE)
            if one is None
            else _wrong_with(one, needed=needed, left_paused=left_paused, keyed=keyed)
            or _several(listed, one, url=url)
        )
    return Finding(check="subscription", state=state, finding=finding, fix=fix)


def _wrong_with(
    one: Subscription,
    *,
    needed: Sequence[Interest],
    left_paused: Collection[str],
    keyed: Collection[str] | None,
) -> tuple[State, str, str] | None:
    """The first thing that is wrong with a subscription; None where it is in order by itself."""
    listens = {event.name for event in one.events}
    missing = [event.name for event in needed if event.name not in listens]
    partly = filtered(one, needed)
    by_person = not one.active and one.id in left_paused
    candidates = (
        (by_person, State.WARNING, "is paused by a person", "close-enrich webhook resume"),
        (not one.active, State.PROBLEM, "is paused: Close delivers nothing", ENSURE),
        (
            one.failing_buckets > 0,
            State.PROBLEM,
            f"is failing: for about {one.failing_buckets} h, none of Close's deliveries got a 2xx"
            + _last_failure(one),
            "see the public address; Close pauses it after three days",
        ),
        (
            keyed is not None and one.id not in keyed,
            State.PROBLEM,
            "has a signature key that is not known: its deliveries are refused",
            f"{ENSURE}, or set CLOSE_SIGNATURE_KEYS",
        ),
        (bool(missing), State.PROBLEM, f"does not deliver {', '.join(missing)}", ENSURE),
        (
            bool(partly),
            State.WARNING,
            f"has a filter that holds back some of {', '.join(partly)}",
            "take the filter off it in Close, or leave it if it is meant",
        ),
        (
            one.failed is not None and one.failed.at > one.succeeded_at,
            State.WARNING,
            "is active, and its newest delivery failed" + _last_failure(one),
            "see the public address; Close delivers it again",
        ),
    )
    return next(((state, f"{one.id} {words}", fix) for so, state, words, fix in candidates if so), None)


def _several(listed: Sequence[Subscription], one: Subscription, *, url: str) -> tuple[State, str, str]:
    """A subscription that is in order by itself: does another one deliver the same?"""
    others = [other.id for other in listed if other.id != one.id and same_receiver(other.url, url)]
    if others and rotation(listed, url=url) is not None:
        words = f"{one.id} replaces {', '.join(others)}: a new signature key is being brought in"
        return State.OK, words, ""
    if others:
        words = f"{', '.join(others)} delivers here as well as {one.id}: each event comes more than once"
        return State.WARNING, words, f"close-enrich webhook delete {others[0]}"
    delivered = "1 delivery has" if one.delivered == 1 else f"{one.delivered} deliveries have"
    return State.OK, f"{one.id} is active, {delivered} succeeded" + _last_failure(one), ""


def _last_failure(one: Subscription) -> str:
    """The newest delivery that failed, as a part of a sentence; nothing where Close shows none."""
    return "" if one.failed is None else f"; the last failure was {one.failed.how} at {one.failed.at}"


def key_known_finding(*, learned: int, named: int) -> Finding:
    """Whether deliveries can be verified.

    Args:
        learned: how many keys of subscriptions are known.
        named: how many keys `CLOSE_SIGNATURE_KEYS` names.
    """
    check = "signature key"
    if not learned and not named:
        return Finding(
            check=check,
            state=State.PROBLEM,
            finding="none is known: deliveries are answered 503",
            fix=f"{ENSURE}, or set CLOSE_SIGNATURE_KEYS",
        )
    said = [f"{learned} learned"] if learned else []
    said += [f"{named} in CLOSE_SIGNATURE_KEYS"] if named else []
    return Finding(check=check, state=State.OK, finding=", ".join(said))


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
