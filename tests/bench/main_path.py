"""The main path: a burst of signed events, three fields each, until every field is filled."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from rq.worker_registration import REDIS_WORKER_KEYS

from service import keys
from service.cli.processes import Children, free_port, request_json
from service.sandbox.options import DEMO_API_KEY
from service.settings import SETTINGS
from tests.bench.figures import Figures, TookTooLongError
from tests.bench.measure import cpu_seconds, peak_memory_mb
from tests.bench.redis_server import bench_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Employee count, object: lead, field: Employee count}
  - {name: Pitch, object: lead, field: Pitch}
"""
RULES_OF_AN_EVENT = 3
LOOK_EVERY_SECONDS = 0.05
UNLIMITED = {"rate_per_second": 1e6, "burst": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where the parts of the measured service are."""

    children: Children
    sandbox_url: str
    redis: redis.Redis
    redis_url: str


def run_main_path(
    *, events: int, concurrency: int, latency_seconds: float, log_dir: Path | None = None
) -> Figures:
    """Send `events` at once and measure until three fields for each are filled.

    One lead goes before them: until Close has answered a first call, nobody knows how fast it lets us call,
    and the worker goes slowly. What is measured is a worker that knows.

    Args:
        events: how many leads are made.
        concurrency: the worker's.
        latency_seconds: what one call to the sandbox takes.
        log_dir: where the parts' logs go; a temporary directory if None.

    Raises:
        TookTooLongError: see there.
    """
    jobs = RULES_OF_AN_EVENT * events
    ideal_seconds = max(1.0, jobs / concurrency) * latency_seconds
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory), log_dir=log_dir, concurrency=concurrency, latency_seconds=latency_seconds
        ) as service,
    ):
        request_json("POST", f"{service.sandbox_url}/_sandbox/leads", {"count": 1})
        wait_until_filled(service, RULES_OF_AN_EVENT, patience_seconds=10 * latency_seconds + 30)
        pids = {name: service.children.pid(name) for name in ("web", "worker")}
        cpu_before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        started_at = time.monotonic()
        request_json("POST", f"{service.sandbox_url}/_sandbox/leads", {"count": events})
        wait_until_filled(service, RULES_OF_AN_EVENT + jobs, patience_seconds=10 * ideal_seconds + 30)
        elapsed_seconds = time.monotonic() - started_at
        calls = request_json("GET", f"{service.sandbox_url}/_sandbox/stats")["enrichment"]
        cpu = {name: cpu_seconds(pid) - cpu_before[name] for name, pid in pids.items()}
        return {
            "events": events,
            "concurrency": concurrency,
            "latency_seconds": latency_seconds,
            "fields_filled": jobs,
            "elapsed_seconds": round(elapsed_seconds, 2),
            "elapsed_to_ideal": round(elapsed_seconds / ideal_seconds, 3),
            "calls_per_field": round((calls["requests"] - RULES_OF_AN_EVENT) / jobs, 3),
            "most_calls_of_a_field": calls["most_runs_of_a_field"],
            "most_calls_in_flight": calls["most_open"],
            "worker_peak_mb": round(peak_memory_mb(pids["worker"]), 1),
            "worker_cpu_seconds_per_job": round(cpu["worker"] / jobs, 5),
            "web_cpu_seconds_per_event": round(cpu["web"] / events, 5),
        }


@contextlib.contextmanager
def running(
    directory: Path, *, log_dir: Path | None, concurrency: int, latency_seconds: float
) -> Iterator[Service]:
    """The service with one worker, beside a sandbox without limits.

    Args:
        directory: for rules and Redis's data.
        log_dir: where the parts' logs go; `directory` if None.
        concurrency: the worker's.
        latency_seconds: what one call to the sandbox takes.
    """
    if log_dir is not None:
        log_dir.mkdir(parents=True, exist_ok=True)
    children = Children(log_dir=log_dir or directory)
    sandbox_port, web_port = free_port(), free_port()
    sandbox_url, web_url = f"http://127.0.0.1:{sandbox_port}", f"http://127.0.0.1:{web_port}"
    rules_file = directory / "rules.yaml"
    rules_file.write_text(RULES)
    with bench_redis(directory) as server, redis.Redis.from_url(server.url) as connection:
        environ = {
            **{name: value for name, value in os.environ.items() if name not in SETTINGS},
            "CLOSE_API_KEY": DEMO_API_KEY,
            "CLOSE_API_URL": f"{sandbox_url}/api/v1",
            "REDIS_URL": server.url,
            "RULES_FILE": str(rules_file),
            "PORT": str(web_port),
            "WORKER_CONCURRENCY": str(concurrency),
            "LOG_FORMAT": "json",
        }
        try:
            children.start("sandbox", "sandbox", "--port", str(sandbox_port), environ=environ)
            children.wait_for("sandbox", f"{sandbox_url}/_sandbox/stats")
            request_json("POST", f"{sandbox_url}/_sandbox/options", _options(latency_seconds))
            environ["CLOSE_SIGNATURE_KEYS"] = _subscribe(sandbox_url, f"{web_url}/webhooks/close")
            children.start("web", "web", environ=environ)
            children.wait_for("web", f"{web_url}/livez")
            children.start("worker", "worker", environ=environ)
            _wait_for_worker(children, connection)
            yield Service(children=children, sandbox_url=sandbox_url, redis=connection, redis_url=server.url)
        finally:
            children.stop()


def _options(latency_seconds: float) -> Mapping[str, Any]:
    return {
        "latency_min_seconds": latency_seconds,
        "latency_max_seconds": latency_seconds,
        "nothing_found_share": 0.0,
        "default_limit": UNLIMITED,
        "credits": 10_000_000,
        "retain_calls": False,
    }


def _subscribe(sandbox_url: str, target: str) -> str:
    """Have new leads delivered; the signature key."""
    basic = base64.b64encode(f"{DEMO_API_KEY}:".encode()).decode()
    subscription = request_json(
        "POST",
        f"{sandbox_url}/api/v1/webhook/",
        {"url": target, "events": [{"object_type": "lead", "action": "created"}]},
        headers={"authorization": f"Basic {basic}"},
    )
    return str(subscription["signature_key"])


def _wait_for_worker(children: Children, connection: redis.Redis) -> None:
    while not connection.smembers(REDIS_WORKER_KEYS):
        children.check()
        time.sleep(LOOK_EVERY_SECONDS)


def wait_until_filled(service: Service, jobs: int, *, patience_seconds: float) -> None:
    """Wait until so many fields are filled.

    Raises:
        TookTooLongError: they are not.
    """
    deadline = time.monotonic() + patience_seconds
    while (filled := int(service.redis.hget(keys.COUNTS, "filled") or 0)) < jobs:
        service.children.check()
        if time.monotonic() > deadline:
            raise TookTooLongError(f"{filled} of {jobs} fields are filled after {patience_seconds:.0f} s")
        time.sleep(LOOK_EVERY_SECONDS)
