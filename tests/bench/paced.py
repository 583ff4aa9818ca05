"""Requests at a steady rate, whatever the answers: how long each took, from when it was to be sent."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import uvloop

from tests.bench.figures import TookTooLongError
from tests.bench.wrk import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SECONDS = 120.0
CONNECT_SECONDS = 0.5
"""Before the first request is due, so that what is timed is answers and not connections."""


def send_paced(requests: Sequence[bytes], *, port: int, per_second: float, status: int) -> list[float]:
    """Send each request at its moment, and time it from that moment on; seconds, sorted.

    A request that was sent late, since all connections waited for answers, has waited as well: its time
    counts from when it was to be sent, not from when it was.

    Args:
        requests: whole HTTP requests.
        port: of 127.0.0.1.
        per_second: the rate.
        status: what each must be answered.

    Raises:
        TookTooLongError: not all were answered in two minutes.
        RuntimeError: an answer was another than expected.
    """

    async def work() -> list[float]:
        latencies: list[float] = []
        left = iter(enumerate(requests))
        begun = time.perf_counter() + CONNECT_SECONDS

        async def one_connection() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number, request in left:
                planned = begun + number / per_second
                await asyncio.sleep(max(0.0, planned - time.perf_counter()))
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                answer = await reader.readexactly(int(length))
                latencies.append(time.perf_counter() - planned)
                if not head.startswith(b"HTTP/1.1 %d " % status):
                    raise RuntimeError(f"expected {status}, got {head[:20]!r} {answer[:200]!r}")
            writer.close()
            await writer.wait_closed()

        async with asyncio.timeout(MOST_SECONDS), asyncio.TaskGroup() as connections:
            for _ in range(CONNECTIONS):
                connections.create_task(one_connection())
        return sorted(latencies)

    try:
        return uvloop.run(work())
    except TimeoutError:
        raise TookTooLongError("not all paced requests were answered") from None


def quantile_ms(latencies: Sequence[float], share: float) -> float:
    """Of sorted seconds the one that this share does not exceed, in milliseconds."""
    return round(latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000, 2)
