"""What a process has used so far, from Linux's `/proc`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

KIB = 1024
MB = 1_000_000
FAMILY_TRIES = 10
CPU_CLOCK = 2
"""Linux makes a process's clock from its id and this, see clock_getcpuclockid(3); `stat` counts in 10 ms."""


def peak_memory_mb(pid: int) -> float:
    """The most memory the process has had in RAM, in millions of bytes.

    Raises:
        OSError: there is no such process, or no `/proc`.
    """
    return _status_mb(pid, "VmHWM")


def memory_mb(pid: int) -> float:
    """The memory the process has in RAM, in millions of bytes.

    Raises:
        OSError: there is no such process, or no `/proc`.
    """
    return _status_mb(pid, "VmRSS")


def shared_memory_mb(pid: int) -> float:
    """The memory of the process in millions of bytes, with what it shares divided by those who share it.

    Raises:
        OSError: there is no such process, or no `/proc`.
    """
    return _field_mb(Path(f"/proc/{pid}/smaps_rollup"), "Pss")


def family(pid: int) -> list[int]:
    """The process and all that descend from it and run."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def family_memory_mb(pid: int) -> float:
    """The memory of the process and all that descend from it, as `shared_memory_mb` has it.

    Raises:
        OSError: one of them ended while they were looked at, each time that it was tried.
    """
    for _ in range(FAMILY_TRIES - 1):
        with contextlib.suppress(OSError):
            return sum(shared_memory_mb(one) for one in family(pid))
    return sum(shared_memory_mb(one) for one in family(pid))


def _status_mb(pid: int, name: str) -> float:
    return _field_mb(Path(f"/proc/{pid}/status"), name)


def _field_mb(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB / MB
    raise OSError(f"{path} tells no {name}")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and all its threads, to the nanosecond.

    Raises:
        OSError: there is no such process, or this is not Linux.
    """
    return time.clock_gettime(~pid << 3 | CPU_CLOCK)
