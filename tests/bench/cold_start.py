"""How soon a command is ready after its process starts, beside an app on the same server that does nothing.

`web` is ready when it answers `/livez`, `worker` when RQ lists it, and other commands when they have ended.
What is known of Close's fields is in Redis, as it is whenever a process is started anew, so Close is
not asked.
"""

from __future__ import annotations

import resource
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

import redis
from receiver_box import KEY, save_schemas
from rq.worker_registration import REDIS_WORKER_KEYS
from stack_parts import PROJECT, Processes
from waiting import wait_until

from service.cli.processes import free_port
from service.embedded_redis import EmbeddedRedis
from tests.bench.figures import TookTooLongError
from tests.bench.measure import cpu_seconds
from tests.bench.rounds import in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.figures import Figures

RULES = PROJECT / "deploy" / "rules.example.yaml"
ENDING = {
    "help": ["--help"],
    "rules_check": ["rules", "check", str(RULES)],
    "status": ["status"],
    "show": ["show", "lead_nobody_has"],
}
"""Commands that end by themselves. `show` exits 1, as it finds nothing."""

NAMES = ("bare", "web", "worker", "sandbox", *ENDING)
MOST_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one start took.

    Attributes:
        seconds: until the command was ready.
        cpu_seconds: used until then.
    """

    seconds: float
    cpu_seconds: float


def run_cold_start(*, rounds: int) -> Figures:
    """Start each command once a round, in turns; medians of all rounds, after one that fills the caches.

    Args:
        rounds: at least one.

    Raises:
        TookTooLongError: a command was not ready in a minute.
        RuntimeError: a process that was to serve has ended.
    """
    with tempfile.TemporaryDirectory() as temporary, EmbeddedRedis(Path(temporary)) as server:
        save_schemas(server.url)
        with redis.Redis.from_url(server.url) as client:
            bench = _Bench(Path(temporary), server.url, client)
            bench.round(NAMES)
            return _figures([bench.round(tuple(in_turns(NAMES, number))) for number in range(rounds)])


class _Bench:
    """What starts commands, one at a time."""

    def __init__(self, directory: Path, redis_url: str, client: redis.Redis) -> None:
        self._directory = directory
        self._client = client
        self._settings = {
            "REDIS_URL": redis_url,
            "CLOSE_SIGNATURE_KEYS": KEY,
            "CLOSE_API_URL": "http://127.0.0.1:1/api/v1",
            "RULES_FILE": str(RULES),
            "RECONCILE_EVERY": "off",
            "LOG_FORMAT": "json",
        }

    def round(self, names: Sequence[str]) -> dict[str, Start]:
        return {name: self._start(name) for name in names}

    def _start(self, name: str) -> Start:
        processes = Processes(self._directory, self._settings)
        try:
            if name in ENDING:
                return _until_it_ends(processes, name)
            return self._until_it_serves(processes, name)
        except (TimeoutError, TimeoutExpired):
            raise TookTooLongError(f"{name} was not ready:\n{processes.logs()}") from None
        finally:
            processes.close()

    def _until_it_serves(self, processes: Processes, name: str) -> Start:
        port = free_port()
        self._client.delete(REDIS_WORKER_KEYS)
        begun = time.perf_counter()
        match name:
            case "bare":
                pid = processes.start(name, str(port), module="tests.bench.bare_app")
            case "sandbox":
                pid = processes.start(name, name, "--port", str(port))
            case _:
                pid = processes.start(name, name, PORT=port, CLOSE_API_KEY="api_bench.bench")

        def ready() -> bool:
            processes.check()
            if name == "worker":
                return self._client.scard(REDIS_WORKER_KEYS) > 0
            return _answers(port, wants_ok=name == "web")

        wait_until(ready, seconds=MOST_SECONDS)
        return Start(seconds=time.perf_counter() - begun, cpu_seconds=cpu_seconds(pid))


def _until_it_ends(processes: Processes, name: str) -> Start:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    processes.start(name, *ENDING[name])
    processes.wait(name, seconds=MOST_SECONDS)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(seconds=seconds, cpu_seconds=used)


def _answers(port: int, *, wants_ok: bool) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=MOST_SECONDS) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            head = connection.recv(100)
    except OSError:
        return False
    return head.startswith(b"HTTP/1.1 200 " if wants_ok else b"HTTP/1.1 ")


def _figures(rounds: Sequence[dict[str, Start]]) -> Figures:
    figures: Figures = {"rounds": len(rounds)}
    for name in NAMES:
        figures[f"{name}_seconds"] = round(median(one[name].seconds for one in rounds), 3)
        figures[f"{name}_cpu_seconds"] = round(median(one[name].cpu_seconds for one in rounds), 3)
        if name != "bare":
            ratio = median(one[name].seconds / one["bare"].seconds for one in rounds)
            figures[f"{name}_to_bare"] = round(ratio, 2)
    return figures
