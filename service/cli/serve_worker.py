"""`worker`, apart from `web`: neither loads what only the other needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

from workers.runtime import run_worker

if TYPE_CHECKING:
    from service.rules import RuleBook
    from service.settings import Settings


def serve_worker(settings: Settings, rulebook: RuleBook) -> None:
    """Run a worker until it is told to stop."""
    uvloop.run(run_worker(settings, rulebook))
