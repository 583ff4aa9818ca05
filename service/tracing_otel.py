"""Tracing with OpenTelemetry: the only module that imports it, and imported only where `TRACING=otel`.

The SDK reads its own environment variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`,
`OTEL_TRACES_SAMPLER`, `OTEL_SDK_DISABLED`, `OTEL_BSP_…`): https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
Ended spans wait in a bounded queue for a thread that sends them; whatever becomes of them, nobody else waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.log import get_logger
from service.tracing import Kind, Notes, Step, Tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

LAST_SENDING_SECONDS = 2.0
"""How long the end of a process waits for its last spans to be sent."""

GIVING_UP_SECONDS = 0.2
"""How long it waits for the one who sends them to let go."""

_W3C = TraceContextTextMapPropagator()
_HEADER = "traceparent"

# what these tell of trouble they tell of every batch anew
_REPETITIVE = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_READS_HEADERS = "opentelemetry.util.re"


class _OtelStep(Step):
    """A span, and the step that this task is in while it lasts."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def context(self) -> str:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._span, Context()))
        return carrier.get(_HEADER, "")

    def note(self, notes: Notes) -> None:
        if self._span.is_recording():
            self._span.set_attributes(notes)

    def fail(self, error_type: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(Status(StatusCode.ERROR))

    def __enter__(self) -> Self:
        self._token = otel_context.attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        otel_context.detach(self._token)
        self._span.end()


def _nothing() -> None:
    """For who has nothing more to do."""


class OtelTracing(Tracing):
    """Makes spans of a provider, and shuts it down.

    Args:
        provider: made without a shutdown at exit, which nothing bounds.
        give_up: what is done about a shutdown that takes too long.
        on_close: what is done at the very end.
    """

    __slots__ = ("_give_up", "_on_close", "_provider", "_tracer")

    def __init__(
        self,
        provider: TracerProvider,
        *,
        give_up: Callable[[], None] = _nothing,
        on_close: Callable[[], None] = _nothing,
    ) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("close-enrich", version("close-enrich"))
        self._give_up = give_up
        self._on_close = on_close

    def step(
        self, name: str, *, kind: Kind = "internal", within: str | None = None, notes: Notes | None = None
    ) -> Step:
        """See `Tracing.step`."""
        parent = None if within is None else _W3C.extract({_HEADER: within}, Context())
        span = self._tracer.start_span(name, parent, SpanKind[kind.upper()], notes)
        return _OtelStep(span)

    async def aclose(self) -> None:
        """See `Tracing.aclose`."""
        # a daemon: a collector that is away or hangs does not keep the process from ending
        last = threading.Thread(target=self._provider.shutdown, name="sending the last spans", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, LAST_SENDING_SECONDS)
        if last.is_alive():
            self._give_up()
            await asyncio.to_thread(last.join, GIVING_UP_SECONDS)
        self._on_close()


class OnceUntilItWorks(logging.Filter):
    """Lets one line of several loggers through, and the next after `works`."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  the first, whatever it says
        """Whether the line is the first."""
        first, self._told = not self._told, True
        return first

    def works(self) -> bool:
        """All is well; True where a line had told otherwise."""
        told, self._told = self._told, False
        return told


class WithoutHeaders(logging.Filter):
    """Takes a header that cannot be read, which may well be a token, out of the line about it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line through, in other words."""
        record.msg, record.args = "OTEL_EXPORTER_OTLP_HEADERS: expected name=value, comma-separated", ()
        return True


class Telling(SpanExporter):
    """Passes spans on, and says when that works again after a line of trouble.

    Args:
        exporter: sends them.
        lines: what its lines of trouble pass through.
    """

    def __init__(self, exporter: SpanExporter, lines: OnceUntilItWorks) -> None:
        self._exporter = exporter
        self._lines = lines
        self._log = get_logger("tracing")
        self._ended = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the thread of the span processor."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS and self._lines.works():
            self._log.info("spans are taken again")
        return result

    def shutdown(self) -> None:
        """End; a batch that is waiting to be sent once more is given up. The second time changes nothing."""
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()


def otlp_tracing() -> OtelTracing:
    """Tracing that sends spans by OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says.

    Raises:
        ValueError: the SDK cannot do with what one of its environment variables says.
    """
    lines = OnceUntilItWorks()
    filters: list[tuple[str, logging.Filter]] = [
        *((name, lines) for name in _REPETITIVE),
        (_READS_HEADERS, WithoutHeaders()),
    ]
    for name, one in filters:
        logging.getLogger(name).addFilter(one)

    def let_lines_be() -> None:
        for name, one in filters:
            logging.getLogger(name).removeFilter(one)

    ours = Resource.create({SERVICE_NAME: "close-enrich", SERVICE_VERSION: version("close-enrich")})
    # what the environment says of the service goes before what we say
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    telling = Telling(OTLPSpanExporter(), lines)
    provider.add_span_processor(BatchSpanProcessor(telling))
    return OtelTracing(provider, give_up=telling.shutdown, on_close=let_lines_be)
