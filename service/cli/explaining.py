"""The command `rules explain`: what an event or a record leads to, rule by rule, and why."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisError

from service.cli.close_fields import EXIT_FAILED, answer_or_exit, fields_or_exit
from service.cli.explained import show_explanation
from service.cli.printing import print_json
from service.cli.start import give_up, rules_or_exit, settings_or_exit
from service.event import Event, Unparseable, parse_any_event, parse_log_event
from service.explain import explain
from service.knowledge import Knowledge
from service.ledger import Ledger
from service.log import get_logger
from service.offline_fields import offline_schemas
from service.recall import Memory, budgets_left, recall
from service.redis_client import redis_client
from service.rules import Action, ObjectType
from service.schema_cache import SchemaCache
from workers.budget import windows_of
from workers.close_client import close_api
from workers.reply import Reply
from workers.reply_body import json_object

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from service.explanation import Explanation
    from service.rules import RuleBook
    from service.schema import Schema
    from service.settings import Settings
    from workers.close_api import CloseApi

REDIS_SECONDS = 3.0
"""Redis only adds to an explanation, so it is not waited for."""

_ID = re.compile(r"(ev|lead|cont)_[A-Za-z0-9]+")
_OBJECT_TYPES = {"lead": ObjectType.LEAD, "cont": ObjectType.CONTACT}


def run_explain(target: str, *, rules_file: Path | None, as_json: bool) -> None:
    """The command `rules explain`. Exits 1 where Close does not answer or know it, 2 for a wrong input.

    Args:
        target: an event's, lead's or contact's id, a file with an event, or `-` for one on stdin.
        rules_file: the rules; those of `RULES_FILE` when None.
        as_json: print JSON.
    """
    settings = settings_or_exit()
    rulebook = rules_or_exit(rules_file or settings.rules_file, typed=rules_file is not None)
    event = None if _ID.fullmatch(target) and not Path(target).exists() else _event_of_file(target)
    if event is None and settings.close_api_key is None:
        give_up(
            f"{target} is read from Close, and CLOSE_API_KEY is not set; a file with an event needs no key"
        )
    try:
        explanation = asyncio.run(_explained(settings, rulebook, target, event))
    except ValueError as error:
        give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")
    if as_json:
        print_json(explanation.describe())
    else:
        show_explanation(explanation, zone=settings.budget_timezone)


def _event_of_file(target: str) -> Event:
    """The event in a file: a delivery's body, or the event by itself."""
    source = "stdin" if target == "-" else target
    try:
        body = sys.stdin.buffer.read() if target == "-" else Path(target).read_bytes()
    except OSError as error:
        give_up(
            f"{target}: cannot be read: {error.strerror}. "
            "Expected a file with an event, or an id: ev_…, lead_… or cont_…"
        )
    event = parse_any_event(body)
    if isinstance(event, Unparseable):
        give_up(f"{source}: {event.reason}")
    return event


async def _explained(settings: Settings, rulebook: RuleBook, target: str, event: Event | None) -> Explanation:
    async with _api(settings) as api:
        record = None
        if event is None and api is not None:
            event, record = await _from_close(api, target)
        if event is None:
            raise RuntimeError("an id was to be read without a key")
        memory, schemas = await _remembered(settings, rulebook, event)
        if api is not None:
            schemas = await fields_or_exit(api, known=schemas)
    known_ids = None
    if not schemas:
        schemas, known_ids = offline_schemas(rulebook, event)
    return explain(
        event,
        knowledge=Knowledge.of(rulebook, schemas),
        own_api_key_id=settings.close_api_key_id,
        record=record,
        known_ids=known_ids,
        entries=memory.entries,
        planned_before=memory.planned_before,
        budgets=memory.budgets,
    )


@contextlib.asynccontextmanager
async def _api(settings: Settings) -> AsyncIterator[CloseApi | None]:
    """What asks Close; None without a key."""
    if settings.close_api_key is None:
        yield None
        return
    api = close_api(settings)
    try:
        yield api
    finally:
        await api.aclose()


async def _from_close(api: CloseApi, target: str) -> tuple[Event, dict[str, Any] | None]:
    """An event; or a record, and the event of its creation as it would be now.

    An event that comes without data, as older ones do for keys that are not an admin's, is explained by the
    record as it is now.
    """
    kind = _OBJECT_TYPES.get(target.partition("_")[0])
    if kind is not None:
        record, body = await _record(api, kind, target)
        return _as_created(record, body, kind, target), record
    reply = answer_or_exit(await api.get_event(event_id=target), target)
    event = parse_log_event(reply.body)
    if isinstance(event, Unparseable):
        give_up(f"{target}: Close's answer was not an event: {event.reason}", code=EXIT_FAILED)
    if event.data() or event.object_type not in list(ObjectType):
        return event, None
    result = await api.get_record(object_type=ObjectType(event.object_type), object_id=event.object_id)
    found = json_object(result) if isinstance(result, Reply) and result.status == HTTPStatus.OK else ""
    return event, found if isinstance(found, dict) else None


async def _record(api: CloseApi, kind: ObjectType, target: str) -> tuple[dict[str, Any], bytes]:
    reply = answer_or_exit(await api.get_record(object_type=kind, object_id=target), target)
    record = json_object(reply)
    if isinstance(record, str):
        give_up(f"{target}: {record}", code=EXIT_FAILED)
    return record, reply.body


def _as_created(record: Mapping[str, Any], body: bytes, kind: ObjectType, target: str) -> Event:
    def told(key: str) -> str:
        value = record.get(key)
        return value if isinstance(value, str) else ""

    return Event(
        id="",
        organization_id=told("organization_id"),
        object_type=kind.value,
        object_id=target,
        lead_id=target if kind is ObjectType.LEAD else told("lead_id") or None,
        action=Action.CREATED.value,
        date_created=told("date_created"),
        date_updated=told("date_updated"),
        data_json=body,
    )


async def _remembered(
    settings: Settings, rulebook: RuleBook, event: Event
) -> tuple[Memory, Mapping[ObjectType, Schema]]:
    """What Redis has to say, of Close's fields too; nothing where there is none or it does not answer."""
    now_ms = round(time.time() * 1000)
    windows = {
        rule.name: windows_of(rulebook, rule, now_ms=now_ms, zone=settings.budget_timezone)
        for rule in rulebook.rules
    }
    nothing = Memory(entries={}, planned_before=False, budgets=budgets_left(windows, spent={}))
    if settings.redis_url is None:
        return nothing, {}
    connection = redis_client(
        settings.redis_url.reveal(), timeout_seconds=REDIS_SECONDS, connect_timeout_seconds=REDIS_SECONDS
    )
    try:
        schemas = await SchemaCache(connection, fetch=None, log=get_logger("explain")).load()
        return await recall(Ledger(connection), event, windows=windows), schemas
    except (RedisError, OSError) as error:
        click.echo(
            f"warning: Redis does not answer at REDIS_URL ({type(error).__name__}); "
            "what the ledger and the budgets say is left out",
            err=True,
        )
        return nothing, {}
    finally:
        await connection.aclose()
