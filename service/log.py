"""Logging: one fact a line on stderr, as JSON or for a console, from our code and from the libraries alike.

Whoever logs names an event and ids, never a record's values. As a second fence, what is known to be secret
is taken out of every line here: keys such as `authorization`, passwords inside URLs, and every registered
secret wherever it stands, tracebacks included.
"""

from __future__ import annotations

import logging
import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from structlog.typing import EventDict, FilteringBoundLogger, Processor

MASK = "***"

SECRET_KEYS = frozenset(
    {
        "api_key",
        "authorization",
        "close_api_key",
        "close_sig_hash",
        "close_signature_keys",
        "cookie",
        "password",
        "signature_key",
        "signature_keys",
    }
)
"""Keys never logged, written with `_` for `-` and in lower case."""

# RQ gives some of its loggers a level of their own unless they have one already
QUIET_LOGGERS = ("httpcore", "httpx", "rq", "rq.job", "rq.worker", "urllib3", "uvicorn.access")
"""Libraries that write a line for every request or job, some with a record's id in a URL: warnings only."""

_ROUTED_LOGGERS = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "rq",
    "rq.worker",
    "redis",
    "httpx",
    "httpcore",
)
_URL_CREDENTIALS = re.compile(r"://[^\s/'\"]+@")
_SHORTEST_SECRET = 6


class LogFormat(StrEnum):
    """How a line is written."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def configure_logging(
    *, log_format: str, level: str, secrets: Iterable[str], stream: TextIO | None = None
) -> None:
    """Send everything this process logs through one pipe. To be called once, by the command line.

    Args:
        log_format: see `LogFormat`.
        level: see `LogLevel`; `QUIET_LOGGERS` stay at warnings at least.
        secrets: texts to mask wherever they turn up; any shorter than 6 characters would mask ordinary words.
        stream: where lines go; stderr when None.

    Raises:
        ValueError: an unknown format or level.
    """
    numeric_level = logging.getLevelNamesMapping()[LogLevel(level).upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(numeric_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # plain tracebacks: the other formatters print local variables, which hold records and keys
                structlog.processors.format_exc_info,
                Redactor(secrets),
                _renderer(LogFormat(log_format), colors=handler.stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric_level)
    for name in _ROUTED_LOGGERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)  # a library may have set one of its own since
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(numeric_level, logging.WARNING))


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger called `name`; may be made before `configure_logging` has run."""
    return cast("FilteringBoundLogger", structlog.stdlib.get_logger(name))


class Redactor:
    """A structlog processor that takes secrets out of a line, at any depth.

    Args:
        secrets: texts to mask wherever they stand.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({text for text in secrets if len(text) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _logger: object, _method: str, event_dict: EventDict) -> EventDict:
        """The line without its secrets; the one given is left as it is."""
        return cast("EventDict", self._clean(event_dict))

    def _clean(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {
                self._clean(str(key)): self._clean(item)
                for key, item in value.items()
                if str(key).lower().replace("-", "_") not in SECRET_KEYS
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in value]
        text = value if isinstance(value, str) else repr(value)
        text = _URL_CREDENTIALS.sub(f"://{MASK}@", text)
        return self._known.sub(MASK, text) if self._known else text


def _renderer(log_format: LogFormat, *, colors: bool) -> Processor:
    if log_format is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
