"""Webhook subscriptions, made and kept right at Close. What to do is decided in `workers.subscription`.

Whatever a subscription's reply says, its signature key goes into Redis and nowhere else. Close being away or
refusing is data, a `Trouble`; Redis being away is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from service import keys
from service.keyring import forget_key, known_keys, remember_key
from service.redis_text import texts
from workers import subscription as pure
from workers.subscription import ACTIVE, PAUSED, Change, Create, Nothing, Wanted
from workers.webhook_reply import (
    NO_SUBSCRIPTION,
    Trouble,
    read_key,
    read_reply,
    read_subscription,
    refusal,
    shown_subscription,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from workers.close_api import CloseApi
    from workers.subscription import Interest, Step, Subscription
    from workers.webhook_reply import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensured:
    """The subscription as it is after a look.

    Attributes:
        subscription: what Close shows.
        step: what was done; `Keep` for nothing.
        key_known: whether its signature key is learned.
        filtered: needed events of which a filter on it lets only some through.
        rotating: whether an older subscription of this receiver still delivers.
    """

    subscription: Subscription
    step: Step
    key_known: bool
    filtered: tuple[str, ...] = ()
    rotating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """How far the replacement of a signature key has come.

    Attributes:
        new: the subscription that stays.
        old: those that it replaces and that are still there.
        deleted: those that are gone now.
    """

    new: Subscription
    old: tuple[Subscription, ...] = ()
    deleted: tuple[str, ...] = ()


class Webhooks:
    """The subscriptions of one organization, and what Redis remembers of them.

    Args:
        api: Close.
        redis: for keys, and for what people have paused.
        log: what was changed, by subscription; never an address or a key.
    """

    def __init__(self, api: CloseApi, redis: Redis, *, log: FilteringBoundLogger) -> None:
        self._api = api
        self._redis = redis
        self._log = log

    async def listed(self) -> tuple[Subscription, ...] | Trouble:
        """All subscriptions that the API key may see, page by page."""
        found: dict[str, Subscription] = {}
        skip = 0
        while True:
            page = read_reply(await self._api.get_webhooks(skip=skip))
            if isinstance(page, Trouble):
                return page
            rows = page.get("data")
            if not isinstance(rows, list):
                return Trouble(reason="Close's list of subscriptions was not understood")
            read = [one for one in map(read_subscription, rows) if one is not None]
            new = {one.id: one for one in read if one.id not in found}
            found |= new
            skip += len(rows)
            # a server that takes no notice of `_skip` sends the same page for ever
            if page.get("has_more") is not True or not new:
                return tuple(found.values())

    async def ensure(self, *, url: str, events: Sequence[Interest]) -> Ensured | Nothing | Trouble:
        """Have one active subscription bring these events to this address: adopt it, mend it or make it.

        Args:
            url: the receiver's address.
            events: what it needs.
        """
        subscriptions = await self.listed()
        if isinstance(subscriptions, Trouble):
            return subscriptions
        wanted = Wanted(
            url=url,
            events=tuple(events),
            ours=await known_keys(self._redis),
            left_paused=frozenset(texts(await self._redis.smembers(keys.WEBHOOK_PAUSED))),
        )
        step = pure.decide(subscriptions, wanted)
        done = await self._take(step, wanted)
        if isinstance(done, Trouble) and done.named is not None:
            twin = await self._twin(done.named, wanted)
            if isinstance(twin, Trouble):
                return twin
            step = pure.decide([twin], wanted)
            done = await self._take(step, wanted)
        if isinstance(done, Ensured) and pure.rotation(subscriptions, url=url) is not None:
            return replace(done, rotating=True)
        return done

    async def _take(self, step: Step, wanted: Wanted) -> Ensured | Nothing | Trouble:
        if isinstance(step, Nothing):
            return step
        shown: Shown = {}
        if isinstance(step, Create | Change):
            answer = await self._send(step)
            now = shown_subscription(answer)
            if isinstance(answer, Trouble) or isinstance(now, Trouble):
                return answer if isinstance(answer, Trouble) else NO_SUBSCRIPTION
            # whatever was delivered to nobody until now is in the event log
            await self._redis.set(keys.RECONCILE_NOW, "1")
            self._tell(step, now)
            shown = answer
        else:
            now = step.subscription
        return Ensured(
            subscription=now,
            step=step,
            key_known=await self._learn_key(now.id, shown),
            filtered=pure.filtered(now, wanted.events),
        )

    async def _send(self, step: Create | Change) -> Shown | Trouble:
        if isinstance(step, Create):
            events = [one.wire() for one in step.events]
            return read_reply(await self._api.post_webhook(url=step.url, events=events))
        of_id = step.subscription.id
        return read_reply(await self._api.put_webhook(subscription_id=of_id, changes=step.changes))

    def _tell(self, step: Create | Change, now: Subscription) -> None:
        if isinstance(step, Create):
            self._log.info("subscribed to Close's webhooks", subscription=now.id)
        elif step.reactivates:
            self._log.warning("the subscription was paused and is active again", subscription=now.id)
        else:
            self._log.warning("the subscription was changed", subscription=now.id, why=list(step.why))

    async def _twin(self, of_id: str, wanted: Wanted) -> Subscription | Trouble:
        """The subscription that Close names as a duplicate, if it delivers to this receiver.

        One that delivers elsewhere may be another deployment's: it is not touched.
        """
        twin = shown_subscription(read_reply(await self._api.get_webhook(subscription_id=of_id)))
        if isinstance(twin, Trouble):
            return Trouble(reason=f"Close names {of_id} as a duplicate; asked for it: {twin.reason}")
        if not pure.same_receiver(twin.url, wanted.url):
            return Trouble(
                reason=f"Close names {of_id} as a duplicate, but it delivers to another address and may be "
                f"another deployment's: if it is not, delete it with `close-enrich webhook delete {of_id}`"
            )
        return twin

    async def _learn_key(self, of_id: str, shown: Shown) -> bool:
        """Keep the key that a reply shows, or ask for it once; whether it is known."""
        key = read_key(shown)
        if key is None:
            if of_id in await known_keys(self._redis):
                return True
            asked = read_reply(await self._api.get_webhook(subscription_id=of_id))
            key = None if isinstance(asked, Trouble) else read_key(asked)
        if key is None:
            return False
        await remember_key(self._redis, of_id, key)
        return True

    async def pause(self, of_id: str) -> Subscription | Trouble:
        """Have Close deliver nothing until `resume`; what waits there is lost to the webhook."""
        # noted first, so that no watcher reactivates it in between
        await self._redis.sadd(keys.WEBHOOK_PAUSED, of_id)
        paused = await self._set_status(of_id, PAUSED)
        if isinstance(paused, Trouble):
            await self._redis.srem(keys.WEBHOOK_PAUSED, of_id)
        return paused

    async def resume(self, of_id: str) -> Subscription | Trouble:
        """Have Close deliver again, and the gap filled from its event log."""
        resumed = await self._set_status(of_id, ACTIVE)
        if not isinstance(resumed, Trouble):
            await self._redis.srem(keys.WEBHOOK_PAUSED, of_id)
            await self._redis.set(keys.RECONCILE_NOW, "1")
        return resumed

    async def _set_status(self, of_id: str, status: str) -> Subscription | Trouble:
        changes = {"status": status}
        return shown_subscription(
            read_reply(await self._api.put_webhook(subscription_id=of_id, changes=changes))
        )

    async def delete(self, of_id: str) -> bool | Trouble:
        """Delete a subscription and forget its key, also where Close has none; whether Close had it."""
        trouble = refusal(await self._api.delete_webhook(subscription_id=of_id))
        if trouble is not None and trouble.status != HTTPStatus.NOT_FOUND:
            return trouble
        await forget_key(self._redis, of_id)
        await self._redis.srem(keys.WEBHOOK_PAUSED, of_id)
        # what waited for delivery through it is lost
        await self._redis.set(keys.RECONCILE_NOW, "1")
        return trouble is None

    async def rotate(self, *, url: str) -> Rotated | Trouble:
        """Make a second subscription with the same events and a key of its own. Both deliver from now on.

        Args:
            url: the receiver's address.
        """
        subscriptions = await self.listed()
        if isinstance(subscriptions, Trouble):
            return subscriptions
        current = pure.subscription_of(subscriptions, url=url)
        if current is None or not current.active:
            what = (
                "no subscription delivers"
                if current is None
                else f"{current.id} is paused and does not deliver"
            )
            return Trouble(reason=f"{what} to this receiver: see `close-enrich webhook ensure`")
        if pure.rotation(subscriptions, url=url) is not None:
            return Trouble(
                reason="a rotation is under way: end it with `close-enrich webhook rotate --finish`"
            )
        address = pure.rotated(url, pure.rotation_of(current.url) + 1)
        events = [one.wire() for one in current.events]
        shown = read_reply(await self._api.post_webhook(url=address, events=events))
        new = shown_subscription(shown)
        if isinstance(shown, Trouble) or isinstance(new, Trouble):
            return shown if isinstance(shown, Trouble) else NO_SUBSCRIPTION
        if not await self._learn_key(new.id, shown):
            # nobody could verify what it delivers
            await self.delete(new.id)
            return Trouble(reason="Close does not show the new subscription's key, so it was deleted again")
        self._log.info("a second subscription replaces the first", old=current.id, new=new.id)
        return Rotated(new=new, old=(current,))

    async def finish(self, *, url: str) -> Rotated | Trouble | None:
        """Delete what a rotation replaces, once the new subscription has delivered; None where there is none.

        Args:
            url: the receiver's address.
        """
        subscriptions = await self.listed()
        if isinstance(subscriptions, Trouble):
            return subscriptions
        under_way = pure.rotation(subscriptions, url=url)
        if under_way is None:
            return None
        if not under_way.ready:
            return Rotated(new=under_way.new, old=under_way.old)
        deleted = []
        for one in under_way.old:
            gone = await self.delete(one.id)
            if isinstance(gone, Trouble):
                return gone
            deleted.append(one.id)
        self._log.info("the old subscription is deleted", old=deleted, new=under_way.new.id)
        return Rotated(new=under_way.new, deleted=tuple(deleted))
