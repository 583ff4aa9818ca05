"""Several processes that listen on one port.

On Linux each process has a socket of its own (`SO_REUSEPORT`), among which the kernel spreads connections.
Where all wait at one socket, the first to wake accepts whatever has come by then: of 64 connections opened at
once, one of two processes was seen to get all 64. Elsewhere the option does not spread, so they share one.
https://man7.org/linux/man-pages/man7/socket.7.html
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BACKLOG = 2048
"""Connections that may wait for a process; uvicorn's own number."""

_SPREADS = sys.platform == "linux"


class Port:
    """Where several processes listen: all addresses of a host, as one process would. Made by `open_port`.

    Args:
        addresses: family and address of each.
        shared: sockets at these addresses that all use; empty where each process has its own.
    """

    def __init__(
        self, addresses: Sequence[tuple[socket.AddressFamily, Any]], *, shared: Sequence[socket.socket] = ()
    ) -> None:
        self._addresses = tuple(addresses)
        self._shared = tuple(shared)

    @property
    def names(self) -> tuple[str, ...]:
        """The addresses for people, such as `127.0.0.1:8080`."""
        return tuple(
            f"[{address[0]}]:{address[1]}" if family == socket.AF_INET6 else f"{address[0]}:{address[1]}"
            for family, address in self._addresses
        )

    def sockets(self) -> list[socket.socket]:
        """Listening sockets for one more process.

        Raises:
            OSError: the port belongs to somebody else by now.
        """
        if self._shared:
            return [one.dup() for one in self._shared]
        with contextlib.ExitStack() as until_all_are_there:
            made = [
                until_all_are_there.enter_context(_listening(family, address, spread=True))
                for family, address in self._addresses
            ]
            until_all_are_there.pop_all()
        return made

    def close(self) -> None:
        """Give the port up; sockets that were handed out stay."""
        for one in self._shared:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_port(host: str, port: int, *, spread: bool = _SPREADS) -> Port:
    """A port that nobody listens on yet.

    Args:
        host: name or address; "" for all of this machine's.
        port: 0 for any free one.
        spread: whether each process gets sockets of its own.

    Raises:
        OSError: no such host, or the port is taken.
    """
    with contextlib.ExitStack() as alone:
        found = [alone.enter_context(one) for one in _tried(host, port)]
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, "no such address on this machine")
        addresses = [(one.family, one.getsockname()) for one in found]
        if not spread:
            alone.pop_all()
    return Port(addresses, shared=() if spread else found)


def _tried(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at each address, alone: one that spreads would not be told that the port is taken."""
    for family, _, _, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            yield _listening(family, address, spread=False)
        except OSError as error:
            # one of a name's addresses may be missing here, as ::1 of localhost is without IPv6
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise


def _listening(family: int, address: Any, *, spread: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if spread:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
