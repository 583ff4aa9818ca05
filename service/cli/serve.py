"""`web`: the receiver, joined here with what it needs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import time
import uuid
from typing import TYPE_CHECKING

import uvicorn
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.accept import Accepter
from service.app import create_app
from service.cli.dashboard import has_dashboard
from service.cli.listening import open_port
from service.cli.serving import cannot_listen, run_server
from service.delivery_http import DeliveryHttp
from service.hangup import hangup_handler
from service.intake import PATIENCE_SECONDS, Intake
from service.keyring import Keyring
from service.ledger import Ledger
from service.log import get_logger
from service.meter import Meter
from service.metrics import Metrics
from service.metrics_route import metrics_route, scrapers
from service.redis_client import redis_client
from service.redis_health import HealthWatch
from service.schema_cache import SchemaCache
from service.since import note_since
from service.tasks import cancel_all
from service.tracing import start_tracing
from service.webhook import Webhook
from workers.alerter import make_alerter
from workers.budget import all_windows
from workers.close_client import close_api
from workers.learner import Learner, following, schema_fetcher

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette
    from structlog.typing import FilteringBoundLogger

    from service.cli.crew import Lifeline
    from service.dashboard.live import Live
    from service.rules import RuleBook
    from service.settings import Settings

REDIS_TIMEOUT_SECONDS = 0.9
"""A delivery is answered 503 within about a second of Redis going away; Close delivers it again."""

START_PATIENCE_SECONDS = 2.0
"""How long listening waits for Close's fields; what comes in before they are known is planned later."""

GRACEFUL_SECONDS = 10


def build_app(
    settings: Settings, rulebook: RuleBook, *, follow: bool = False, form_key: bytes | None = None
) -> Starlette:
    """The receiver with everything it works with.

    Args:
        settings: with `REDIS_URL`, and `CLOSE_SIGNATURE_KEYS` or `PUBLIC_URL`. Without `CLOSE_API_KEY` it
            leaves reading Close's fields to the workers.
        rulebook: the rules.
        follow: whether to follow the rules file, and to look at it at once on SIGHUP. For the main thread.
        form_key: see `service.dashboard.access.Access`.

    Raises:
        ValueError: a setting it cannot do without is missing.
    """
    if settings.redis_url is None or not (settings.signature_keys or settings.public_url):
        raise ValueError("REDIS_URL, and CLOSE_SIGNATURE_KEYS or PUBLIC_URL, must be set")
    log = get_logger("web")
    connection = redis_client(
        settings.redis_url.reveal(),
        # one retry, at once: a connection that Redis closed while it was idle is replaced unnoticed
        retry=Retry(NoBackoff(), 1),
        timeout_seconds=REDIS_TIMEOUT_SECONDS,
        connect_timeout_seconds=REDIS_TIMEOUT_SECONDS,
    )
    api = None if settings.close_api_key is None else close_api(settings)
    fetch = None if api is None else schema_fetcher(api)
    learner = Learner(SchemaCache(connection, fetch=fetch, log=log), rulebook, log=log)
    keyring = Keyring(connection, fixed=settings.signature_keys, clock=time.monotonic, log=log)
    meter = Meter(connection, clock=time.time, log=log)
    tracing = start_tracing(settings.tracing)
    intake = Intake(
        redis=connection,
        accepter=Accepter(
            connection,
            zone=settings.budget_timezone,
            wait_replicas=settings.redis_wait_replicas,
            meter=meter,
            tracing=tracing,
            patience_seconds=PATIENCE_SECONDS,
        ),
        knowledge=learner.current,
        signature_keys=keyring.current,
        look_for_keys=keyring.look,
        signature_max_age_seconds=settings.signature_max_age_seconds,
        own_api_key_id=settings.close_api_key_id,
        clock=time.time,
        log=log,
        meter=meter,
        timer=time.perf_counter,
        wait_replicas=settings.redis_wait_replicas,
        tracing=tracing,
    )
    health = HealthWatch(connection, log=log)
    metrics = Metrics(
        Ledger(connection),
        knowledge=learner.current,
        windows=lambda rulebook, now_ms: all_windows(rulebook, now_ms=now_ms, zone=settings.budget_timezone),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    alerter = make_alerter(
        settings,
        Ledger(connection),
        rulebook=lambda: learner.current().rulebook,
        owner=f"web-{uuid.uuid4().hex}",
        log=get_logger("alerts"),
    )

    site = None
    if has_dashboard(settings):
        from service.cli.site import make_site

        site = make_site(
            settings,
            connection,
            knowledge=learner.current,
            redis_problems=health.problems,
            keyed=lambda: intake.keyed,
            form_key=form_key,
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with contextlib.suppress(RedisError, OSError):
            # else the first event to come makes the note, and waits as if Redis had lost what it knew
            await note_since(connection)
        first_look = asyncio.create_task(learner.learn(), name="first look at Close's fields")
        await asyncio.wait({first_look}, timeout=START_PATIENCE_SECONDS)
        beside = [
            first_look,
            asyncio.create_task(learner.run(), name="looking at Close's fields"),
            asyncio.create_task(keyring.run(), name="looking for signature keys"),
            asyncio.create_task(intake.work_off_backlog(learner.learn), name="working off the backlog"),
            asyncio.create_task(alerter.run(), name="looking for what deserves an alert"),
            asyncio.create_task(health.run(), name="looking at Redis's health"),
            asyncio.create_task(meter.run(), name="adding up metrics"),
        ]
        if follow:
            reload, publisher = following(settings, rulebook, learner, redis=connection, role="web")
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup_handler(reload.soon))
            beside += [
                asyncio.create_task(reload.run(), name="following the rules file"),
                asyncio.create_task(publisher.run(), name="telling which rules are in force"),
            ]
        for task in beside:
            task.add_done_callback(functools.partial(_report_loss, log))
        try:
            yield
        finally:
            await cancel_all(beside)
            if api is not None:
                await api.aclose()
            await connection.aclose()
            await tracing.aclose()

    may_scrape = scrapers(metrics_token=settings.metrics_token, admin_token=settings.admin_token)
    webhook = Webhook(intake, max_body_bytes=settings.max_body_bytes)
    app = create_app(
        webhook=webhook,
        keyed=lambda: intake.keyed,
        ledger=Ledger(connection),
        knowledge=learner.current,
        knows_us=may_scrape,
        redis_problems=health.problems,
        more_routes=[
            metrics_route(metrics, may=may_scrape),
            *(() if site is None else site.routes()),
        ],
        unknown=None if site is None else site.unknown,
        lifespan=lifespan,
    )
    app.state.webhook = webhook
    app.state.streams = None if site is None else site.live
    return app


def _report_loss(log: FilteringBoundLogger, task: asyncio.Task[None]) -> None:
    """Say that something the receiver needs has ended, which only a mistake of ours can do."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.critical("lost a background task", task=task.get_name(), exc_info=error)


class _Server(uvicorn.Server):
    """uvicorn, which waits for answers that are under way: streams would not end by themselves."""

    streams: Live | None = None
    lifeline: Lifeline | None = None

    async def main_loop(self) -> None:
        """Serve until told to stop; called by uvicorn once it listens."""
        held = [] if self.lifeline is None else [asyncio.create_task(self.lifeline.hold(lost=self._leave))]
        try:
            await super().main_loop()
        finally:
            await cancel_all(held)

    def _leave(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; called by uvicorn once it is told to."""
        if self.streams is not None:
            await self.streams.close()
        await super().shutdown(sockets)


def web_server(
    settings: Settings,
    rulebook: RuleBook,
    *,
    follow: bool = False,
    form_key: bytes | None = None,
    lifeline: Lifeline | None = None,
) -> uvicorn.Server:
    """The receiver behind uvicorn, ready to run; see `build_app`. It ends when it loses the lifeline."""
    app = build_app(settings, rulebook, follow=follow, form_key=form_key)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=functools.partial(DeliveryHttp, webhook=app.state.webhook),  # type: ignore[arg-type]  # called as a class
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    # for pages alone: deliveries do not depend on who passed them on
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=config.forwarded_allow_ips)
    server = _Server(config)
    server.streams = app.state.streams
    server.lifeline = lifeline
    return server


def serve_web(settings: Settings, rulebook: RuleBook) -> None:
    """Run the receiver until it is told to stop; it follows the rules file.

    Raises:
        SystemExit: it could not start.
    """
    try:
        # uvicorn would find out only after all else has started, and say so in a line of the log
        open_port(settings.host, settings.port).close()
    except OSError as error:
        cannot_listen(f"HOST {settings.host}, PORT {settings.port}", error)
    run_server(web_server(settings, rulebook, follow=True))
