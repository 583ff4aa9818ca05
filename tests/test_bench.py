"""The benchmarks that keep promises, in short."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys

import pytest
from network_box import why_not
from stack_parts import PROJECT

pytestmark = pytest.mark.slow

MOST_BYTES_WAITING = 1024
MOST_TRIES = 3


def bench(*arguments: str) -> dict:
    """What a benchmark tells on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    return json.loads(done.stdout)


def test_an_enrichment_that_waits_in_a_queue_takes_less_than_a_kilobyte_of_redis():
    servers = bench("memory", "--entries", "3000")
    assert servers
    for name, figures in servers.items():
        assert 500 < figures["queued_bytes"] < MOST_BYTES_WAITING, name
        assert 500 < figures["settled_and_queued_bytes"] < MOST_BYTES_WAITING, name
        assert figures["finished_bytes"] < 4 * MOST_BYTES_WAITING, name


@pytest.mark.long
def test_ten_times_the_workers_pace_grows_redis_and_no_process():
    figures = bench("flat", "--seconds", "15", "--pace", "10")
    assert figures["planned_to_called"] > 2
    assert figures["waiting_at_the_end"] > 100
    # in so short a run a process is hardly warm: five minutes hold 1.05
    assert figures["web_last_to_second"] < 1.15
    assert figures["worker_last_to_second"] < 1.15


def grows(runs) -> bool:
    """Whether more workers were quicker; how much is what the suite measures, alone on a machine."""
    rates = [run["times_the_first"] for run in runs]
    return all(fewer < more for fewer, more in itertools.pairwise(rates))


@pytest.mark.long
def test_throughput_grows_with_workers_on_several_machines_up_to_closes_limit():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    # beside other tests a run may get too little of the machine: the best of a few counts
    tables = (bench("scale", "--seconds", "4") for _ in range(MOST_TRIES))
    runs = next(filter(grows, tables), None)
    assert runs is not None, "throughput does not grow with workers"
    assert [run["workers"] for run in runs] == [1, 2, 4, 8]
    # what was saved up in Close's bucket comes on top of its limit
    assert runs[-1]["share_of_closes_limit"] < 1.3


@pytest.mark.long
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not here")
def test_what_every_size_of_backlog_and_rules_was_sent_is_planned():
    sizes = ("--backlog", "0", "--backlog", "300", "--rules", "1", "--rules", "30")
    tables = bench("scale-cost", "--events", "100", "--rounds", "1", *sizes)
    # the bench itself fails where an event that was answered 202 is not in Redis with all of its fields
    assert [row["waiting"] for row in tables["waiting"]] == [0, 300]
    assert [row["planned_by_an_event"] for row in tables["rules, one matching"]] == [1, 1]
    assert [row["planned_by_an_event"] for row in tables["rules, all matching"]] == [1, 30]
    assert [row["overdue_passes"] for row in tables["sweeper"]] == [1]
