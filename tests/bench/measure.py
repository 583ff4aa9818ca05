"""What a process has used so far, from Linux's `/proc`."""

from __future__ import annotations

import os
from pathlib import Path

KIB = 1024
MB = 1_000_000
AFTER_NAME = 3
"""The first two fields of `stat` are the id and the name, which may hold spaces; `state` is the third."""
UTIME, STIME = 14, 15


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


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB / MB
    raise OSError(f"/proc/{pid}/status tells no {name}")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process.

    Raises:
        OSError: there is no such process, or no `/proc`.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[UTIME - AFTER_NAME]) + int(fields[STIME - AFTER_NAME])
    return ticks / os.sysconf("SC_CLK_TCK")
