"""What a process knows, kept current: Close's custom fields from the cache, the rules from their file."""

from __future__ import annotations

import asyncio
import contextlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service.knowledge import Knowledge
from service.log import get_logger
from service.rules_in_force import Publisher
from service.rules_reload import RulesReload
from workers.reply import Reply

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from structlog.typing import FilteringBoundLogger

    from service.rules import ObjectType, RuleBook
    from service.schema_cache import FetchSchema, SchemaCache
    from service.settings import Settings
    from workers.close_api import CloseApi

LEARN_EVERY_SECONDS = 20.0
IGNORANT_EVERY_SECONDS = 1.0
"""How often to look while something is not known that work waits for."""

START_PATIENCE_SECONDS = 2.0
START_EVERY_SECONDS = 0.1


def schema_fetcher(api: CloseApi) -> FetchSchema:
    """Ask Close for schemas; what is not a usable answer is None, and the cache asks again later."""

    async def fetch(object_type: ObjectType) -> bytes | None:
        result = await api.get_schema(object_type=object_type)
        return result.body if isinstance(result, Reply) and result.status == HTTPStatus.OK else None

    return fetch


class Learner:
    """Keeps the process's knowledge current: asks the schema cache every few seconds."""

    def __init__(self, cache: SchemaCache, rulebook: RuleBook, *, log: FilteringBoundLogger) -> None:
        self._cache = cache
        self._knowledge = Knowledge.of(rulebook, {})
        self._log = log
        self._told: frozenset[str] = frozenset()

    def current(self) -> Knowledge:
        """What is known now."""
        return self._knowledge

    async def learn(self) -> None:
        """Look once; while Redis is away, what is known stays."""
        with contextlib.suppress(RedisError):
            schemas = await self._cache.load()
            known = self._knowledge
            # what was known once stays known, though Redis may have lost it and Close be away
            self._knowledge = Knowledge.of(known.rulebook, {**known.schemas, **schemas})
            self._tell()

    async def learn_at_start(self, *, patience_seconds: float = START_PATIENCE_SECONDS) -> None:
        """Look until all is known, but not for long: another process may be asking Close just now.

        A look that has begun is not cut short, as it may be the one that others wait for.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + patience_seconds
        await self.learn()
        while not self._knowledge.complete and clock() < until:
            await asyncio.sleep(START_EVERY_SECONDS)
            await self.learn()

    def adopt(self, rulebook: RuleBook) -> None:
        """Work by these rules from now on; what is in hand ends by those that it began with."""
        self._knowledge = Knowledge.of(rulebook, self._knowledge.schemas)
        self._tell()

    def _tell(self) -> None:
        """Log what is wrong with the rules' fields, each thing once until it changes."""
        bindings = self._knowledge.bindings
        cannot = {f"rule {one.rule.name} cannot run: {one.problem}" for one in bindings.unbound}
        problems = frozenset(cannot | set(bindings.warnings)) if self._knowledge.complete else frozenset()
        for problem in sorted(problems - self._told):
            self._log.warning("rules need attention", problem=problem)
        self._told = problems

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(LEARN_EVERY_SECONDS if self._knowledge.complete else IGNORANT_EVERY_SECONDS)
            await self.learn()


def following(
    settings: Settings, rulebook: RuleBook, learner: Learner, *, redis: Redis, role: str
) -> tuple[RulesReload, Publisher]:
    """What follows the rules file while a process runs, and what tells the others of it.

    Args:
        settings: for the file.
        rulebook: the rules that the process has started with.
        learner: put right by each new version.
        redis: where other processes see which rules this one runs.
        role: `web` or `worker`.
    """
    reload = RulesReload(
        settings.rules_file,
        rulebook,
        adopt=learner.adopt,
        now_ms=lambda: time.time_ns() // 1_000_000,
        log=get_logger("rules"),
    )
    return reload, Publisher(redis, role=role, state=reload.state)
