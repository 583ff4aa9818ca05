"""wrk, the load generator: prepared requests as fast as they are answered, each sent once."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import TookTooLongError

if TYPE_CHECKING:
    from collections.abc import Iterable

SCRIPT = Path(__file__).parent / "each_once.lua"
CONNECTIONS = 64
MOST_SECONDS = 120


class NoWrkError(Exception):
    """There is no wrk here; the message says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a round came to.

    Attributes:
        seconds: from the first request to the last answer.
        statuses: how many answers had which HTTP status.
    """

    seconds: float
    statuses: dict[int, int]


def wrk_binary() -> str:
    """The path of wrk.

    Raises:
        NoWrkError: see there.
    """
    found = shutil.which("wrk")
    if found is None:
        raise NoWrkError("wrk is not here, and this suite needs it: apt-get install wrk (Debian)")
    return found


def save_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write requests as `each_once.lua` reads them."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%08d\n" % len(request))
            file.write(request)


def send_all(path: Path, *, port: int, connections: int = CONNECTIONS) -> Sent:
    """Send all requests of a file, from one thread.

    Args:
        path: see `save_requests`.
        port: of 127.0.0.1.
        connections: each with one request at a time.

    Raises:
        NoWrkError: see there.
        TookTooLongError: not all were answered in two minutes.
    """
    result = path.with_suffix(".result")
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(wrk_binary(), "-t", "1", "-c", str(connections), "-d", str(MOST_SECONDS)),
            *("--timeout", str(MOST_SECONDS), "-s", str(SCRIPT)),
            *(f"http://127.0.0.1:{port}/", "--", str(path), str(result)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not result.exists():
        raise TookTooLongError(f"wrk: not all requests were answered\n{done.stdout}{done.stderr}")
    told = json.loads(result.read_text())
    return Sent(
        seconds=told["seconds"], statuses={int(status): count for status, count in told["statuses"].items()}
    )
