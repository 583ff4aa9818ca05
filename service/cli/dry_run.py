"""The command `rules plan`: walk Close's event log, and count what rules would have done."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rich.console import Console

from service import keys
from service.brakes import Brakes
from service.cli.close_fields import EXIT_FAILED, fields_or_exit
from service.cli.dry_report import PlanReport, described, show_plan
from service.cli.printing import print_json
from service.cli.since import since_or_exit
from service.cli.start import give_up, rules_or_exit, settings_or_exit
from service.embedded_redis import EmbeddedRedis, NoServerError
from service.knowledge import Knowledge
from service.redis_client import redis_client
from workers.close_client import close_api, key_name
from workers.dry_tally import Tally, budgets_of, days_between, month_of
from workers.dry_walk import walk_log
from workers.log_reader import LogReader
from workers.log_walk import HISTORY, pairs_of
from workers.throttle import Ceiling, Throttle
from workers.tools import READ_GROUP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from service.rules import ObjectType, RuleBook
    from service.schema import Schema
    from service.settings import Settings
    from workers.log_walk import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked: rules, older ones to compare with or None, and the time to look at."""

    rulebook: RuleBook
    old: RuleBook | None
    since: dt.datetime
    until: dt.datetime
    zone: dt.tzinfo


def run_plan(
    *, since: str, rules_file: Path | None, old_file: Path | None, limit: int, as_json: bool
) -> None:
    """The command `rules plan`. Exits 1 where the log could not be walked to its end, 2 for a wrong input.

    Args:
        since: where the walk ends, as people write it.
        rules_file: the rules; those of `RULES_FILE` when None.
        old_file: rules to compare with, or None.
        limit: how many records that only one of the two would enrich are shown.
        as_json: print JSON.
    """
    settings = settings_or_exit("CLOSE_API_KEY")
    now = dt.datetime.now(dt.UTC)
    zone = settings.budget_timezone
    moment = since_or_exit(since, now=now, zone=zone)
    if not now - HISTORY <= moment < now:
        give_up(f"--since {since}: Close's event log goes back {HISTORY.days}d, and not into the future")
    question = _Question(
        rulebook=rules_or_exit(rules_file or settings.rules_file, typed=rules_file is not None),
        old=None if old_file is None else rules_or_exit(old_file, typed=True),
        since=moment,
        until=now,
        zone=zone,
    )
    with _redis_url(settings) as url:
        try:
            report = asyncio.run(_looked_back(settings, url, question))
        except (RedisError, OSError) as error:
            give_up(f"Redis does not answer at REDIS_URL ({type(error).__name__})", code=EXIT_FAILED)
        except ValueError as error:
            give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")
    if as_json:
        print_json(described(report, limit=limit))
    else:
        show_plan(report, limit=limit, zone=zone)
    if not report.complete:
        sys.exit(EXIT_FAILED)


@contextlib.contextmanager
def _redis_url(settings: Settings) -> Iterator[str]:
    """Where the limiter is: the workers' Redis, or one that lasts as long as the command."""
    if settings.redis_url is not None:
        yield settings.redis_url.reveal()
        return
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="enrich-plan-"))
            server = stack.enter_context(EmbeddedRedis(Path(directory)))
        except NoServerError as error:
            give_up(f"{error}. The log is read at the pace that a limiter in Redis keeps.")
        yield server.url


async def _looked_back(settings: Settings, url: str, question: _Question) -> PlanReport:
    async with _reading(settings, url) as (reader, schemas):
        knowledge = Knowledge.of(question.rulebook, schemas)
        old = None if question.old is None else Knowledge.of(question.old, schemas)
        known = [one for one in (knowledge, old) if one is not None]
        tallies = [Tally(one, own_api_key_id=settings.close_api_key_id, zone=question.zone) for one in known]
        rules = [rule for one in known for rule in one.rulebook.enabled]
        with _progress() as told:
            walked = await walk_log(reader, pairs_of(rules), tallies, since=question.since, told=told)
    forecasts = [tally.forecast() for tally in tallies]
    seconds = (question.until - question.since).total_seconds()
    days = days_between(question.since, question.until, question.zone)
    return PlanReport(
        since=question.since,
        until=question.until,
        days=days,
        forecast=forecasts[0],
        old=forecasts[1] if old is not None else None,
        month=month_of(forecasts[0].credits_at_most, seconds=seconds),
        budgets=budgets_of(knowledge, forecasts[0], days=days, seconds=seconds),
        settling=any(rule.when is not None and rule.settle_seconds > 0 for rule in rules),
        walked=tuple(walked),
    )


@contextlib.asynccontextmanager
async def _reading(
    settings: Settings, url: str
) -> AsyncIterator[tuple[LogReader, Mapping[ObjectType, Schema]]]:
    """What reads the log behind all live work, and Close's custom fields."""
    connection = redis_client(url)
    api = close_api(settings)
    try:
        limiter = keys.limiter(key_name(settings), READ_GROUP)
        reader = LogReader(
            api,
            pace=Throttle(connection, limiter=limiter, group=READ_GROUP, ceiling=Ceiling()),
            brakes=Brakes(connection),
            random=random.SystemRandom(),
            pause=asyncio.sleep,
        )
        yield reader, await fields_or_exit(api)
    finally:
        await api.aclose()
        await connection.aclose()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Pair, int, str], None]]:
    """Tells how far the walk has come, where somebody looks at a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _pair, _events, _back_to: None
        return
    with console.status("Reading Close's event log") as status:

        def told(pair: Pair, events: int, back_to: str) -> None:
            back = f", back to {back_to[:16].replace('T', ' ')}" if back_to else ""
            status.update(f"Reading Close's event log: {pair}, {events} events{back}")

        yield told
