"""What to do about Close's webhook subscriptions. Pure: what Close lists and what we want in, one step out.

Source: https://developer.close.com/api/resources/webhooks. A paused subscription has lost what waited for it,
and no documented word says why it was paused, so only `status` and the count of failing hours are believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from service.rules import RuleBook

ACTIVE = "active"
PAUSED = "paused"

ROTATION = "rotation"
"""The query parameter that tells two subscriptions of one receiver apart while its key is replaced.

Close refuses a second active subscription with the same address and events.
"""

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """One kind of event, and the filter that lets only some of them through, or None."""

    object_type: str
    action: str
    extra_filter: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """As people write it: `lead.created`."""
        return f"{self.object_type}.{self.action}"

    def wire(self) -> dict[str, Any]:
        """As Close takes it."""
        return {"object_type": self.object_type, "action": self.action, "extra_filter": self.extra_filter}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A delivery that failed: when, ISO 8601 as Close writes it, and with what: a status or Close's word."""

    at: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as Close shows it.

    Attributes:
        id: `whsub_…`.
        url: where its events go.
        status: `active` or `paused`; anything else is taken for paused.
        events: what it delivers.
        failing_buckets: how many stretches of time in a row, each about an hour, saw only failures.
        delivered: how many deliveries succeeded.
        created: when it was made, as Close writes it: ISO 8601, UTC, without a zone.
        failed: the newest delivery that failed, of those that Close still shows; None where there is none.
        succeeded_at: when the newest one succeeded, ISO 8601; "" where Close shows none.
    """

    id: str
    url: str
    status: str = ACTIVE
    events: tuple[Interest, ...] = ()
    failing_buckets: int = 0
    delivered: int = 0
    created: str = ""
    failed: Failed | None = None
    succeeded_at: str = ""

    @property
    def active(self) -> bool:
        """Whether Close delivers."""
        return self.status == ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What this service needs, and what it remembers.

    Attributes:
        url: the receiver's address.
        events: what the rules listen to.
        ours: ids of subscriptions that this service has made or adopted.
        left_paused: ids of those that a person has paused with `webhook pause`.
    """

    url: str
    events: tuple[Interest, ...]
    ours: Collection[str] = ()
    left_paused: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """No rule listens to anything, so there is nothing to subscribe to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """There is no subscription for this receiver yet."""

    url: str
    events: tuple[Interest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The subscription needs a change.

    Attributes:
        subscription: as it is.
        changes: what to send to Close.
        why: what is wrong with it, in words, without its address.
        reactivates: it was paused, so Close has dropped what waited for it.
    """

    subscription: Subscription
    changes: Mapping[str, Any] = field(repr=False)
    why: tuple[str, ...]
    reactivates: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """The subscription is as it should be, but for what a person decided.

    Attributes:
        subscription: as it is.
        left_paused: a person has paused it.
    """

    subscription: Subscription
    left_paused: bool = False


Step: TypeAlias = Nothing | Create | Change | Keep


def needed_events(rulebook: RuleBook) -> tuple[Interest, ...]:
    """The events that enabled rules listen to, each once, in a fixed order."""
    pairs = {(rule.object_type.value, one.action.value) for rule in rulebook.enabled for one in rule.on}
    return tuple(Interest(object_type=kind, action=action) for kind, action in sorted(pairs))


def decide(subscriptions: Sequence[Subscription], wanted: Wanted) -> Step:
    """What to do next so that one active subscription brings the events that are needed.

    Events are only added: an event or a filter that somebody put there stays. Where several subscriptions
    deliver to this receiver, the one of the newest rotation counts.

    Args:
        subscriptions: all of them, as Close lists them.
        wanted: what this service needs.
    """
    if not wanted.events:
        return Nothing()
    found = subscription_of(subscriptions, url=wanted.url, ours=wanted.ours)
    if found is None:
        return Create(url=wanted.url, events=wanted.events)
    changes: dict[str, Any] = {}
    why: list[str] = []
    if not same_receiver(found.url, wanted.url):
        changes["url"] = rotated(wanted.url, rotation_of(found.url))
        why.append("it delivers to another address")
    listed = {one.name for one in found.events}
    missing = [one for one in wanted.events if one.name not in listed]
    if missing:
        changes["events"] = [one.wire() for one in (*found.events, *missing)]
        why.append("it does not deliver " + ", ".join(one.name for one in missing))
    left_paused = not found.active and found.id in wanted.left_paused
    reactivates = not found.active and not left_paused
    if reactivates:
        changes["status"] = ACTIVE
        why.append("it is paused")
    if changes:
        return Change(subscription=found, changes=changes, why=tuple(why), reactivates=reactivates)
    return Keep(subscription=found, left_paused=left_paused)


def subscription_of(
    subscriptions: Sequence[Subscription], *, url: str, ours: Collection[str] = ()
) -> Subscription | None:
    """The subscription of the receiver at an address, or else one that is ours; None where there is none."""
    here = [one for one in subscriptions if same_receiver(one.url, url)]
    known = [one for one in subscriptions if one.id in ours]
    return max(here or known, key=_standing, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A signature key that is being replaced.

    Attributes:
        new: the subscription of the newest rotation.
        old: the others of this receiver, which it replaces.
    """

    new: Subscription
    old: tuple[Subscription, ...]

    @property
    def ready(self) -> bool:
        """Whether the new one has delivered, and brings all that the old ones do."""
        brings = {one.name for one in self.new.events}
        needs = {event.name for one in self.old for event in one.events}
        return self.new.active and self.new.delivered > 0 and needs <= brings


def rotation(subscriptions: Sequence[Subscription], *, url: str) -> Rotation | None:
    """The rotation under way at a receiver's address, or None.

    It shows in the addresses themselves, so nothing needs to be remembered between its two halves.
    """
    new = subscription_of(subscriptions, url=url)
    if new is None:
        return None
    newest = rotation_of(new.url)
    old = tuple(one for one in subscriptions if same_receiver(one.url, url) and rotation_of(one.url) < newest)
    return Rotation(new=new, old=old) if old else None


def filtered(subscription: Subscription, needed: Sequence[Interest]) -> tuple[str, ...]:
    """The needed events of which a filter lets only some through."""
    whole = {one.name for one in subscription.events if one.extra_filter is None}
    partly = {one.name for one in subscription.events} - whole
    return tuple(one.name for one in needed if one.name in partly)


def same_receiver(one: str, other: str) -> bool:
    """Whether two addresses are the same receiver's, whatever their rotation."""
    return _receiver(one) == _receiver(other)


def rotation_of(url: str) -> int:
    """Which rotation an address belongs to; 0 for the first key."""
    try:
        numbers = [value for name, value in parse_qsl(urlsplit(url).query) if name == ROTATION]
    except ValueError:
        return 0
    last = numbers[-1] if numbers else ""
    return int(last) if re.fullmatch(r"[0-9]{1,9}", last) else 0


def rotated(url: str, number: int) -> str:
    """The receiver's address for a rotation; the bare address for rotation 0."""
    return f"{url}?{urlencode({ROTATION: number})}" if number else url


def _standing(one: Subscription) -> tuple[int, bool, int, str, str]:
    return rotation_of(one.url), one.active, len(one.events), one.created, one.id


def _receiver(url: str) -> tuple[Any, ...]:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        query = [(name, value) for name, value in parse_qsl(parts.query) if name != ROTATION]
    except ValueError:
        return (url,)
    return parts.scheme, parts.hostname, port, parts.path, tuple(query)
