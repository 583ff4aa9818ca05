"""What `doctor` asks Close: the key, the fields that rules name, and the subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import keys
from service.cli.doctor_bounded import NotLookedError, bounded
from service.doctor import Finding, State
from service.keyring import known_keys
from service.knowledge import Knowledge
from service.log import get_logger
from service.redis_text import texts
from service.rules import ObjectType, RuleBook
from service.schema import Schema, parse_schema
from workers.doctor import NO_KEY, clock_finding, fields_finding, key_findings, subscription_finding
from workers.reply import Reply
from workers.subscription import needed_events
from workers.webhook_reply import Trouble, read_reply
from workers.webhooks import Webhooks

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.settings import Settings
    from workers.close_api import CloseApi

CALL_SECONDS = 8.0

OF_KEY = ("API key", "organization", "admin", "ai_enrich", "clock")
OF_CLOSE = (*OF_KEY, "fields", "subscription")
"""The checks that are made here."""


async def look_at_close(
    api: CloseApi | str, *, settings: Settings, rulebook: RuleBook | None, redis: Redis | None
) -> list[Finding]:
    """The key first: with one that is refused, nothing more is asked.

    Args:
        api: Close; or why there is none, "" where no key is set.
        settings: for the receiver's address and its keys.
        rulebook: the rules of the file here; None where it cannot be used.
        redis: for what is remembered of subscriptions; None where it is not set.
    """
    if isinstance(api, str):
        fix = "set CLOSE_API_KEY and CLOSE_API_URL anew"
        unusable = Finding(check="API key", state=State.PROBLEM, finding=api, fix=fix)
        return [unusable if api else NO_KEY, *_unasked("there is no API key to ask with")]
    me = await api.get_me(timeout_seconds=CALL_SECONDS)
    clock = clock_finding(me.headers.get("date") if isinstance(me, Reply) else None, now_seconds=time.time())
    shown = read_reply(me)
    if isinstance(shown, Trouble):
        return [*key_findings(shown, organization_id=None), clock, *_unasked("the key was not taken")]
    knowledge, subscription = await asyncio.gather(
        _knowledge(api, rulebook),
        bounded(
            partial(_subscription, api, settings=settings, rulebook=rulebook, redis=redis), "subscription"
        ),
    )
    return [
        *key_findings(shown, organization_id=knowledge.organization_id),
        clock,
        fields_finding(knowledge.bindings if knowledge.complete else None)
        if rulebook is not None
        else Finding(check="fields", state=State.NOT_CHECKED, finding="the rules file cannot be used"),
        *subscription,
    ]


async def _knowledge(api: CloseApi, rulebook: RuleBook | None) -> Knowledge:
    """The rules joined with Close's fields as they are now."""
    replies = await asyncio.gather(
        *(api.get_schema(object_type=one, timeout_seconds=CALL_SECONDS) for one in ObjectType)
    )
    schemas: dict[ObjectType, Schema] = {}
    for object_type, reply in zip(ObjectType, replies, strict=True):
        shown = read_reply(reply)
        schema = None if isinstance(shown, Trouble) else parse_schema(shown, object_type=object_type)
        if isinstance(schema, Schema):
            schemas[object_type] = schema
    return Knowledge.of(rulebook or RuleBook(), schemas)


async def _subscription(
    api: CloseApi, *, settings: Settings, rulebook: RuleBook | None, redis: Redis | None
) -> list[Finding]:
    if redis is None:
        raise NotLookedError("REDIS_URL is not set")
    listed = await Webhooks(api, redis, log=get_logger("doctor")).listed()
    left_paused: list[str] = []
    keyed: frozenset[str] | None = None
    with contextlib.suppress(RedisError, OSError):
        left_paused = texts(await redis.smembers(keys.WEBHOOK_PAUSED))
        keyed = await known_keys(redis)
    return [
        subscription_finding(
            listed,
            url=settings.public_url,
            needed=needed_events(rulebook or RuleBook()),
            left_paused=left_paused,
            keyed=keyed if not settings.signature_keys else None,
        )
    ]


def _unasked(why: str) -> list[Finding]:
    return [
        Finding(check=check, state=State.NOT_CHECKED, finding=why) for check in ("fields", "subscription")
    ]
