"""`backfill` from the search to the last enrichment: gather, price, ask, plan, watch."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import string
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
from redis.exceptions import RedisError

from service import keys
from service.accept import Accepter, StoreUnavailableError
from service.cli.agree import agree_or_exit
from service.cli.backfill_order import order_or_exit
from service.cli.backfill_price import described, price_lines, price_table, read_price
from service.cli.backfill_view import View, ended_lines, hindrance
from service.cli.connection import connected
from service.cli.printing import print_json, report_console
from service.cli.start import give_up, rules_or_exit, settings_or_exit
from service.overview import moment
from service.readiness import alive_workers
from workers.backfill import Backfill, Stopped
from workers.backfill_run import RunStore, Stage
from workers.backfill_watch import Watch, with_progress
from workers.close_client import key_name
from workers.patient import PatientReader
from workers.runtime import open_tools
from workers.throttle import Ceiling, Throttle
from workers.tools import SEARCH_GROUP

if TYPE_CHECKING:
    from service.cli.backfill_order import Wish
    from service.cli.backfill_price import Price
    from service.rules import RuleBook
    from service.settings import Settings
    from workers.backfill_order import Order
    from workers.backfill_run import Known, Run
    from workers.tools import Tools

EXIT_FAILED = 1
LOOK_EVERY_SECONDS = 1.0
STUCK_SECONDS = 10.0
"""After so long without an end, somebody wants to hear why."""

_TOKEN_LETTERS = string.ascii_lowercase + string.digits
_TOKEN_LENGTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the command is to behave."""

    dry_run: bool
    yes: bool
    detach: bool
    as_json: bool


def run_backfill(wish: Wish, manner: Manner) -> None:
    """The command `backfill`. Exits 1 where it could not be done or was cancelled, 2 for a wrong input."""
    settings = settings_or_exit("REDIS_URL", "CLOSE_API_KEY")
    rulebook = rules_or_exit(settings.rules_file)
    # a worker waits for its Redis; a person wants to hear at once that it is away
    connected(settings, lambda ledger: ledger.redis.ping())
    view = View(quiet=manner.as_json)
    try:
        asyncio.run(_run(settings, rulebook, wish, manner, view))
    except (RedisError, StoreUnavailableError, OSError) as error:
        give_up(
            f"Redis does not answer at REDIS_URL ({type(error).__name__}); "
            "the same command goes on where it was",
            code=EXIT_FAILED,
        )
    except ValueError as error:
        give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")
    except KeyboardInterrupt:
        _stopped(view.run)


def _stopped(run: Run | None) -> None:
    """Say what becomes of a backfill that nobody watches any more, and end the command."""
    if run is None or not run.stage.agreed:
        give_up("Stopped. The same command goes on where it was, within an hour.", code=EXIT_FAILED)
    if run.stage is Stage.PLANNING:
        give_up("Stopped before all was planned. The same command plans the rest.", code=EXIT_FAILED)
    click.echo(
        f"The workers go on with backfill {run.id}. Watch it again with the same command; "
        f"end it with: close-enrich backfill --cancel {run.id}",
        err=True,
    )


async def _run(settings: Settings, rulebook: RuleBook, wish: Wish, manner: Manner, view: View) -> None:
    async with open_tools(settings, rulebook, worker="backfill") as (tools, _):
        knowledge = tools.knowledge()
        if not knowledge.complete:
            give_up(
                "Close's custom fields are not known: it does not answer, or refuses CLOSE_API_KEY",
                code=EXIT_FAILED,
            )
        now = dt.datetime.fromtimestamp(tools.now_ms() / 1000, dt.UTC)
        order = order_or_exit(wish, knowledge, now=now, zone=settings.budget_timezone)
        store = RunStore(tools.ledger.redis)
        backfill = _make(settings, tools, order, store, view)
        known = await backfill.take_up(now_ms=tools.now_ms(), token=_token())
        view.run = known.run
        if not manner.as_json:
            _say_if_resumed(known)
        with view:
            gathered = await backfill.gather(known)
        if isinstance(gathered, Stopped):
            give_up(
                f"Close's search could not be walked to its end: {gathered.reason}. "
                "The same command goes on where it was.",
                code=EXIT_FAILED,
            )
        price = await read_price(gathered.run, tools.ledger.redis, settings, knowledge, now_ms=tools.now_ms())
        if not manner.as_json:
            _show_price(gathered.run, price)
        if manner.dry_run:
            _end_dry_run(gathered.run, price, manner)
            return
        known = await _agreed(backfill, store, gathered, price, manner)
        with view:
            known = await backfill.plan(known)
            if known.run.stage is Stage.WORKING and not manner.detach:
                known = await _watch(store, tools, known, view)
        _conclude(known.run, price, manner)


def _make(settings: Settings, tools: Tools, order: Order, store: RunStore, view: View) -> Backfill:
    connection = tools.ledger.redis
    limiter = keys.limiter(key_name(settings), SEARCH_GROUP)
    return Backfill(
        order,
        knowledge=tools.knowledge(),
        api=tools.api,
        reader=PatientReader(
            pace=Throttle(connection, limiter=limiter, group=SEARCH_GROUP, ceiling=Ceiling()),
            group=SEARCH_GROUP,
            brakes=tools.ledger.brakes,
            random=tools.random,
            pause=asyncio.sleep,
        ),
        ledger=tools.ledger,
        accepter=Accepter(
            connection, zone=tools.zone, wait_replicas=settings.redis_wait_replicas, meter=tools.meter
        ),
        store=store,
        told=view.step,
    )


def _token() -> str:
    return "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(_TOKEN_LENGTH))


def _say_if_resumed(known: Known) -> None:
    run = known.run
    if known.revision > 1:
        click.echo(f"Goes on with backfill {run.id}, begun {moment(run.started_ms)} UTC.", err=True)


def _show_price(run: Run, price: Price) -> None:
    report_console().print(price_table(run))
    for line in price_lines(run, price):
        click.echo(line)


def _end_dry_run(run: Run, price: Price, manner: Manner) -> None:
    if manner.as_json:
        print_json({**described(run, price), "dry_run": True})
    elif run.stage.agreed:
        click.echo("It is under way already; nothing was changed.")
    else:
        click.echo("Nothing was planned. Without --dry-run it asks, and begins.")


async def _agreed(backfill: Backfill, store: RunStore, known: Known, price: Price, manner: Manner) -> Known:
    """The run once somebody has agreed to its price; one without anything to do has ended."""
    if known.run.stage is not Stage.PRICED:
        return known
    if not known.run.total.wanted:
        after = replace(known.run, stage=Stage.ENDED)
        return await store.step(known, after, forget=True) or await store.as_it_is(known)
    if not manner.yes:
        count = price.credits_at_most
        agree_or_exit(
            f"Enrich {count:,}, for at most {count:,} credit{'' if count == 1 else 's'}?",
            otherwise="add --yes to go ahead, or --dry-run to look",
        )
    return await backfill.agree(known)


async def _watch(store: RunStore, tools: Tools, known: Known, view: View) -> Known:
    """Watch until every enrichment has ended, or somebody cancels the backfill."""
    view.run = known.run
    redis = tools.ledger.redis
    watch = await Watch.of(store, known.run, redis)
    done, moved_at = -1, time.monotonic()
    while True:
        began = time.monotonic()
        progress = await watch.look()
        view.watch(progress)
        if progress.done > done:
            done, moved_at = progress.done, began
        if progress.over:
            after = with_progress(replace(known.run, stage=Stage.ENDED), progress)
            return await store.step(known, after, forget=True) or await store.as_it_is(known)
        view.notice(
            hindrance(
                halt=await tools.ledger.brakes.halted(),
                workers=await alive_workers(tools.ledger),
                progress=progress,
                stuck=began - moved_at > STUCK_SECONDS,
            )
        )
        known = await store.as_it_is(known)
        if known.run.stage.over:
            return known
        # looking takes no more than a tenth of Redis's time
        await asyncio.sleep(max(LOOK_EVERY_SECONDS, 9 * (time.monotonic() - began)))


def _conclude(run: Run, price: Price, manner: Manner) -> None:
    if manner.as_json:
        print_json({**described(run, price), "dry_run": False})
    elif run.stage is Stage.ENDED and not run.total.wanted:
        click.echo("There is nothing to enrich.")
    elif run.stage is Stage.ENDED:
        for line in ended_lines(run):
            click.echo(line)
    elif run.stage is Stage.WORKING:
        click.echo(
            f"Planned {run.total.wanted:,}. Watch with the same command without --detach, "
            "or: close-enrich backfill --status"
        )
    if run.stage is Stage.CANCELLED:
        click.echo(f"Backfill {run.id} was cancelled.", err=True)
        sys.exit(EXIT_FAILED)
