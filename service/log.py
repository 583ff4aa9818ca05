"""Logging: one fact a line on stderr, as JSON or for a console, from our code and from the libraries alike.

Whoever logs names an event and ids, never a record's values. As a second fence, what is known to be secret
is taken out of every line here: keys such as `authorization`, passwords inside URLs, and every registered
secret wherever it stands, tracebacks included.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from service.settings_values import LogFormat, LogLevel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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

ROUTED_LOGGERS = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "rq",
    "rq.worker",
    "redis",
    "httpx",
    "httpcore",
)
"""Loggers of libraries whose lines go the same way as ours."""

_URL_CREDENTIALS = re.compile(r"://[^\s/'\"]+@")
_SHORTEST_SECRET = 6
MOST_KEYS_REMEMBERED = 1000


def configure_logging(
    *,
    log_format: str,
    level: str,
    secrets: Iterable[str],
    stream: TextIO | None = None,
    facts: Mapping[str, object] | None = None,
    no_color: bool = False,
) -> None:
    """Send everything this process logs through one pipe. To be called once, by the command line.

    Args:
        log_format: see `LogFormat`.
        level: see `LogLevel`; `QUIET_LOGGERS` stay at warnings at least.
        secrets: texts to mask wherever they turn up; any shorter than 6 characters would mask ordinary words.
        stream: where lines go; stderr when None.
        facts: what every line says besides.
        no_color: leave colours out of lines for a terminal, too.

    Raises:
        ValueError: an unknown format or level.
    """
    numeric_level = logging.getLevelNamesMapping()[LogLevel(level).upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if facts:
        shared.append(_Facts(facts))
    stream = stream or sys.stderr
    writing: list[Processor] = [
        # plain tracebacks: the other formatters print local variables, which hold records and keys
        structlog.processors.format_exc_info,
        Redactor(secrets),
        _renderer(LogFormat(log_format), colors=stream.isatty() and not no_color),
    ]
    structlog.configure(
        # ours go straight to the stream: through the standard library each would cost three times as much
        processors=[*shared, *writing],
        wrapper_class=structlog.make_filtering_bound_logger(numeric_level),
        logger_factory=_NamedLoggers(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *writing],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric_level)
    for name in ROUTED_LOGGERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)  # a library may have set one of its own since
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(numeric_level, logging.WARNING))


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger called `name`; may be made before `configure_logging` has run."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


class _NamedLogger(structlog.WriteLogger):
    """Writes lines to a stream; it has a name, as the standard library's loggers do."""

    def __init__(self, name: str, stream: TextIO) -> None:
        super().__init__(stream)
        self.name = name


class _NamedLoggers:
    """Makes structlog's loggers, one for each name."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._made: dict[str, _NamedLogger] = {}

    def __call__(self, name: str = "") -> _NamedLogger:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = _NamedLogger(name, self._stream)
        return made


class _Facts:
    """A structlog processor that adds what is the same in every line."""

    def __init__(self, facts: Mapping[str, object]) -> None:
        self._facts = dict(facts)

    def __call__(self, _logger: object, _method: str, event_dict: EventDict) -> EventDict:
        return {**self._facts, **event_dict}


class Redactor:
    """A structlog processor that takes secrets out of a line, at any depth.

    Args:
        secrets: texts to mask wherever they stand.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({text for text in secrets if len(text) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None
        self._keys: dict[object, str | None] = {}

    def __call__(self, _logger: object, _method: str, event_dict: EventDict) -> EventDict:
        """The line without its secrets; the one given is left as it is."""
        return self._clean_dict(event_dict)

    def _clean(self, value: object) -> object:
        # the commonest first: a line has dozens of values
        if type(value) is str:
            return self._clean_text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return self._clean_dict(value)
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in value]
        return self._clean_text(value if isinstance(value, str) else repr(value))

    def _clean_dict(self, value: Mapping[Any, object]) -> dict[str, object]:
        keys = self._keys
        cleaned: dict[str, object] = {}
        for key, item in value.items():
            shown = keys[key] if key in keys else self._key(key)
            if shown is not None:
                cleaned[shown] = self._clean(item)
        return cleaned

    def _key(self, key: object) -> str | None:
        """How a key is shown; None where it names a secret."""
        text = str(key)
        secret = text.lower().replace("-", "_") in SECRET_KEYS
        shown = None if secret else self._clean_text(text)
        if len(self._keys) < MOST_KEYS_REMEMBERED and isinstance(key, str):
            self._keys[key] = shown
        return shown

    def _clean_text(self, text: str) -> str:
        if "://" in text:
            text = _URL_CREDENTIALS.sub(f"://{MASK}@", text)
        return self._known.sub(MASK, text) if self._known else text


def _renderer(log_format: LogFormat, *, colors: bool) -> Processor:
    if log_format is LogFormat.JSON:
        encode = json.JSONEncoder(default=repr).encode
        # made once: json.dumps makes an encoder for each line where it is given what structlog gives it
        return structlog.processors.JSONRenderer(serializer=lambda line, **_: encode(line))
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
