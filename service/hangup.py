"""What SIGHUP means: read the rules file anew; or that the terminal we were started at is gone."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STANDARD_STREAMS = (0, 1, 2)


def hangup_handler(reload: Callable[[], None]) -> Callable[[], None]:
    """What to do on SIGHUP, for a process that has just started.

    Whoever asks a service to read its configuration anew sends SIGHUP, and so does a terminal that is closed:
    a process that was started at one then ends in good order, as on SIGTERM.

    Args:
        reload: has the configuration read anew.
    """
    started_at_one = _at_terminal()

    def hung_up() -> None:
        if started_at_one and not _at_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            reload()

    return hung_up


def _at_terminal() -> bool:
    """Whether any standard stream is a terminal that is still there: a closed one is none any more."""
    return any(os.isatty(stream) for stream in _STANDARD_STREAMS)
