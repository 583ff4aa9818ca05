"""How long the server takes for the dashboard's pages, with a ledger of a million enrichments."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import redis.asyncio
from big_ledger import fill
from dashboard_box import NOW, Box

from service import keys
from service.dashboard.contents import ROUTES
from service.dashboard.routes import Page
from service.embedded_redis import EmbeddedRedis

if TYPE_CHECKING:
    from tests.bench.figures import Figures

RUNS = 50
WARM_UP = 3


def run_dashboard(*, entries: int, history: int) -> Figures:
    """Fill a Redis of its own, then ask for each page of the navigation again and again.

    Args:
        entries: enrichments in the ledger.
        history: facts in the history.
    """
    with tempfile.TemporaryDirectory() as directory, EmbeddedRedis(Path(directory)) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set(keys.SINCE, 1)
            fill(client, entries=entries, history=history, now_seconds=NOW)
        return asyncio.run(_measure(server.url, entries=entries, history=history))


async def _measure(url: str, *, entries: int, history: int) -> Figures:
    figures: Figures = {"entries": entries, "history": history}
    async with redis.asyncio.Redis.from_url(url) as client:
        script = Box(client).script()
        for page in ROUTES:
            if not isinstance(page, Page) or not page.nav:
                continue
            took = []
            for run in range(RUNS + WARM_UP):
                began = time.perf_counter()
                answer = await script.get(page.path)
                if answer.status != 200:
                    raise RuntimeError(f"{page.path}: {answer.status}")
                if run >= WARM_UP:
                    took.append(1000 * (time.perf_counter() - began))
            figures[f"{page.path} median ms"] = round(statistics.median(took), 1)
            figures[f"{page.path} slowest ms"] = round(max(took), 1)
    return figures
