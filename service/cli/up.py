"""The command `up`: web and worker on one machine, with a Redis of our own where none is configured."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from service.cli.processes import ChildEndedError, Children
from service.cli.start import give_up, rules_or_exit, settings_or_exit
from service.embedded_redis import EmbeddedRedis, NoServerError
from service.hangup import hangup_handler
from service.settings_values import DashboardDoor, is_this_machine

if TYPE_CHECKING:
    from pathlib import Path

    from service.settings import Settings

LOOK_EVERY_SECONDS = 0.5


def run_up(data_dir: Path) -> None:
    """Run until Ctrl-C or SIGTERM; exits 1 where a part ends by itself. SIGHUP is passed on to all parts.

    Args:
        data_dir: for the embedded Redis; made if it is not there.
    """
    settings = settings_or_exit("CLOSE_API_KEY", "CLOSE_SIGNATURE_KEYS")
    rules_or_exit(settings.rules_file)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # children begin with it ignored: until they can handle it, it would end them
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    children = Children()
    hung_up = hangup_handler(lambda: children.send(signal.SIGHUP))
    with ExitStack() as stack:
        environ = dict(os.environ)
        if settings.admin_token is None:
            environ.setdefault("DASHBOARD", DashboardDoor.OPEN)
        if settings.redis_url is None:
            try:
                data_dir.mkdir(parents=True, exist_ok=True)
                server = stack.enter_context(EmbeddedRedis(data_dir.absolute(), fsync="always"))
            except NoServerError as error:
                give_up(str(error))
            except OSError as error:
                give_up(f"{data_dir}: the data directory cannot be used: {error.strerror}")
            environ["REDIS_URL"] = server.url
            click.echo(
                f"Redis keeps its data in {data_dir}. Look in: REDIS_URL={server.url} close-enrich status"
            )
        stack.callback(children.stop)
        children.start("web", "web", environ=environ)
        children.start("worker", "worker", environ=environ)
        signal.signal(signal.SIGHUP, lambda *_: hung_up())
        address = f"http://{settings.host}:{settings.port}/webhooks/close"
        click.echo(dashboard_line(settings, door=environ.get("DASHBOARD", "")))
        click.echo(f"Close's webhooks arrive at {address}. Ctrl-C ends it.")
        while not stop.wait(LOOK_EVERY_SECONDS):
            try:
                children.check()
            except ChildEndedError as error:
                give_up(f"stopped: {error}", code=1)


def dashboard_line(settings: Settings, *, door: str) -> str:
    """Where the dashboard is, or what there would be one with."""
    address = f"http://{settings.host}:{settings.port}/"
    if settings.admin_token is not None:
        return f"The dashboard is at {address}; log in with ADMIN_TOKEN."
    if door == DashboardDoor.OPEN and is_this_machine(settings.host):
        return f"The dashboard is at {address}, for this machine only."
    return "There is no dashboard: set ADMIN_TOKEN."
