"""`web` as several processes at one port."""

from __future__ import annotations

import os
import secrets
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from service.cli.crew import Crew
from service.cli.dashboard import has_dashboard
from service.cli.listening import open_port
from service.cli.serve import web_server
from service.cli.serving import cannot_listen, run_server
from service.cli.start import rules_or_exit, set_up_logging
from service.log import get_logger

if TYPE_CHECKING:
    from service.cli.crew import Start
    from service.rules import RuleBook
    from service.settings import Settings


def serve_web_many(settings: Settings, rulebook: RuleBook, *, count: int) -> NoReturn:
    """Run so many receivers until told to stop, and exit.

    Args:
        settings: as for one.
        rulebook: what they start with; one that stands in for another reads the file anew.
        count: how many.
    """
    set_up_logging(settings, pid=os.getpid())
    log = get_logger("web")
    if has_dashboard(settings):
        import service.cli.site  # noqa: F401  loaded before forking, so that all share its memory
    try:
        port = open_port(settings.host, settings.port)
    except OSError as error:
        cannot_listen(f"HOST {settings.host}, PORT {settings.port}", error)
    with port:
        log.info("listens", addresses=port.names, processes=count)
        work = partial(_serve_one, settings, rulebook, secrets.token_bytes())
        sys.exit(Crew(count=count, port=port, work=work, log=log).run())


def _serve_one(settings: Settings, rulebook: RuleBook, form_key: bytes, start: Start) -> None:
    set_up_logging(settings, pid=os.getpid())
    if start.stands_in:
        rulebook = rules_or_exit(settings.rules_file)
    server = web_server(settings, rulebook, follow=True, form_key=form_key, lifeline=start.lifeline)
    run_server(server, start.sockets)
