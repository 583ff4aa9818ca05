"""A port that nobody else gets before it is listened on, and at which nobody answers until then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from stack_parts import HeldPort

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that a server may listen on meanwhile; see `HeldPort`."""
    with HeldPort() as held:
        yield held.number
