"""What happens to an event, step by step, for a tracing system: off unless `TRACING=otel`.

The rest of the service knows this module only. Off, a step costs a call that returns a constant, and nothing
is loaded: OpenTelemetry is imported by `service.tracing_otel` alone, and that by `start_tracing` alone.

Whoever notes something on a step names ids, kinds and reasons, as in a log line, and never a record's values.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from service.log import get_logger
from service.settings_values import TracingMode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

Kind: TypeAlias = Literal["internal", "server", "client", "consumer"]
"""OpenTelemetry's span kinds, of which we have these."""

Notes: TypeAlias = "Mapping[str, str | bool | int | float]"

NEW_TRACE = ""
"""As `within`: a step that belongs to no other."""


class Step:
    """One step while it lasts, used as `with tracing.step(...) as step`. This one is watched by nobody."""

    __slots__ = ()

    @property
    def context(self) -> str:
        """A W3C `traceparent` by which work elsewhere joins this step; "" where nobody watches."""
        return ""

    def note(self, notes: Notes) -> None:
        """Add attributes; after the step has ended, nothing happens."""

    def fail(self, error_type: str) -> None:
        """Mark the step as failed, with a word for how: a status or the name of a type."""

    def __enter__(self) -> Self:
        """Begin: steps begun in the same task meanwhile are parts of this one."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; what an exception says is not recorded, only its type."""


UNWATCHED = Step()


class Tracing:
    """Makes steps. This one is off; `service.tracing_otel` has the other."""

    __slots__ = ()

    def step(
        self,
        name: str,  # noqa: ARG002  what is off looks at nothing
        *,
        kind: Kind = "internal",  # noqa: ARG002  as above
        within: str | None = None,  # noqa: ARG002  as above
        notes: Notes | None = None,  # noqa: ARG002  as above
    ) -> Step:
        """A step that begins now.

        Args:
            name: one of a few: what is done, without ids.
            kind: what it is to others.
            within: the `Step.context` it is part of, from another process or time; `NEW_TRACE` for none; None
                for the step that this task is in.
            notes: its first attributes.
        """
        return UNWATCHED

    async def aclose(self) -> None:
        """Send what is left, for two seconds at most."""


OFF = Tracing()


def tracing_is_installed() -> bool:
    """Whether the packages of the extra `otel` are there."""
    wanted = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    try:
        return all(importlib.util.find_spec(name) is not None for name in wanted)
    except ModuleNotFoundError:
        return False


def start_tracing(mode: TracingMode) -> Tracing:
    """What a process traces with; to be closed when it ends.

    It stays off, with a line in the log, where the SDK cannot do with what its environment variables say.

    Raises:
        ImportError: it is to be on and the extra `otel` is not installed.
    """
    if mode is TracingMode.OFF:
        return OFF
    from service.tracing_otel import otlp_tracing  # noqa: PLC0415  there only with the extra, and slow to load

    try:
        return otlp_tracing()
    except ValueError as error:
        # its words are not repeated: they may quote a variable that holds a secret
        get_logger("tracing").error("tracing is off: see the OTEL_ variables", error=type(error).__name__)
        return OFF
