"""The command `health`: green while what runs beside it works, red with a reason when it does not."""

from __future__ import annotations

import datetime as dt
import json
import socket

import pytest
from rq.utils import utcformat

from service.cli.health import OLDEST_BEAT_SECONDS, judge_worker, role_in
from workers.worker import HEARTBEAT_SECONDS, RQ_HEARTBEAT_EVERY

NOW = dt.datetime(2026, 11, 23, 14, 0, tzinfo=dt.UTC)
HERE = "worker-7"


def entry(*, seconds_ago, hostname=HERE, **more):
    beat = utcformat(NOW - dt.timedelta(seconds=seconds_ago))
    return {"hostname": hostname, "last_heartbeat": beat, **more}


@pytest.mark.parametrize(
    ("cmdline", "role"),
    [
        (b"/opt/close-enrich/bin/python\0/opt/close-enrich/bin/close-enrich\0web\0", "web"),
        (b"/sbin/docker-init\0--\0close-enrich\0worker\0", "worker"),
        (b"close-enrich\0worker\0", "worker"),
        (b"/usr/bin/close-enrich\0status\0", None),
        (b"/usr/bin/not-close-enrich\0web\0", None),
        (b"/sbin/init\0", None),
        (b"", None),
    ],
)
def test_a_container_s_first_process_tells_what_it_runs(cmdline, role) -> None:
    assert role_in(cmdline) == role


@pytest.mark.parametrize(
    ("workers", "well", "words"),
    [
        ([entry(seconds_ago=10)], True, "last heard 10 s ago"),
        ([entry(seconds_ago=OLDEST_BEAT_SECONDS + 1)], False, "last heard 51 s ago"),
        ([entry(seconds_ago=300), entry(seconds_ago=2)], True, "last heard 2 s ago"),
        ([entry(seconds_ago=2, hostname="another")], False, "none of worker-7 is registered"),
        (
            [entry(seconds_ago=2, death="2026-11-23T13:59:59.000000Z")],
            False,
            "none of worker-7 is registered",
        ),
        ([{"hostname": HERE}], False, "none of worker-7 is registered"),
        ([], False, "none of worker-7 is registered"),
    ],
)
def test_a_worker_is_well_that_was_heard_lately(workers, well, words) -> None:
    health = judge_worker(workers, hostname=HERE, now=NOW)
    assert (health.well, health.found) == (well, words)


def test_three_beats_may_get_lost() -> None:
    assert OLDEST_BEAT_SECONDS > 3 * HEARTBEAT_SECONDS * RQ_HEARTBEAT_EVERY


def test_a_worker_of_this_machine_is_found_in_redis(cli, blocking_redis) -> None:
    blocking_redis.sadd("rq:workers", "rq:worker:one")
    beat = utcformat(dt.datetime.now(dt.UTC))
    blocking_redis.hset("rq:worker:one", mapping={"hostname": socket.gethostname(), "last_heartbeat": beat})
    result = cli("health", "worker", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["well"] is True


def test_no_worker_is_unwell(cli) -> None:
    result = cli("health", "worker")
    assert result.exit_code == 1
    assert f"none of {socket.gethostname()} is registered" in result.output


@pytest.mark.parametrize(("options", "exit_code"), [((), 1), (("--tolerate-redis",), 0)])
def test_a_redis_that_is_away_counts_unless_it_is_tolerated(cli, options, exit_code) -> None:
    result = cli("health", "worker", *options, REDIS_URL="redis://:hunter2@127.0.0.1:1/0")
    assert result.exit_code == exit_code
    assert "Redis does not answer" in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::"])  # noqa: S104  what HOST says, not bound here
def test_web_is_asked_on_this_machine_whatever_it_listens_on(cli, monkeypatch, host) -> None:
    asked = []
    monkeypatch.setattr("service.cli.processes.request_json", lambda _method, url: asked.append(url))
    assert cli("health", "web", HOST=host, PORT="8123").exit_code == 0
    assert asked == [f"http://{'[::1]' if host == '::' else '127.0.0.1'}:8123/livez"]


def test_web_that_does_not_answer_is_unwell(cli) -> None:
    result = cli("health", "web", PORT="1")
    assert result.exit_code == 1
    assert "http://127.0.0.1:1/livez does not answer" in result.output


def test_outside_a_container_it_must_be_told_which(cli, monkeypatch) -> None:
    monkeypatch.setattr("service.cli.health.role_of_container", lambda: None)
    result = cli("health")
    assert result.exit_code == 2
    assert "close-enrich health worker" in result.output
