"""`listen`: a small receiver that prints what Close sends and does nothing else with it."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.bounded_http import BoundedHttp
from service.cli.agree import number
from service.cli.listening import open_port
from service.cli.output import OutputError
from service.cli.serving import cannot_listen, run_server
from service.cli.signing_keys import signing_keys_or_exit
from service.cli.start import give_up, settings_or_exit
from service.event import Unparseable, parse_event
from service.problem import printable
from service.request_body import read_body
from service.signature import Refused, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from service.event import Event
    from service.signature import SignatureKey

_LONGEST_NAME = 60
_PRIVATE = 0o600


def run_listen(*, host: str, port: int, full: bool, save: str | None, as_json: bool) -> None:
    """The command `listen`: until Ctrl-C."""
    settings = settings_or_exit()
    keys = signing_keys_or_exit(settings)
    directory = None if save is None else Path(save)
    try:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        give_up(f"--save {save}: {error.strerror}")

    def take(body: bytes, event: Event | Unparseable, age_seconds: float) -> None:
        if directory is not None:
            save_body(directory, event, body)
        try:
            click.echo(
                json.dumps(_facts(event, body, age_seconds, full=full))
                if as_json
                else _line(event, body, age_seconds, full=full)
            )
        except OutputError as error:
            lost.append(error)
            server.should_exit = True
            raise

    lost: list[OutputError] = []
    app = listening_app(keys, most_bytes=settings.max_body_bytes, clock=time.time, take=take)
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
    )
    server = uvicorn.Server(config)
    try:
        opened = open_port(host, port, spread=False)
    except OSError as error:
        cannot_listen(f"{host}:{port}", error)
    with opened:
        where = " and ".join(f"http://{name}/" for name in opened.names)
        known = number(len(keys), "key")
        click.echo(f"Listens at {where} on any path, with {known}. Ctrl-C ends it.", err=True)
        run_server(server, opened.sockets())
    if lost:
        raise lost[0]


def listening_app(
    keys: Sequence[SignatureKey],
    *,
    most_bytes: int,
    clock: Callable[[], float],
    take: Callable[[bytes, Event | Unparseable, float], None],
) -> Starlette:
    """Answers 200 to what is signed and 401 to the rest, at any path.

    Args:
        keys: that may have signed.
        most_bytes: a longer body is refused.
        clock: Unix seconds.
        take: gets each verified body, its event and the signature's age in seconds; where it raises an
            `OutputError`, the sender is told to come again.
    """

    async def receive(request: Request) -> Response:
        body = await read_body(request.receive, most=most_bytes)
        if body is None:
            return JSONResponse({"error": "too large"}, 413, headers={"connection": "close"})
        verdict = verify(
            headers=request.scope["headers"], body=body, keys=keys, now=clock(), max_age_seconds=None
        )
        if isinstance(verdict, Refused):
            click.echo(f"refused: {verdict.reason}", err=True)
            return JSONResponse({"error": verdict.reason}, 401)
        try:
            take(body, parse_event(body), verdict.age_seconds)
        except OutputError:
            return JSONResponse({"error": "the output cannot be written"}, 503)
        return JSONResponse({"status": "printed"})

    return Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])


def save_body(directory: Path, event: Event | Unparseable, body: bytes) -> Path:
    """Keep a body in a file of its own, or in that of the same event delivered before; where that is.

    Only the owner may read it: it may hold personal data.
    """
    path = (
        _free_path(directory) if isinstance(event, Unparseable) else directory / f"{file_name(event.id)}.json"
    )
    path.touch(mode=_PRIVATE)
    # one that was there already keeps its mode otherwise
    path.chmod(_PRIVATE)
    path.write_bytes(body)
    return path


def _free_path(directory: Path) -> Path:
    return next(
        path
        for path in (directory / f"unreadable-{number}.json" for number in itertools.count(1))
        if not path.exists()
    )


def file_name(event_id: str) -> str:
    """A name for an event's file, whatever its id is."""
    kept = "".join(char for char in event_id if char.isascii() and (char.isalnum() or char in "_-"))
    return kept[:_LONGEST_NAME] or "event"


def _facts(event: Event | Unparseable, body: bytes, age_seconds: float, *, full: bool) -> dict[str, Any]:
    if isinstance(event, Unparseable):
        return {"unreadable": event.reason, "bytes": len(body)}
    facts: dict[str, Any] = {
        "id": event.id,
        "type": f"{event.object_type}.{event.action}",
        "object_id": event.object_id,
        "lead_id": event.lead_id,
        "changed_fields": list(event.changed_fields),
        "age_seconds": round(age_seconds, 1),
    }
    return {**facts, "body": json.loads(body)} if full else facts


def _line(event: Event | Unparseable, body: bytes, age_seconds: float, *, full: bool) -> str:
    now = dt.datetime.now(dt.UTC)
    if isinstance(event, Unparseable):
        return f"{now:%H:%M:%S}  unreadable, {len(body)} bytes: {event.reason}"
    changed = f"  changed {', '.join(event.changed_fields)}" if event.changed_fields else ""
    line = (
        f"{now:%H:%M:%S}  {event.object_type}.{event.action}  {event.object_id}  {event.id}  "
        f"signed {age_seconds:.0f} s ago{changed}"
    )
    if not full:
        return printable(line)
    shown = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    return "\n".join([printable(line), *(printable(one) for one in shown.splitlines())])
