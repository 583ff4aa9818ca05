"""The work of one process: calls of two seconds, a thousand at a time, beside RQ's own workers.

A round begins with all its jobs in line: the worker is stopped (SIGSTOP) while events are planned, and then
let go. Two things limit how soon it can be through, and it is compared with the larger one:

- latency and concurrency: `jobs / concurrency` calls one after the other;
- RQ's own bookkeeping, as cheap as it gets: the CPU seconds of RQ's methods for a job's start and end,
  written in pipelines of a hundred jobs, in a process that does nothing else (`_rq_batched_ms`).

What RQ's own worker takes for a job that does nothing (`_rq_stock_ms`) is told beside it and limits nobody.

The stock pool does the same call on the same sandbox, each worker one at a time, with as many workers as fit
into what ours takes at its peak. A worker is weighed at work with its fork, in proportional shares (PSS), so
that what forks share counts once; ours is weighed by its resident memory, which is never less.
"""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from waiting import wait_until

from service import jobs, keys
from service.cli.processes import request_json
from service.enrichment import ENTRY_VERSION, entry_id, new_job_id
from service.sandbox.options import DEMO_API_KEY
from tests.bench import stock_job
from tests.bench.main_path import RULES_OF_AN_EVENT, running, wait_until_filled
from tests.bench.measure import cpu_seconds, family_memory_mb, peak_memory_mb, shared_memory_mb
from tests.bench.redis_server import bench_redis
from workers.bookkeeping import Bookkeeper
from workers.worker import EnrichmentWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.figures import Figures
    from tests.bench.main_path import Service

ROUNDS = 3
EMPTY_JOBS = 1000
BATCH = 100
STOCK_QUEUE = "stock"
STOCK_PROBE = 4
"""Stock workers that are weighed to find how many fit."""
STOCK_CALLS_EACH = 4
STOCK_LEAST_SECONDS = 5.0
"""Each has calls for so long at least: the last to start must find the first one still at work."""

MOST_SECONDS = 120.0


def run_work(
    *, jobs_a_round: int, concurrency: int, latency_seconds: float, log_dir: Path | None = None
) -> Figures:
    """Let one worker make so many calls, three times, and a stock pool of the same memory the same calls.

    Args:
        jobs_a_round: a multiple of three, as each event leads to three.
        concurrency: the worker's.
        latency_seconds: what one call takes.
        log_dir: where the parts' logs go; a temporary directory if None.

    Raises:
        TookTooLongError: a round took several times what the limits allow.
    """
    batched_ms, stock_ms = _in_a_process(_rq_batched_ms), _in_a_process(_rq_stock_ms)
    ideal_seconds = max(
        max(1.0, jobs_a_round / concurrency) * latency_seconds, jobs_a_round * batched_ms / 1000
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory), log_dir=log_dir, concurrency=concurrency, latency_seconds=latency_seconds
        ) as service,
    ):
        request_json("POST", f"{service.sandbox_url}/_sandbox/leads", {"count": 1})
        wait_until_filled(service, RULES_OF_AN_EVENT, patience_seconds=10 * latency_seconds + 30)
        rounds = [
            _round(service, jobs_a_round, patience_seconds=10 * ideal_seconds + 30) for _ in range(ROUNDS)
        ]
        calls = request_json("GET", f"{service.sandbox_url}/_sandbox/stats")["enrichment"]
        peak_mb = peak_memory_mb(service.children.pid("worker"))
        os.kill(service.children.pid("worker"), signal.SIGSTOP)
        try:
            calls_each = max(STOCK_CALLS_EACH, math.ceil(STOCK_LEAST_SECONDS / latency_seconds))
            pool = _stock_pool(service, memory_mb=peak_mb, calls_each=calls_each)
        finally:
            os.kill(service.children.pid("worker"), signal.SIGCONT)
    elapsed_seconds = median(one["elapsed_seconds"] for one in rounds)
    rate = jobs_a_round / elapsed_seconds
    return {
        "jobs_a_round": jobs_a_round,
        "concurrency": concurrency,
        "latency_seconds": latency_seconds,
        "elapsed_seconds": round(elapsed_seconds, 2),
        "elapsed_to_ideal": round(elapsed_seconds / ideal_seconds, 3),
        "ideal_seconds": round(ideal_seconds, 2),
        "most_calls_of_a_field": calls["most_runs_of_a_field"],
        "most_calls_in_flight": calls["most_open"],
        "worker_peak_mb": round(peak_mb, 1),
        "worker_cpu_ms_per_job": round(median(one["cpu_ms_per_job"] for one in rounds), 2),
        "redis_reads_per_job": round(median(one["redis_reads_per_job"] for one in rounds), 1),
        "redis_cpu_ms_per_job": round(median(one["redis_cpu_ms_per_job"] for one in rounds), 3),
        "rq_batched_cpu_ms_per_job": round(batched_ms, 2),
        "rq_stock_cpu_ms_per_job": round(stock_ms, 2),
        "jobs_per_second": round(rate, 1),
        "stock_workers": pool["workers"],
        "stock_memory_mb": round(pool["memory_mb"], 1),
        "stock_jobs_per_second": round(pool["jobs_per_second"], 2),
        "times_stock": round(rate / pool["jobs_per_second"], 1),
    }


def _round(service: Service, wanted: int, *, patience_seconds: float) -> Figures:
    worker = service.children.pid("worker")
    before = _count(service, "filled")
    os.kill(worker, signal.SIGSTOP)
    request_json("POST", f"{service.sandbox_url}/_sandbox/leads", {"count": wanted // RULES_OF_AN_EVENT})
    wait_until(lambda: _count(service, "planned") >= wanted, seconds=MOST_SECONDS)
    service.redis.config_resetstat()
    cpu_before, redis_before, started_at = cpu_seconds(worker), _redis_cpu(service), time.monotonic()
    os.kill(worker, signal.SIGCONT)
    wait_until_filled(service, before + wanted, patience_seconds=patience_seconds)
    elapsed_seconds = time.monotonic() - started_at
    return {
        "elapsed_seconds": elapsed_seconds,
        "cpu_ms_per_job": (cpu_seconds(worker) - cpu_before) / wanted * 1000,
        "redis_cpu_ms_per_job": (_redis_cpu(service) - redis_before) / wanted * 1000,
        "redis_reads_per_job": service.redis.info("stats")["total_reads_processed"] / wanted,
    }


def _count(service: Service, state: str) -> int:
    return int(service.redis.hget(keys.COUNTS, state) or 0)


def _redis_cpu(service: Service) -> float:
    used = service.redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _in_a_process(measure: Callable[[], float]) -> float:
    """What something comes to in a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure).result(MOST_SECONDS)


def _rq_batched_ms() -> float:
    """CPU milliseconds of RQ's bookkeeping for a job, as our worker has RQ do it for many at once."""
    with tempfile.TemporaryDirectory() as directory, bench_redis(Path(directory)) as server:
        connection = redis.Redis.from_url(server.url)
        worker = EnrichmentWorker(connection=connection, concurrency=BATCH, grace_seconds=0)
        books = Bookkeeper(worker, connection)
        template = jobs.job_template(connection)
        mapping = dict(zip(template[::2], template[1::2], strict=True))
        mapping |= {"created_at": jobs.stamp(), "status": "queued", "origin": jobs.LIVE_QUEUE}
        with connection.pipeline(transaction=False) as pipeline:
            for number in range(EMPTY_JOBS):
                entry = entry_id(organization_id="", object_id=str(number), field_id="")
                job_id = new_job_id(entry, version=ENTRY_VERSION)
                pipeline.hset(jobs.job_key(job_id), mapping=mapping)
                pipeline.rpush(jobs.queue_key(jobs.LIVE_QUEUE), job_id)
            pipeline.execute()
        before = time.process_time()
        done = 0
        while taken := books.take(BATCH, wait=False).taken:
            books.finish(taken)
            done += len(taken)
        return (time.process_time() - before) / done * 1000


def _rq_stock_ms() -> float:
    """CPU milliseconds of RQ's own worker for a job that does nothing, without a fork."""
    with tempfile.TemporaryDirectory() as directory, bench_redis(Path(directory)) as server:
        connection = redis.Redis.from_url(server.url)
        queue = Queue(STOCK_QUEUE, connection=connection, serializer=JSONSerializer)
        for _ in range(EMPTY_JOBS):
            queue.enqueue(stock_job.nothing, result_ttl=0)
        worker = SimpleWorker([queue], connection=connection, serializer=JSONSerializer)
        before = time.process_time()
        worker.work(burst=True, logging_level="WARNING")
        return (time.process_time() - before) / EMPTY_JOBS * 1000


def _stock_pool(service: Service, *, memory_mb: float, calls_each: int) -> Figures:
    """Jobs a second of as many stock workers as fit into so much memory."""
    probe = _pool_run(service, STOCK_PROBE, calls_each=calls_each)
    one_mb = (probe["memory_mb"] - probe["parent_mb"]) / STOCK_PROBE
    workers = max(1, int((memory_mb - probe["parent_mb"]) / one_mb))
    return _pool_run(service, workers, calls_each=calls_each)


def _pool_run(service: Service, workers: int, *, calls_each: int) -> Figures:
    """Let a pool do several calls each; its memory while all are at work, and jobs a second meanwhile."""
    wanted = calls_each * workers
    queue = Queue(STOCK_QUEUE, connection=service.redis, serializer=JSONSerializer)
    calls = [
        queue.enqueue(stock_job.ask, f"{service.sandbox_url}/api/v1/enrich_field/", _authorization(), body)
        for body in _call_bodies(service, wanted)
    ]
    finished = queue.finished_job_registry
    before = finished.get_job_count()
    pool = subprocess.Popen(
        [
            *(sys.executable, "-m", "rq.cli", "worker-pool", STOCK_QUEUE),
            *("--num-workers", str(workers), "--serializer", "json", "--url", service.redis_url),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # a worker and its fork for each place, all of them at a call
        wait_until(lambda: queue.started_job_registry.get_job_count() == workers, seconds=MOST_SECONDS)
        time.sleep(0.5)
        memory_mb = family_memory_mb(pool.pid)
        parent_mb = shared_memory_mb(pool.pid)
        wait_until(lambda: finished.get_job_count() - before >= wanted, seconds=MOST_SECONDS)
    finally:
        pool.terminate()
        pool.wait(MOST_SECONDS)
    began = [job.started_at for job in calls if not job.refresh()]
    ended = [job.ended_at for job in calls]
    seconds = (max(ended) - min(began)).total_seconds()
    return {
        "workers": workers,
        "memory_mb": memory_mb,
        "parent_mb": parent_mb,
        "jobs_per_second": wanted / seconds,
    }


def _call_bodies(service: Service, wanted: int) -> list[str]:
    """Calls as our worker makes them, for leads of their own."""
    ids = request_json("POST", f"{service.sandbox_url}/_sandbox/leads", {"count": wanted})["ids"]
    headers = {"authorization": _authorization()}
    api = f"{service.sandbox_url}/api/v1"
    organization = request_json("GET", f"{api}/me/", headers=headers)["organizations"][0]["id"]
    schema = request_json("GET", f"{api}/custom_field_schema/lead/", headers=headers)
    field = next(one["id"] for one in schema["fields"] if one["name"] == "Industry")
    return [
        json.dumps(
            {
                "organization_id": organization,
                "object_type": "lead",
                "object_id": lead,
                "field_id": field,
                "set_new_value": True,
                "overwrite_existing_value": False,
            }
        )
        for lead in ids
    ]


def _authorization() -> str:
    return "Basic " + base64.b64encode(f"{DEMO_API_KEY}:".encode()).decode()
