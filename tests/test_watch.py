"""The live view: what it shows, and its rates."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from zoneinfo import ZoneInfo

import pytest
from money_box import zone_where_it_is_noon
from stack_parts import PROJECT

from service.cli.watch import Rates, Sample, rates_of
from service.enrichment import State
from service.ledger import Ledger

ZONE = zone_where_it_is_noon()


def sample(at_seconds, planned=0, ended=0, paid=0):
    return Sample(at_seconds=at_seconds, planned=planned, ended=ended, paid=paid)


@pytest.mark.parametrize(
    ("samples", "rates"),
    [
        ([], None),
        ([sample(1)], None),
        ([sample(1), sample(1, planned=5)], None),
        ([sample(0), sample(30, planned=5, ended=2, paid=1)], Rates(planned=10, ended=4, paid=2)),
        # midnight: today's credits begin at nothing again
        ([sample(0, paid=900), sample(60, paid=3)], Rates(planned=0, ended=0, paid=0)),
    ],
)
def test_rates_are_per_minute_from_the_oldest_to_the_newest_sample(samples, rates):
    assert rates_of(samples) == rates


@pytest.fixture
def found(ask):
    """A value found, and one that waits."""

    async def make(box):
        box.ledger = Ledger(box.redis, zone=ZoneInfo(ZONE))
        entry = await box.plan(object_id="lead_1234567890123456")
        await box.settle(await box.calling(entry.id), State.FILLED, value="Log\x1bistics")
        await box.plan(object_id="lead_2")

    ask(make)


@pytest.mark.usefixtures("found")
def test_one_look_shows_states_queues_credits_and_the_newest_results(cli):
    result = cli("watch", "--once", BUDGET_TIMEZONE=ZONE)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "0 workers   0 calls in flight   1 credit today   1 value found today"
    newest = next(line.split() for line in lines if "filled" in line and "lead_" in line)
    assert newest[1:] == ["lead_12345678…", "Industry", "filled", "Log\N{REPLACEMENT CHARACTER}istics"]
    assert "\x1b" not in result.stdout


def test_the_live_view_ends_well_on_ctrl_c(redis_url):
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "service.cli.main", "watch"],
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "REDIS_URL": redis_url},
        cwd=PROJECT,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"calls in flight" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        # what nobody reads could fill the terminal, and the process would wait for room
        with contextlib.suppress(OSError):
            while os.read(ours, 4096):
                pass
        _, complained = process.communicate(timeout=30)
    os.close(ours)
    assert (process.returncode, complained) == (0, b"")


@pytest.mark.usefixtures("found")
def test_a_look_as_json_has_all_that_is_shown(cli):
    found = json.loads(cli("watch", "--json", BUDGET_TIMEZONE=ZONE).stdout)
    assert found["newest"][0]["state"] == "planned"
    assert {one["value"] for one in found["newest"]} == {"Log\x1bistics", None}
    assert found["today"]["paid"] == 1
