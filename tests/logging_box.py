"""Logging for tests: it is the process's own, so whoever sets it up leaves it as it was."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import structlog

from service.log import ROUTED_LOGGERS

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def logging_left_as_it_was() -> Iterator[None]:
    """Afterwards levels, handlers and structlog's settings are as before."""
    loggers = [logging.getLogger(name) for name in ("", *ROUTED_LOGGERS)]
    before = [(one, one.level, one.handlers[:], one.propagate) for one in loggers]
    try:
        yield
    finally:
        structlog.reset_defaults()
        for one, level, handlers, propagate in before:
            one.setLevel(level)
            one.handlers[:] = handlers
            one.propagate = propagate
