"""The picture of the Overview that README shows: `python -m tests.screenshot` makes it anew.

A real service fills real fields of the sandbox's leads for a while; the hour and the day before are made up
from a seed, as nobody would wait for that.
"""

from __future__ import annotations

import datetime as dt
import math
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

# the tests' helpers import each other by their bare names, as pytest has it
sys.path.insert(0, str(Path(__file__).parent))

from browser_box import Tab, chromium, running_browser
from showcase import TOKEN, Showcase, showcase

from service import keys
from service.metrics_catalogue import DONE, LEAD_TO_FILLED_SECONDS, PAID, Series, encode_series

if TYPE_CHECKING:
    from random import Random

TARGET = Path(__file__).parent.parent / "deploy" / "dashboard.png"
WINDOW = {"width": 1280, "height": 1180}
MOST_BYTES = 200_000
LEADS = 12
RULES = ("Industry", "Employee count", "Segment", "Seniority", "Pitch")


def make_up(show: Showcase, *, chance: Random, now: float) -> None:
    """The 59 minutes before this one, and what the day has cost until then."""
    with show.stack.redis.pipeline(transaction=False) as pipeline:
        for ago in range(1, 60):
            busy = 42 + 19 * math.sin(ago / 7) + chance.uniform(-6, 6)
            outcomes = {"filled": 0.68, "empty": 0.12, "previewed": 0.07, "skipped": 0.1, "kept": 0.03}
            counts = {
                Series(DONE.name, (state,)): round(busy * share * chance.uniform(0.7, 1.3))
                for state, share in outcomes.items()
            }
            counts[Series(PAID.name)] = round(busy * 0.9)
            middle = len([one for one in LEAD_TO_FILLED_SECONDS.buckets if one <= 3]) + (ago % 17 == 0)
            for bucket, share in ((-1, 0.3), (0, 0.5), (1, 0.2 if ago % 9 else 0.0)):
                series = Series(LEAD_TO_FILLED_SECONDS.name, ("live",), str(middle + bucket))
                counts[series] = round(busy * share * chance.uniform(0.6, 1.4))
            minute = {encode_series(one): count for one, count in counts.items()}
            pipeline.hset(keys.minute(int(now // 60) - ago), mapping=minute)
        today = dt.datetime.fromtimestamp(now, dt.UTC).date().isoformat()
        for rule in RULES:
            asked = chance.randint(480, 830)
            told = {
                "calls": asked,
                "found": round(asked * 0.84),
                "empty": round(asked * 0.16),
                "skipped": chance.randint(20, 90),
                "confirmed": chance.randint(0, 4),
                "duplicates": chance.randint(2, 12),
            }
            for metric, count in told.items():
                pipeline.hincrby(keys.cost(today), f"{rule}\t{rule}\t{metric}", count)
            for scope in ("all", f"rule:{rule}"):
                pipeline.incrby(keys.spent(scope, today), asked)
        pipeline.execute()


def is_lively(show: Showcase, before: int) -> bool:
    """Whether some fields have been filled since, and more are on their way."""
    counts = show.stack.counts()
    return counts.get("calling", 0) > 9 and counts["filled"] > before + 8


def main() -> None:
    """Make the picture."""
    program = chromium()
    if program is None:
        sys.exit("no Chromium on the PATH; Debian's package is called chromium")
    with tempfile.TemporaryDirectory() as directory, showcase(Path(directory)) as show:
        slow = {"latency_min_seconds": 0.5, "latency_max_seconds": 3.5}
        show.stack.in_sandbox(lambda world: world.configure(replace(world.options, **slow)))
        show.add_leads(6, seed=3)
        show.dead_letter()
        show.hold(6)
        show.quiet(least=20)
        make_up(show, chance=random.Random(3), now=time.time())  # noqa: S311  no secret
        with running_browser(program) as browser:
            tab = Tab(browser.new_context(viewport=WINDOW), origin=show.stack.url)  # type: ignore[arg-type]  # a size
            tab.open("/login")
            tab.page.get_by_label("Token").fill(TOKEN)
            tab.button("Log in").click()
            before = show.stack.counts()["filled"]
            show.add_leads(LEADS)
            show.stack.wait(lambda: is_lively(show, before))
            tab.open("/")
            tab.rows("Newest results").first.wait_for()
            tab.page.screenshot(path=TARGET, animations="disabled")
    size = TARGET.stat().st_size
    print(f"{TARGET}: {size:,} bytes")  # noqa: T201  a script says what it has done
    if size > MOST_BYTES or tab.troubles:
        sys.exit(f"expected at most {MOST_BYTES:,} bytes and no troubles: {tab.troubles}")


if __name__ == "__main__":
    main()
