"""The command `demo`: a pretend Close, the real service, and a live view of new leads being filled."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import os
import shutil
import signal
import tempfile
import threading
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from service.cli.agree import noun, number
from service.cli.newest import newest_table, read_newest
from service.cli.prices import cost_line
from service.cli.printing import report_console
from service.cli.processes import ChildEndedError, Children, free_port, request_json
from service.cli.report import states_table
from service.cli.start import give_up
from service.costs import read_costs
from service.embedded_redis import EmbeddedRedis, NoServerError
from service.enrichment import ACTIVE_STATES
from service.ledger import Ledger
from service.overview import read_status
from service.redis_client import redis_client
from service.sandbox.options import DEMO_API_KEY
from service.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

REFRESH_SECONDS = 0.25
PLAIN_EVERY = 8
NEWEST = 12
ENDLESS_LEADS = 100_000
LATENCY_SECONDS = "1.5"
CALLS_PER_SECOND = "20"


@dataclass(slots=True)
class Demo:
    """Where the parts of a running demo are."""

    directory: Path
    redis_url: str
    sandbox_url: str
    web_url: str
    children: Children
    stopping: threading.Event


def run_demo(*, leads: int | None, per_second: float, once: bool, port: int) -> None:
    """Run the demo until Ctrl-C, or with `once` until all leads have ended.

    Exits 1 where a part fails, 2 where no Redis server can be had.
    """
    stopping = threading.Event()
    # only noted, and seen between two steps: an interrupt at any moment would leave parts behind
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: stopping.set())
    directory = Path(tempfile.mkdtemp(prefix="close-enrich-demo-"))
    children = Children(log_dir=directory)
    try:
        with EmbeddedRedis(directory) as server:
            try:
                demo = _start(directory, server.url, children, port, stopping)
                all_ended = asyncio.run(_watch(demo, leads=leads, per_second=per_second, once=once))
            finally:
                children.stop()
    except NoServerError as error:
        give_up(str(error))
    except ChildEndedError as error:
        give_up(f"the demo ended: {error}", code=1)
    shutil.rmtree(directory, ignore_errors=True)
    if not all_ended:
        give_up("the demo was stopped before every lead had ended", code=1)


def _start(directory: Path, redis_url: str, children: Children, port: int, stopping: threading.Event) -> Demo:
    sandbox_port, web_port = free_port(), port or free_port()
    sandbox_url, web_url = f"http://127.0.0.1:{sandbox_port}", f"http://127.0.0.1:{web_port}"
    rules_file = directory / "rules.yaml"
    rules_file.write_text((files("service.sandbox") / "demo_rules.yaml").read_text(encoding="utf-8"))
    environ = {
        **{name: value for name, value in os.environ.items() if not _misleads(name)},
        "CLOSE_API_KEY": DEMO_API_KEY,
        "CLOSE_API_URL": f"{sandbox_url}/api/v1",
        "REDIS_URL": redis_url,
        "RULES_FILE": str(rules_file),
        "HOST": "127.0.0.1",
        "PORT": str(web_port),
        "DASHBOARD": "open",
        "LOG_FORMAT": "json",
    }
    children.start(
        "sandbox",
        *("sandbox", "--port", str(sandbox_port), "--latency", LATENCY_SECONDS, "--rate", CALLS_PER_SECOND),
        environ=environ,
    )
    children.wait_for("sandbox", f"{sandbox_url}/_sandbox/stats")
    environ["CLOSE_SIGNATURE_KEYS"] = _subscribe(sandbox_url, f"{web_url}/webhooks/close")
    children.start("web", "web", environ=environ)
    children.start("worker", "worker", environ=environ)
    children.wait_for("web", f"{web_url}/livez")
    return Demo(directory, redis_url, sandbox_url, web_url, children, stopping)


def _misleads(name: str) -> bool:
    """Whether a variable sets up the real service, or a proxy: all of the demo is on this machine."""
    is_setting = name in SETTINGS or name.removesuffix("_FILE") in SETTINGS
    return is_setting or name.startswith("CLOSE_") or name.lower().endswith("_proxy")


def _subscribe(sandbox_url: str, target: str) -> str:
    basic = base64.b64encode(f"{DEMO_API_KEY}:".encode()).decode()
    events = [{"object_type": kind, "action": "created"} for kind in ("lead", "contact")]
    subscription = request_json(
        "POST",
        f"{sandbox_url}/api/v1/webhook/",
        {"url": target, "events": events},
        headers={"authorization": f"Basic {basic}"},
    )
    return str(subscription["signature_key"])


async def _watch(demo: Demo, *, leads: int | None, per_second: float, once: bool) -> bool:
    """Make leads and show what becomes of them; True unless `once` was cut short."""
    connection = redis_client(demo.redis_url)
    ledger = Ledger(connection)
    console = report_console()
    try:
        request_json(
            "POST",
            f"{demo.sandbox_url}/_sandbox/leads",
            {"count": leads or ENDLESS_LEADS, "per_second": per_second},
        )
        _greet(console, demo)
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=once) as live:
                ended = await _look_until_ended(demo, ledger, leads if once else None, live)
        else:
            ended = await _look_until_ended(demo, ledger, leads if once else None, None)
        status = await read_status(ledger)
        console.print(states_table(status["states"], all_states=False))
        today = dt.datetime.now(dt.UTC).date()
        costs = await read_costs(connection, [today - dt.timedelta(days=1), today])
        console.print(cost_line(costs), highlight=False)
        return ended or not once
    finally:
        await connection.aclose()


def _greet(console: Console, demo: Demo) -> None:
    console.print(
        f"[bold]close-enrich demo[/]  webhooks arrive at {demo.web_url}/webhooks/close", highlight=False
    )
    console.print(f"[bold]Dashboard[/]          {demo.web_url}/", highlight=False)
    console.print(
        f"Health: {demo.web_url}/readyz   Queues: rq info --url {demo.redis_url}",
        highlight=False,
        style="dim",
        soft_wrap=True,
    )
    console.print(f"Logs:   {demo.directory}   Ctrl-C ends it all.\n", highlight=False, style="dim")


async def _look_until_ended(demo: Demo, ledger: Ledger, leads: int | None, live: Live | None) -> bool:
    """Show the state of things again and again; True when all leads have ended, False when stopped."""
    looks = 0
    while not demo.stopping.is_set():
        demo.children.check()
        status = await read_status(ledger)
        stats = await asyncio.to_thread(request_json, "GET", f"{demo.sandbox_url}/_sandbox/stats")
        if live is not None:
            live.update(await _view(ledger, status, stats), refresh=True)
        elif looks % PLAIN_EVERY == 0:
            click.echo(_line(status["states"], stats))
        looks += 1
        if leads is not None and _ended(leads, status["states"], stats):
            return True
        await asyncio.sleep(REFRESH_SECONDS)
    return False


def _ended(leads: int, states: Mapping[str, int], stats: Mapping[str, Any]) -> bool:
    delivered = stats["leads"] >= leads and not stats["deliveries"]["waiting"]
    return delivered and not any(states[state] for state in ACTIVE_STATES) and any(states.values())


def _line(states: Mapping[str, int], stats: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    spent = number(stats["enrichment"]["charged"], "credit")
    made = f"{number(stats['leads'], 'lead')}, {spent} spent"
    return f"{made}: {counts or 'nothing planned yet'}"


async def _view(ledger: Ledger, status: dict[str, Any], stats: Mapping[str, Any]) -> Group:
    leads, contacts, limited = stats["leads"], stats["contacts"], stats["rate_limited"]
    spent, calling = stats["enrichment"]["charged"], stats["enrichment"]["open"]
    head = Text.assemble(
        (f"{leads}", "bold"),
        f" new {noun(leads, 'lead')} with ",
        (f"{contacts}", "bold"),
        f" {noun(contacts, 'contact')}   ",
        (f"{spent}", "bold"),
        f" {noun(spent, 'credit')} spent   ",
        (f"{calling}", "bold"),
        f" {noun(calling, 'call')} in flight   ",
        (f"{limited}", "bold"),
        f" {noun(limited, 'time')} told to wait\n",
    )
    return Group(
        head,
        states_table(status["states"], all_states=False),
        Text(),
        newest_table(await read_newest(ledger, most=NEWEST)),
    )
