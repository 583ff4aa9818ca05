"""`trigger` and `replay`: an event made up, or taken from Close's log or a file, signed and sent."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisError

from service.cli.connection import connected
from service.cli.post import post
from service.cli.printing import print_json
from service.cli.signing_keys import signing_keys_or_exit
from service.cli.start import give_up, settings_or_exit
from service.event import Unparseable, parse_event
from service.log import get_logger
from service.problem import printable
from service.samples import sample_event
from service.sandbox.delivery import delivery_body, delivery_headers
from service.schema_cache import SchemaCache
from service.settings_values import WEBHOOK_PATH
from workers.close_client import close_api
from workers.reply import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.cli.post import Answered
    from service.event import Event
    from service.ledger import Ledger
    from service.settings import Settings

EXIT_FAILED = 1
HTTP_OK = 200
HTTP_NOT_FOUND = 404
SUBSCRIPTION = "whsub_by_hand"
PREFIXES = {"lead": "lead_", "contact": "cont_"}


def run_trigger(
    event_type: str, *, to: str | None, object_id: str | None, changes: Sequence[str], as_json: bool
) -> None:
    """The command `trigger`."""
    prefix = PREFIXES[event_type.partition(".")[0]]
    if object_id is not None and not object_id.startswith(prefix):
        give_up(f"--object {object_id}: {event_type} is about an id that begins with {prefix}")
    changed = dict(_change_or_exit(one) for one in changes)
    settings = settings_or_exit()
    event = sample_event(
        event_type,
        organization_id=_organization(settings) or "orga_unknown",
        random=random.SystemRandom(),
        now=dt.datetime.now(dt.UTC),
        object_id=object_id,
        changes=changed,
    )
    _send(delivery_body(SUBSCRIPTION, event), settings=settings, to=to, as_json=as_json)


def run_replay(source: str, *, to: str | None, as_json: bool) -> None:
    """The command `replay`."""
    # `listen --save` names files after their events
    by_id = source.startswith("ev_") and not Path(source).is_file()
    settings = settings_or_exit(*(["CLOSE_API_KEY"] if by_id else []))
    raw = _logged_event(source, settings) if by_id else _contents(source)
    try:
        found = json.loads(raw)
    except ValueError as error:
        give_up(f"{source}: no event, but something that is not JSON: {error}")
    if not isinstance(found, dict):
        give_up(f'{source}: expected an event, or a delivery\'s body: {{"event": …}}')
    # a saved body goes as it is: what is signed is bytes, and Close's own are the best there are
    body = raw if "event" in found else delivery_body(SUBSCRIPTION, found)
    _send(body, settings=settings, to=to, as_json=as_json)


def _change_or_exit(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        give_up(f"--set {text}: expected NAME=VALUE, such as url=https://acme.example")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _organization(settings: Settings) -> str | None:
    """The organization that the service works for, as far as Redis knows."""
    if settings.redis_url is None:
        return None

    async def look(ledger: Ledger) -> str | None:
        schemas = await SchemaCache(ledger.redis, fetch=None, log=get_logger("schema")).load()
        return next((one.organization_id for one in schemas.values() if one.organization_id), None)

    found: str | None = connected(settings, look)
    return found


def _contents(source: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        give_up(f"{source}: cannot be read: {error.strerror} (expected ev_… or a file)")


def _logged_event(event_id: str, settings: Settings) -> bytes:
    """An event of Close's log."""

    async def ask() -> Any:
        api = close_api(settings)
        try:
            return await api.get_event(event_id=event_id)
        finally:
            await api.aclose()

    try:
        result = asyncio.run(ask())
    except ValueError as error:
        give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")
    if isinstance(result, Failure):
        give_up(f"Close does not answer: {result.kind}", code=EXIT_FAILED)
    if result.status == HTTP_NOT_FOUND:
        give_up(f"{event_id}: not in Close's event log, which goes back 30 days", code=EXIT_FAILED)
    if result.status != HTTP_OK:
        give_up(f"{event_id}: Close answered {result.status}", code=EXIT_FAILED)
    return bytes(result.body)


def _send(body: bytes, *, settings: Settings, to: str | None, as_json: bool) -> None:
    """Sign a body, post it, print what came back; exit 1 unless it was taken."""
    event = parse_event(body)
    if isinstance(event, Unparseable):
        give_up(f"this is no event: {event.reason}")
    key = signing_keys_or_exit(settings)[0]
    url = to or f"http://{_local(settings.host)}:{settings.port}{WEBHOOK_PATH}"
    headers = delivery_headers(signature_key=key.key.hex(), timestamp=int(time.time()), body=body)
    del headers["Accept-Encoding"]
    try:
        answered = post(url, body=body, headers=headers)
    except ValueError as error:
        give_up(f"--to {url}: {error}")
    except (OSError, RedisError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        give_up(f"{url} does not answer: {reason}", code=EXIT_FAILED)
    said = _said(answered)
    if as_json:
        print_json({"to": url, "status": answered.status, "event": event.id, "answer": said})
    else:
        _show(event, answered.status, said)
    if not 200 <= answered.status < 300:  # noqa: PLR2004  HTTP's own classes
        sys.exit(EXIT_FAILED)


def _local(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104  read, not bound


def _said(answered: Answered) -> Any:
    try:
        return json.loads(answered.body)
    except ValueError:
        return printable(answered.body.decode(errors="replace"))[:300]


def _show(event: Event, status: int, said: Any) -> None:
    facts = said if isinstance(said, dict) else {}
    told = facts.get("status") or facts.get("error") or said or "no words"
    reason = f": {facts['reason']}" if facts.get("reason") else ""
    click.echo(f"{status} {told}{reason}")
    click.echo(f"  {event.object_type}.{event.action} {event.id} of {event.object_id}")
    for one in facts.get("planned", ()):
        click.echo(f"  {one['rule']}: {one['result']}, enrichment {one['enrichment']}")
    for one in facts.get("skipped", ()):
        click.echo(f"  {one['rule']}: skipped, {one['reason']}")
