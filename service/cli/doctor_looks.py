"""What `doctor` looks at: all at once, each look within its time, and none of them raises.

What is seen is judged in `service.doctor`, `service.doctor_address` and `workers.doctor`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rq.utils import utcparse

from service import keys
from service.cli.doctor_bounded import NotLookedError, bounded
from service.cli.doctor_close import OF_CLOSE, OF_KEY, look_at_close
from service.cli.doctor_delivery import try_address
from service.doctor import (
    Finding,
    State,
    WorkerSeen,
    in_force_finding,
    pace_finding,
    redis_finding,
    rules_file_finding,
    settings_finding,
    work_findings,
    workers_finding,
)
from service.doctor_address import ADDRESS
from service.keyring import Keyring, known_keys
from service.ledger import Ledger
from service.log import get_logger
from service.readiness import alive_workers
from service.redis_client import redis_client
from service.redis_health import redis_health
from service.redis_text import text
from service.rules import RuleBook
from service.rules_file import LoadedRules, load_rules
from service.rules_in_force import disagreement, file_problem, rules_in_force
from workers.alert_facts import Lookout
from workers.close_client import close_api, key_name
from workers.doctor import (
    key_known_finding,
)
from workers.tools import ENRICH_GROUP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from service.settings import Settings
    from service.signature import SignatureKey
    from workers.close_api import CloseApi

REDIS_SECONDS = 4.0

_OF_WORK = ("halt", "waiting work", "budgets", "burst guard", "timeouts", "dead letters", "quarantine")
ORDER = (
    *("settings", *OF_KEY, "Redis", "rules file", "fields", "rules in force"),
    *("subscription", "signature key", ADDRESS, "signature", "workers", *_OF_WORK, "pace"),
)
"""The checks as they are read."""


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; one finding for each check."""
    loaded = await asyncio.to_thread(_load, settings)
    async with contextlib.AsyncExitStack() as stack:
        redis: Redis | None = None
        if settings.redis_url is not None:
            redis = redis_client(
                settings.redis_url.reveal(),
                timeout_seconds=REDIS_SECONDS,
                connect_timeout_seconds=REDIS_SECONDS,
            )
            stack.push_async_callback(redis.aclose)
        api: CloseApi | str = ""
        if settings.close_api_key is not None:
            try:
                api = close_api(settings)
                stack.push_async_callback(api.aclose)
            except ValueError as error:
                api = str(error)
        rulebook = None if isinstance(loaded, str) else loaded.rulebook
        looks = _Looks(settings, rulebook=rulebook, redis=redis, api=api)
        found = await asyncio.gather(
            bounded(looks.close, *OF_CLOSE),
            bounded(looks.health, "Redis"),
            bounded(looks.in_force, "rules in force"),
            bounded(looks.key_known, "signature key"),
            bounded(looks.address, ADDRESS),
            bounded(looks.workers, "workers"),
            bounded(looks.work, *_OF_WORK),
            bounded(looks.pace, "pace"),
        )
    findings = [settings_finding(settings.warnings), rules_file_finding(loaded)]
    findings += [one for several in found for one in several]
    return sorted(findings, key=lambda one: ORDER.index(one.check))


class _Looks:
    """The looks, with what they share.

    Args:
        settings: of the command.
        rulebook: the rules of the file here; None where it cannot be used.
        redis: None where it is not set.
        api: Close; or why there is none, "" where no key is set.
    """

    def __init__(
        self, settings: Settings, *, rulebook: RuleBook | None, redis: Redis | None, api: CloseApi | str
    ) -> None:
        self._settings = settings
        self._rulebook = rulebook
        self._maybe_redis = redis
        self._api = api

    @property
    def _redis(self) -> Redis:
        if self._maybe_redis is None:
            raise NotLookedError("REDIS_URL is not set")
        return self._maybe_redis

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self._redis, zone=self._settings.budget_timezone)

    async def close(self) -> list[Finding]:
        """What Close says."""
        return await look_at_close(
            self._api, settings=self._settings, rulebook=self._rulebook, redis=self._maybe_redis
        )

    async def health(self) -> list[Finding]:
        """Redis itself; that it is away is a problem here and nowhere else."""
        if self._maybe_redis is None:
            fix = "set REDIS_URL; close-enrich up prints that of its own Redis"
            return [Finding(check="Redis", state=State.PROBLEM, finding="REDIS_URL is not set", fix=fix)]
        try:
            seen = await redis_health(self._maybe_redis)
        except (RedisError, OSError) as error:
            words = f"does not answer at REDIS_URL ({type(error).__name__})"
            fix = "start it, or correct REDIS_URL; user and password are part of it"
            return [Finding(check="Redis", state=State.PROBLEM, finding=words, fix=fix)]
        return [
            redis_finding(
                name=seen.server_name,
                version=seen.version,
                problems=seen.problems,
                notes=seen.notes,
                readable=seen.readable,
            )
        ]

    async def in_force(self) -> list[Finding]:
        """Which rules the running processes work by."""
        said = await rules_in_force(self._redis)
        return [
            in_force_finding(
                processes=len(said),
                problem=file_problem(said),
                difference=disagreement(said),
                digests=[one.digest for one in said],
                here=None if self._rulebook is None else self._rulebook.digest,
            )
        ]

    async def key_known(self) -> list[Finding]:
        """Whether any signature key is known."""
        named = len(self._settings.signature_keys)
        learned = 0
        try:
            learned = 0 if self._maybe_redis is None else len(await known_keys(self._maybe_redis))
        except (RedisError, OSError):
            if not named:
                raise
        return [key_known_finding(learned=learned, named=named)]

    async def workers(self) -> list[Finding]:
        """Who works."""
        names = await alive_workers(self._ledger)
        seconds, microseconds = await self._redis.time()
        now_seconds = int(seconds) + int(microseconds) / 1_000_000
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hmget(f"rq:worker:{name}", "hostname", "last_heartbeat")
            rows = await pipeline.execute() if names else []
        return [
            workers_finding(
                [
                    WorkerSeen(
                        name=name,
                        host=text(host or b""),
                        silent_seconds=_seconds_since(heartbeat, now_seconds),
                    )
                    for name, (host, heartbeat) in zip(names, rows, strict=True)
                ]
            )
        ]

    async def work(self) -> list[Finding]:
        """What keeps work from being done, and what waits for a person."""
        book = self._rulebook or RuleBook()
        lookout = Lookout(self._ledger, rulebook=lambda: book, zone=self._settings.budget_timezone)
        return work_findings(await lookout.look())

    async def pace(self) -> list[Finding]:
        """How fast Close lets us call."""
        limiter = keys.limiter(key_name(self._settings), ENRICH_GROUP)
        rate, limit = await self._redis.hmget(limiter, ["rate", "limit"])
        parked_ms = int(await self._redis.pttl(keys.park(ENRICH_GROUP)))
        return [
            pace_finding(
                rate_per_second=None if rate is None else float(rate),
                limit=None if limit is None else float(limit),
                parked_seconds=max(0, parked_ms) / 1000,
            )
        ]

    # the receiver

    async def address(self) -> list[Finding]:
        """Whether deliveries reach it."""
        url = self._settings.public_url
        if url is None:
            raise NotLookedError("PUBLIC_URL is not set")
        return await try_address(url, await self._signature_keys())

    async def _signature_keys(self) -> Sequence[SignatureKey]:
        fixed = self._settings.signature_keys
        if self._maybe_redis is None:
            return fixed
        keyring = Keyring(self._maybe_redis, fixed=fixed, clock=time.monotonic, log=get_logger("doctor"))
        await keyring.look()
        return keyring.current()


def _seconds_since(heartbeat: bytes | None, now_seconds: float) -> float | None:
    """How long ago RQ was told; None for what is no moment of RQ's."""
    try:
        return None if heartbeat is None else now_seconds - utcparse(heartbeat.decode()).timestamp()
    except ValueError:
        return None


def _load(settings: Settings) -> LoadedRules | str:
    """The rules file, or why it cannot be read."""
    path = settings.rules_file
    try:
        return load_rules(path.read_bytes(), source=str(path))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
