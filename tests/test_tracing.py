"""Tracing: one trace from a signed delivery to the last execution of its enrichment; off, nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import subprocess
import sys
import time

import pytest
from entries import make_entry
from ledger_box import LedgerBox, event, wanted
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from otlp_box import Collector
from receiver_box import KEY, ORGANIZATION, captured_log, rulebook, sample, schema_payload, signed
from reserved_port import reserved_port
from test_ask import FOUND, Asking

from service import keys
from service.accept import Accepter
from service.enrichment import State, entry_id
from service.intake import Intake
from service.knowledge import Knowledge
from service.log import get_logger
from service.meter import Meter
from service.rules import ObjectType
from service.schema import parse_schema
from service.signature import SignatureKey
from service.tracing import NEW_TRACE, OFF, UNWATCHED, TracingMode, start_tracing, tracing_is_installed
from service.tracing_otel import OnceUntilItWorks, OtelTracing, Telling
from workers.enrich import enrich
from workers.noting import note_call, note_reply
from workers.outcome import Found
from workers.reply import Failure, FailureKind, Reply

RULES = "{version: 1, rules: [{name: Pitch, object: lead, field: Pitch, settle: 0s}]}"
FOREIGN_TRACE = "0af7651916cd43dd8448eb211c80319c"
FOREIGN_HEADERS = {
    "traceparent": f"00-{FOREIGN_TRACE}-b7ad6b7169203331-01",
    "sentry-trace": f"{FOREIGN_TRACE}-b7ad6b7169203331-1",
    "baggage": f"sentry-trace_id={FOREIGN_TRACE},sentry-environment=production",
}
LEAD = json.loads(sample("02"))["event"]["object_id"]
JSON = {"content-type": "application/json"}
MOMENT_SECONDS = 5.0
"""On a busy machine; the SDK by itself tries for ten seconds to send what is left."""


class Traced:
    """Tracing as one process has it, and the spans that ended there."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = OtelTracing(provider)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def only(self, name):
        (span,) = self.named(name)
        return span


class Journey:
    """One lead's delivery and the executions that follow, in a `web` and a worker that share a Redis."""

    def __init__(self, redis, *, web, worker):
        self.redis = redis
        self.web, self.worker = web, worker
        schemas = {kind: parse_schema(schema_payload(kind), object_type=kind) for kind in ObjectType}
        knowledge = Knowledge.of(rulebook(RULES), schemas)
        log = get_logger("test")
        meter = Meter(redis, clock=time.time, log=log)

        async def no_more_keys():
            pass

        self.intake = Intake(
            redis=redis,
            accepter=Accepter(redis, meter=meter, tracing=web),
            knowledge=lambda: knowledge,
            signature_keys=lambda: (SignatureKey.parse(KEY),),
            look_for_keys=no_more_keys,
            signature_max_age_seconds=None,
            own_api_key_id=None,
            clock=time.time,
            log=log,
            meter=meter,
            timer=time.perf_counter,
            tracing=web,
        )
        asking = Asking(redis, budget=None)
        self.close, self.box = asking.close, asking.box
        self.tools = dataclasses.replace(asking.tools, knowledge=lambda: knowledge, tracing=worker)
        self.entry_id = entry_id(organization_id=ORGANIZATION, object_id=LEAD, field_id="cf_pitch")

    async def deliver(self, body, headers=None):
        sent = signed(body) | FOREIGN_HEADERS if headers is None else headers
        return await self.intake.receive([(k.encode(), v.encode()) for k, v in sent.items()], body)

    async def execute(self, *replies):
        """Run the job that delivers the enrichment now; Close answers so, in turn."""
        left = list(replies)

        async def answer(**_):
            return left.pop(0)

        self.close.enrich_field = answer
        entry = await self.box.entry(self.entry_id)
        await enrich(entry.job_id, self.tools, holder=f"w/{entry.job_id}")
        return await self.box.entry(self.entry_id)


def tree(*processes):
    """Names of spans, each with its parent's, in the order in which they began."""
    spans = sorted((span for one in processes for span in one.spans), key=lambda span: span.start_time)
    names = {span.context.span_id: span.name for span in spans}
    return [(names[span.parent.span_id] if span.parent else None, span.name) for span in spans]


@pytest.fixture
def web():
    return Traced()


@pytest.fixture
def worker():
    return Traced()


@pytest.fixture
def journey(async_redis, web, worker):
    return Journey(async_redis, web=web.tracing, worker=worker.tracing)


async def test_one_trace_leads_from_the_delivery_over_a_postponement_to_the_end(journey, web, worker):
    answer = await journey.deliver(sample("02"))
    assert answer.body["status"] == "accepted", answer
    assert (await journey.execute(Reply(status=503, headers=JSON, body=b"{}"))).state is State.WAITING
    assert (await journey.execute(Reply(status=200, headers=JSON, body=FOUND))).state is State.FILLED
    execution = [
        ("accept", "enrich"),
        ("enrich", "read record"),
        ("enrich", "wait for permit"),
        ("enrich", "enrich_field"),
    ]
    assert tree(web, worker) == [
        (None, "POST /webhooks/close"),
        ("POST /webhooks/close", "plan"),
        ("POST /webhooks/close", "accept"),
        *execution,
        ("enrich", "postpone"),
        *execution,
        ("enrich", "settle"),
    ]
    traces = {span.context.trace_id for span in (*web.spans, *worker.spans)}
    assert len(traces) == 1
    assert traces != {int(FOREIGN_TRACE, 16)}


async def test_spans_say_what_happened(journey, web, worker):
    await journey.deliver(sample("02"))
    await journey.execute(Reply(status=503, headers=JSON, body=b"{}"))
    await journey.execute(Reply(status=200, headers=JSON, body=FOUND))
    of_event = json.loads(sample("02"))["event"]["id"]
    delivery = web.only("POST /webhooks/close")
    assert delivery.kind.name == "SERVER"
    assert dict(delivery.attributes) == {
        "event.id": of_event,
        "event.type": "lead.created",
        "delivery.result": "accepted",
        "http.response.status_code": 202,
    }
    assert dict(web.only("accept").attributes) == {"event.id": of_event, "event.enrichments": 1}
    first, second = worker.named("enrich")
    assert {first.kind.name, second.kind.name} == {"CONSUMER"}
    about = {
        "enrichment.id": journey.entry_id,
        "enrichment.object": LEAD,
        "enrichment.field": "Pitch",
        "enrichment.rule": "Pitch",
        "enrichment.queue": "enrich",
        "event.id": of_event,
        "enrichment.kept": True,
    }
    assert about.items() <= dict(first.attributes).items()
    assert first.attributes["enrichment.outcome"] == "postponed"
    assert first.attributes["enrichment.cause"] == "retry"
    assert "503" in first.attributes["enrichment.reason"]
    assert first.attributes["enrichment.delay_seconds"] > 0
    assert dict(second.attributes) == about | {"enrichment.outcome": "filled", "enrichment.reason": ""}
    refused, found = worker.named("enrich_field")
    assert {refused.kind.name, found.kind.name} == {"CLIENT"}
    assert dict(refused.attributes) == {
        "http.response.status_code": 503,
        "error.type": "503",
        "enrichment.attempt": 1,
        "enrichment.outcome": "Retry",
    }
    assert refused.status.status_code is StatusCode.ERROR
    assert dict(found.attributes) == {
        "http.response.status_code": 200,
        "enrichment.attempt": 2,
        "enrichment.outcome": "Found",
    }


def texts_in(value):
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


async def test_no_value_of_a_record_is_in_any_span(journey, web, worker):
    await journey.deliver(sample("02"))
    await journey.execute(Reply(status=400, headers=JSON, body=b'{"error": "no such lead: Marisol Venn"}'))
    shown = json.dumps([json.loads(span.to_json()) for span in (*web.spans, *worker.spans)])
    data = json.loads(sample("02"))["event"]["data"]
    # what a person could have typed; two of the lead's names are words of ours, and ids are no values
    values = {text for text in texts_in(data) if " " in text or "@" in text or "." in text} | {"Marisol"}
    assert len(values) > 10
    assert [value for value in values if value in shown] == []
    assert LEAD in shown


async def test_close_may_send_what_it_likes_about_its_own_traces(journey, web):
    await journey.deliver(sample("02"))
    await journey.deliver(sample("02"))
    first, second = web.named("POST /webhooks/close")
    assert first.parent is None
    assert first.context.trace_id != second.context.trace_id
    assert [span.attributes["delivery.result"] for span in (first, second)] == ["accepted", "duplicate"]


async def test_a_refused_delivery_is_a_span_without_an_event(journey, web):
    answer = await journey.deliver(sample("02"), {"content-type": "application/json"})
    assert answer.status == 401
    span = web.only("POST /webhooks/close")
    assert dict(span.attributes) == {"delivery.result": "refused", "http.response.status_code": 401}
    assert span.status.status_code is StatusCode.UNSET


async def test_a_delivery_that_was_not_accepted_is_marked_as_failed(journey, web, monkeypatch):
    async def away(*_arguments, **_options):
        raise ConnectionRefusedError

    monkeypatch.setattr(journey.intake, "_process", away)
    assert (await journey.deliver(sample("02"))).status == 503
    span = web.only("POST /webhooks/close")
    assert (span.attributes["error.type"], span.status.status_code) == ("503", StatusCode.ERROR)


async def test_a_worker_that_is_told_to_stop_says_so_on_the_execution(journey, worker):
    await journey.deliver(sample("02"))
    asked = asyncio.Event()

    async def hang(**_):
        asked.set()
        await asyncio.Event().wait()

    journey.close.enrich_field = hang
    entry = await journey.box.entry(journey.entry_id)
    task = asyncio.create_task(enrich(entry.job_id, journey.tools, holder="w/1"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = worker.only("enrich")
    assert span.attributes["enrichment.reason"] == "the worker stopped during the call"
    assert span.attributes["error.type"] == worker.only("enrich_field").attributes["error.type"]
    assert span.attributes["error.type"] == "CancelledError"


async def test_the_context_is_kept_with_the_entry_and_left_when_a_later_event_reopens_it(async_redis):
    traced, box = Traced(), LedgerBox(async_redis)

    async def accept(number, tracing):
        of_event = event(f"ev_{number}", action="updated", stamp=f"2026-10-14T09:30:1{number}.000000")
        accepter = Accepter(async_redis, tracing=tracing)
        (done,) = await accepter.accept(of_event, [wanted(reopens=True)])
        entry = await box.entry(done.enrichment)
        raw = await async_redis.hget(keys.entry(entry.id), "trace")
        assert entry.trace == (None if raw is None else raw.decode())
        await box.settle(await box.calling(entry.id))
        return done.result, entry.trace

    first, second, third = [await accept(n, t) for n, t in enumerate((traced.tracing, traced.tracing, OFF))]
    of_first, of_second = [
        f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
        for span in traced.named("accept")
    ]
    assert [first, second, third] == [("planned", of_first), ("reopened", of_second), ("reopened", None)]


async def test_off_nothing_is_kept_and_a_worker_that_traces_begins_a_trace_of_its_own(async_redis, worker):
    journey = Journey(async_redis, web=OFF, worker=worker.tracing)
    await journey.deliver(sample("02"))
    assert await async_redis.hexists(keys.entry(journey.entry_id), "trace") is False
    await journey.execute(Reply(status=200, headers=JSON, body=FOUND))
    assert worker.only("enrich").parent is None


@pytest.mark.parametrize("within", [NEW_TRACE, "00-0-0-0", "nonsense", "é"])
def test_what_names_no_trace_begins_a_new_one(worker, within):
    with worker.tracing.step("around"), worker.tracing.step("apart", within=within):
        pass
    assert worker.only("apart").parent is None


def test_what_an_exception_says_is_not_recorded(worker):
    with contextlib.suppress(ValueError), worker.tracing.step("step"):
        raise ValueError("Marisol Venn")
    span = worker.only("step")
    assert span.attributes["error.type"] == "ValueError"
    assert "Marisol" not in span.to_json()
    assert span.events == ()


def test_what_is_noted_after_the_end_is_left_out_without_a_word(worker):
    with captured_log() as log, worker.tracing.step("step") as step:
        pass
    with captured_log() as log:
        step.note({"late": True})
        step.fail("late")
    assert log.getvalue() == ""
    assert dict(worker.only("step").attributes) == {}


@pytest.mark.parametrize(
    ("result", "noted"),
    [
        (Reply(status=200, headers={}, body=b""), {"http.response.status_code": 200}),
        (
            Reply(status=429, headers={}, body=b""),
            {"http.response.status_code": 429, "error.type": "429"},
        ),
        (Failure(kind=FailureKind.READ_TIMEOUT, detail="x"), {"error.type": "read_timeout"}),
    ],
)
def test_a_request_tells_its_status_or_how_it_failed(worker, result, noted):
    with worker.tracing.step("read") as step:
        note_reply(step, result)
    with worker.tracing.step("call") as step:
        note_call(step, result, Found(value="Retail"), attempt=3)
    assert dict(worker.only("read").attributes) == noted
    assert dict(worker.only("call").attributes) == noted | {
        "enrichment.attempt": 3,
        "enrichment.outcome": "Found",
    }


# off


async def test_off_every_step_is_the_same_one_that_does_nothing():
    assert start_tracing(TracingMode.OFF) is OFF
    with OFF.step("a", kind="server", within=NEW_TRACE, notes={"a": 1}) as step:
        step.note({"b": 2})
        step.fail("c")
    assert step is UNWATCHED
    assert step.context == ""
    await OFF.aclose()
    assert make_entry().trace is None


# redis-py itself loads parts of the SDK where it is installed, to offer metrics that nobody here asks for
WEB_AND_WORKER = """
import sys
if {hidden}:
    sys.modules["opentelemetry"] = None
import service.cli.main, service.cli.serve, workers.job
from service.cli.start import settings_or_exit
from service.tracing import start_tracing, tracing_is_installed
start_tracing(settings_or_exit().tracing)
ours = ("service.tracing_otel", "opentelemetry.exporter", "google", "requests", "urllib3")
print([name for name in sys.modules if name.startswith(ours)], tracing_is_installed())
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_off_nothing_that_traces_is_loaded_and_nothing_needs_to_be_there(hidden):
    code = WEB_AND_WORKER.format(hidden=hidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"[] {not hidden}\n"


def test_on_without_the_packages_a_command_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert not tracing_is_installed()
    done = cli("status", TRACING="otel")
    assert (done.exit_code, done.stderr) == (
        2,
        "TRACING: otel needs packages that are not installed: pip install 'close-enrich[otel]'\n",
    )


# sending


@pytest.fixture
def sending(monkeypatch):
    """Begin to send to an address, with more of the SDK's own variables."""

    def begin(url, **environ):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        for name, text in environ.items():
            monkeypatch.setenv(name, text)
        return start_tracing(TracingMode.OTEL)

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # no pause of this process is to pass for one of the collector's
    monkeypatch.setattr("service.tracing_otel.LAST_SENDING_SECONDS", 20.0)
    return begin


async def test_spans_are_sent_to_where_the_sdks_own_variables_say(sending):
    with Collector() as collector:
        tracing = sending(collector.url, OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test")
        with tracing.step("outer", notes={"event.id": "ev_1"}), tracing.step("inner"):
            pass
        await tracing.aclose()
    inner, outer = sorted(collector.spans, key=lambda span: span.name)
    assert (inner.parent_id, inner.trace_id, outer.parent_id) == (outer.span_id, outer.trace_id, "")
    assert outer.notes == {"event.id": "ev_1"}
    assert outer.process["service.name"] == "close-enrich"
    assert outer.process["deployment.environment.name"] == "test"


async def test_the_environment_may_give_the_service_another_name(sending):
    with Collector() as collector:
        tracing = sending(collector.url, OTEL_SERVICE_NAME="enrich-eu")
        with tracing.step("step"):
            pass
        await tracing.aclose()
    assert [span.process["service.name"] for span in collector.spans] == ["enrich-eu"]


@pytest.mark.parametrize(
    ("environ", "kept"),
    [({"OTEL_SDK_DISABLED": "true"}, False), ({"OTEL_TRACES_SAMPLER": "always_off"}, True)],
)
async def test_what_is_disabled_or_not_sampled_is_not_sent(sending, worker, environ, kept):
    with Collector() as collector:
        tracing = sending(collector.url, **environ)
        with tracing.step("step") as step:
            assert bool(step.context) is kept
            context = step.context
        await tracing.aclose()
        assert collector.requests == 0
    with worker.tracing.step("enrich", within=context or NEW_TRACE):
        pass
    # the decision not to sample is the whole trace's
    assert len(worker.spans) == (0 if kept else 1)


async def test_a_collector_that_is_away_costs_a_line_and_a_moment_at_the_end(sending, monkeypatch):
    monkeypatch.setattr("service.tracing_otel.LAST_SENDING_SECONDS", 0.2)
    with captured_log() as log, reserved_port() as port:
        tracing = sending(
            f"http://127.0.0.1:{port}",
            OTEL_BSP_SCHEDULE_DELAY="1",
            OTEL_BSP_MAX_QUEUE_SIZE="4",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
        )
        began = time.monotonic()
        for _ in range(1000):
            with tracing.step("step"):
                pass
        assert time.monotonic() - began < MOMENT_SECONDS
        began = time.monotonic()
        await tracing.aclose()
        assert time.monotonic() - began < MOMENT_SECONDS
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert line["level"] in {"warning", "error"}


async def test_a_collector_that_refuses_is_told_of_once_and_when_it_takes_spans_again(sending):
    with Collector(status=400) as collector, captured_log() as log:
        tracing = sending(collector.url, OTEL_BSP_SCHEDULE_DELAY="5")

        async def sent(more):
            wanted = collector.requests + more
            while collector.requests < wanted:
                with tracing.step("step"):
                    await asyncio.sleep(0.005)

        await sent(3)
        collector.status = 200
        await sent(3)
        await tracing.aclose()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines][1:] == ["spans are taken again"]
    assert "400" in lines[0]["event"]


async def test_a_header_that_cannot_be_read_is_not_shown(sending):
    with Collector() as collector, captured_log() as log:
        tracing = sending(collector.url, OTEL_EXPORTER_OTLP_HEADERS="sesame-open-now")
        await tracing.aclose()
    assert "sesame" not in log.getvalue()
    assert "OTEL_EXPORTER_OTLP_HEADERS: expected name=value" in log.getvalue()


async def test_variables_that_the_sdk_cannot_do_with_leave_tracing_off(sending):
    with captured_log() as log:
        assert sending("http://127.0.0.1:9", OTEL_BSP_MAX_QUEUE_SIZE="-1") is OFF
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert line["event"] == "tracing is off: see the OTEL_ variables"


async def test_the_filters_on_the_sdks_loggers_end_with_the_tracing(sending):
    watched = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    before = watched.filters[:]
    tracing = sending("http://127.0.0.1:9")
    assert len(watched.filters) == len(before) + 1
    await tracing.aclose()
    assert watched.filters == before


def test_an_exporter_that_works_from_the_start_is_not_worth_a_line():
    class Takes:
        def export(self, _):
            return SpanExportResult.SUCCESS

        def shutdown(self):
            self.ended = True

    takes, lines = Takes(), OnceUntilItWorks()
    with captured_log() as log:
        telling = Telling(takes, lines)
        assert telling.export([]) is SpanExportResult.SUCCESS
        telling.shutdown()
    assert log.getvalue() == ""
    assert takes.ended
