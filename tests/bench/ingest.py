"""How many signed events one receiver takes on one core, all of them in Redis before they are answered."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import redis
import uvloop
from receiver_box import KEY, sample, save_schemas, signed
from stack_parts import Processes
from waiting import wait_until

from service.cli.processes import free_port, request_json
from service.embedded_redis import EmbeddedRedis
from service.settings_values import WEBHOOK_PATH
from tests.bench.figures import TookTooLongError
from tests.bench.measure import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.figures import Figures

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch}
  - {name: Size, object: lead, field: Size}
  - {name: Segment, object: lead, field: Segment}
"""
RULES_OF_A_LEAD = 3
BODY_BYTES = 3000
CONNECTIONS = 64
PACED_PER_SECOND = 1000
PACED_SECONDS = 5
ROUNDS = 3
ACCEPTED = b"HTTP/1.1 202 "
MOST_SECONDS = 300.0


def run_ingest(*, events: int) -> Figures:
    """Post events to `web` on one core, and to an app that only reads them; medians of three rounds each.

    The client and Redis (append-only file, synced every second) share the other core.

    Args:
        events: in each round.

    Raises:
        TookTooLongError: the rounds did not end in five minutes.
        RuntimeError: a process has ended, or an event was not accepted.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary, EmbeddedRedis(Path(temporary)) as server:
        save_schemas(server.url)
        (Path(temporary) / "rules.yaml").write_text(RULES)
        port, bare_port = free_port(), free_port()
        processes = Processes(
            Path(temporary),
            {
                "REDIS_URL": server.url,
                "CLOSE_SIGNATURE_KEYS": KEY,
                "RULES_FILE": f"{temporary}/rules.yaml",
                "PORT": str(port),
                "LOG_FORMAT": "json",
                "LOG_LEVEL": "warning",
            },
        )
        try:
            web = processes.start("web", "web")
            bare = processes.start("bare", str(bare_port), module="tests.bench.bare_app")
            for pid in (web, bare):
                os.sched_setaffinity(pid, {first})
            os.sched_setaffinity(0, set(others) or {first})
            if server.process is not None:
                os.sched_setaffinity(server.process.pid, set(others) or {first})
            wait_until(lambda: _listens(port), seconds=30)
            wait_until(lambda: _listens(bare_port, path=WEBHOOK_PATH), seconds=30)
            with redis.Redis.from_url(server.url) as client:
                return _measured(client, port=port, bare_port=bare_port, events=events, web=web)
        finally:
            processes.check()
            processes.close()


def _measured(client: redis.Redis, *, port: int, bare_port: int, events: int, web: int) -> Figures:
    numbers = itertools.count()
    bare_seconds, seconds, cpu = [], [], []
    for _ in range(ROUNDS):
        batch = list(_requests(events, numbers))
        bare_seconds.append(_run(bare_port, batch).seconds)
        before = cpu_seconds(web)
        seconds.append(_run(port, batch).seconds)
        cpu.append((cpu_seconds(web) - before) / events)
        # the receiver goes on with the fields of Close that it knows
        client.flushdb()
    paced = _run(
        port, list(_requests(PACED_PER_SECOND * PACED_SECONDS, numbers)), per_second=PACED_PER_SECOND
    )
    rate, bare_rate = events / median(seconds), events / median(bare_seconds)
    ordered = sorted(paced.latencies)
    return {
        "events_per_second": round(rate),
        "enrichments_per_second": round(rate * RULES_OF_A_LEAD),
        "bare_requests_per_second": round(bare_rate),
        "share_of_bare": round(rate / bare_rate, 3),
        "web_cpu_ms_per_event": round(median(cpu) * 1000, 3),
        "paced_events_per_second": PACED_PER_SECOND,
        "paced_p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "paced_p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 1),
    }


def _requests(count: int, numbers: Iterator[int]) -> Iterator[bytes]:
    """New leads, each in its own signed request."""
    envelope = json.loads(sample("02"))
    for number in itertools.islice(numbers, count):
        envelope["event"] |= {"id": f"ev_{number:022}", "object_id": f"lead_{number:043}"}
        envelope["event"]["lead_id"] = envelope["event"]["data"]["id"] = f"lead_{number:043}"
        envelope["event"]["data"]["description"] = ""
        short = len(json.dumps(envelope))
        envelope["event"]["data"]["description"] = "x" * max(0, BODY_BYTES - short)
        body = json.dumps(envelope).encode()
        head = [f"POST {WEBHOOK_PATH} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in signed(body, timestamp=str(int(time.time()))).items()]
        yield "\r\n".join([*head, "", ""]).encode() + body


class _Ran:
    """What a round came to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.latencies: list[float] = []


def _run(port: int, batch: Sequence[bytes], *, per_second: float | None = None) -> _Ran:
    async def work() -> _Ran:
        ran = _Ran()
        left = iter(enumerate(batch))
        begun = time.perf_counter()

        async def one_connection() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number, request in left:
                if per_second is not None:
                    await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
                sent = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                answer = await reader.readexactly(int(length))
                ran.latencies.append(time.perf_counter() - sent)
                if not head.startswith(ACCEPTED):
                    raise RuntimeError(f"not accepted: {head[:20]!r} {answer[:200]!r}")
            writer.close()
            await writer.wait_closed()

        async with asyncio.timeout(MOST_SECONDS), asyncio.TaskGroup() as connections:
            for _ in range(CONNECTIONS):
                connections.create_task(one_connection())
        ran.seconds = time.perf_counter() - begun
        return ran

    try:
        return uvloop.run(work())
    except TimeoutError:
        raise TookTooLongError("the round did not end") from None


def _listens(port: int, *, path: str = "/livez") -> bool:
    try:
        request_json("POST" if path == WEBHOOK_PATH else "GET", f"http://127.0.0.1:{port}{path}", {})
    except OSError:
        return False
    return True
