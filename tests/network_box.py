"""Machines apart, as Linux network namespaces: a hub, and far ones with two links each, to Redis and Close.

All addresses are inside the namespaces, which have no way out; what listens in the hub listens for the far
ones only. Whoever is inside one makes sockets, threads and processes there. A link that is taken down at the
hub is what a broken cable is: nothing is refused, nothing arrives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack import Stack

EVERYWHERE = "0.0.0.0"  # noqa: S104  a hub is reached by its far machines only
"""What listens in a hub listens on all its links."""

REDIS_PORT = 6379
REACH_SECONDS = 1.0
HUB_END, FAR_END = 1, 2
NEW_NETWORK = 0x40000000
"""`CLONE_NEWNET`, see setns(2)."""


@dataclass(frozen=True, slots=True)
class Far:
    """One machine beside the hub, by what it is called.

    Attributes:
        number: from 0.
        namespace: its network namespace.
    """

    number: int
    namespace: str

    @property
    def redis_host(self) -> str:
        """The hub, by the link to Redis."""
        return _address("redis", self.number, HUB_END)

    @property
    def close_host(self) -> str:
        """The hub, by the link to Close."""
        return _address("close", self.number, HUB_END)

    def reaches(self, host: str, port: int) -> bool:
        """Whether a connection can be made from here."""
        with inside(self.namespace):
            try:
                socket.create_connection((host, port), timeout=REACH_SECONDS).close()
            except OSError:
                return False
        return True


class Network:
    """A hub and so many far machines. Made by `network`."""

    def __init__(self, machines: int) -> None:
        name = f"enrich-{secrets.token_hex(3)}"
        self.hub = f"{name}-hub"
        self.far = [Far(number, f"{name}-{number}") for number in range(machines)]

    def make(self) -> None:
        """Make all of it.

        Raises:
            subprocess.CalledProcessError: the kernel does not let us.
        """
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "set", "lo", "up")
        for far in self.far:
            _ip("netns", "add", far.namespace)
            _ip("-n", far.namespace, "link", "set", "lo", "up")
            for link in ("redis", "close"):
                ours = f"{link}{far.number}"
                _ip("-n", self.hub, "link", "add", ours, "type", "veth", "peer", link, "netns", far.namespace)
                for namespace, device, end in ((self.hub, ours, HUB_END), (far.namespace, link, FAR_END)):
                    _ip(
                        "-n", namespace, "addr", "add", f"{_address(link, far.number, end)}/24", "dev", device
                    )
                    _ip("-n", namespace, "link", "set", device, "up")

    def remove(self) -> None:
        """Take all of it down, whatever there is of it; links go with their namespaces."""
        for namespace in (self.hub, *(far.namespace for far in self.far)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)

    def pull(self, far: Far) -> None:
        """Take a machine's link to Redis away; that to Close stays."""
        _ip("-n", self.hub, "link", "set", f"redis{far.number}", "down")

    def plug_in(self, far: Far) -> None:
        """Give it back."""
        _ip("-n", self.hub, "link", "set", f"redis{far.number}", "up")


@contextlib.contextmanager
def network(machines: int) -> Iterator[Network]:
    """A hub and so many far machines while the context lasts."""
    made = Network(machines)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def why_not() -> str | None:
    """Why there can be no namespaces here, or None where there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip`, of iproute2"
    try:
        with network(1) as made, inside(made.hub):
            return None
    except subprocess.CalledProcessError as error:
        return f"the kernel makes no network namespaces or links here: {error.stderr.strip()}"
    except OSError as error:
        return f"the kernel lets nobody into a network namespace here: {error.strerror}"


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace: this thread, and the threads and processes that it starts meanwhile."""
    with Path("/proc/thread-self/ns/net").open("rb") as own:
        with Path(f"/run/netns/{namespace}").open("rb") as wanted:
            _enter(wanted.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def serve_redis_to_far(stack: Stack) -> None:
    """Let the stack's Redis, which listens on a unix socket, be reached from the far machines."""
    stack.redis.config_set("protected-mode", "no")
    stack.redis.config_set("bind", EVERYWHERE)
    stack.redis.config_set("port", REDIS_PORT)


def start_worker(stack: Stack, name: str, far: Far, **settings: object) -> None:
    """Start a worker on a far machine."""
    redis_url = f"redis://{far.redis_host}:{REDIS_PORT}/0"
    close_url = f"http://{far.close_host}:{sandbox_port(stack)}/api/v1"
    with inside(far.namespace):
        stack.start_worker(name, REDIS_URL=redis_url, CLOSE_API_URL=close_url, **settings)


def sandbox_port(stack: Stack) -> int:
    """Where the stack's sandbox listens in the hub."""
    return urlsplit(stack.processes.environ["CLOSE_API_URL"]).port or 0


def _address(link: str, number: int, end: int) -> str:
    return f"10.{77 if link == 'redis' else 78}.{number}.{end}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, NEW_NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
