"""The command `health`: is the process that runs beside it well? For containers, without a shell or curl."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from service.settings import Settings

EXIT_UNWELL = 1
PATIENCE_SECONDS = 5.0
"""For Redis, so that the answer is there before a prober's ten seconds are over."""

OLDEST_BEAT_SECONDS = 50.0
"""A worker tells RQ every 15 s that it is alive; three such beats may get lost."""

_ROLE = re.compile(rb"(?:^|.*[/\0])close-enrich\0(web|worker)(?:\0.*)?", re.DOTALL)
_FIRST_PROCESS = "/proc/1/cmdline"
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  as read, never bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a process is.

    Attributes:
        role: `web` or `worker`.
        well: whether it works.
        found: what was found, in a sentence.
    """

    role: str
    well: bool
    found: str


@click.command()
@click.argument("role", required=False, type=click.Choice(["web", "worker"]))
@click.option(
    "--tolerate-redis",
    is_flag=True,
    help="A worker counts as well while Redis does not answer; for whoever restarts what is not.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def health(role: str | None, *, tolerate_redis: bool, as_json: bool) -> None:
    """Exit 0 if the web or worker of this machine is well, 1 if not. In a container it finds out which.

    Web is asked for /livez at PORT. A worker's heartbeat is looked up at REDIS_URL.

    Example: close-enrich health worker
    """
    from service.cli.start import EXIT_BAD_INPUT, give_up, read_settings_or_exit, settings_or_exit

    role = role or role_of_container()
    if role is None:
        give_up("say which: close-enrich health web, or close-enrich health worker", code=EXIT_BAD_INPUT)
    if role == "web":
        result = look_at_web(read_settings_or_exit())
    else:
        result = look_at_worker(settings_or_exit("REDIS_URL"), tolerate_redis=tolerate_redis)
    if as_json:
        from dataclasses import asdict

        from service.cli.printing import print_json

        print_json(asdict(result))
    else:
        click.echo(f"{result.role}: {result.found}")
    if not result.well:
        raise SystemExit(EXIT_UNWELL)


def role_of_container() -> str | None:
    """What this container runs; None where its first process is neither, or where there is no /proc."""
    from pathlib import Path

    try:
        return role_in(Path(_FIRST_PROCESS).read_bytes())
    except OSError:
        return None


def role_in(cmdline: bytes) -> str | None:
    """What a command line of Linux's `/proc` starts, perhaps by way of an init."""
    match = _ROLE.fullmatch(cmdline)
    return match[1].decode() if match else None


def look_at_web(settings: Settings) -> Health:
    """Ask the receiver of this machine whether it is alive."""
    from service.cli.processes import request_json

    host = settings.host if ":" not in settings.host else f"[{settings.host}]"
    url = f"http://{_ANY_ADDRESS.get(settings.host, host)}:{settings.port}/livez"
    try:
        request_json("GET", url)
    except (OSError, ValueError) as error:
        return Health(role="web", well=False, found=f"{url} does not answer ({type(error).__name__})")
    return Health(role="web", well=True, found=f"{url} answers")


def look_at_worker(settings: Settings, *, tolerate_redis: bool) -> Health:
    """Look up when a worker of this machine told RQ last that it is alive."""
    import asyncio
    import datetime as dt
    import socket

    from redis.exceptions import RedisError

    from service.cli.start import redis_url_or_exit

    url = redis_url_or_exit(settings)
    try:
        workers = asyncio.run(_registered_workers(url))
    except (RedisError, OSError) as error:
        found = f"cannot be told: Redis does not answer ({type(error).__name__})"
        return Health(role="worker", well=tolerate_redis, found=found)
    return judge_worker(workers, hostname=socket.gethostname(), now=dt.datetime.now(dt.UTC))


def judge_worker(workers: Iterable[Mapping[str, str]], *, hostname: str, now: dt.datetime) -> Health:
    """What workers' entries at RQ say about those of one machine.

    Args:
        workers: `hostname`, `last_heartbeat` as RQ writes it, and `death` of a worker that has ended.
        hostname: the machine's, in a container the container's own.
        now: in UTC, by the clock that heartbeats are written by.
    """
    from rq.utils import utcparse

    beats = [
        utcparse(one["last_heartbeat"])
        for one in workers
        if one.get("hostname") == hostname and one.get("last_heartbeat") and not one.get("death")
    ]
    if not beats:
        return Health(role="worker", well=False, found=f"none of {hostname} is registered")
    age_seconds = (now - max(beats)).total_seconds()
    return Health(
        role="worker", well=age_seconds <= OLDEST_BEAT_SECONDS, found=f"last heard {age_seconds:.0f} s ago"
    )


async def _registered_workers(url: str) -> list[dict[str, str]]:
    import asyncio

    from rq.worker_registration import REDIS_WORKER_KEYS

    from service.redis_client import redis_client
    from service.redis_text import text

    wanted = ("hostname", "last_heartbeat", "death")
    connection = redis_client(url, timeout_seconds=PATIENCE_SECONDS, connect_timeout_seconds=PATIENCE_SECONDS)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            names = await connection.smembers(REDIS_WORKER_KEYS)
            async with connection.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hmget(name, *wanted)
                rows = await pipeline.execute()
    finally:
        await connection.aclose()
    return [
        {name: text(value) for name, value in zip(wanted, row, strict=True) if value is not None}
        for row in rows
    ]
