"""Gives invented inputs to the receiver: to the app in this process, and as raw bytes to the server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import redis.asyncio
from bench.measure import memory_mb
from receiver_box import (
    KEY,
    OWN_API_KEY_ID,
    SAMPLES,
    TIMESTAMP,
    Receiver,
    captured_log,
    patience,
    rulebook,
    save_schemas,
)

from fuzz.deliveries import Inventor
from fuzz.verdict import problem, statuses, too_many_keys
from service import keys
from service.cli.serve import build_app
from service.log import configure_logging
from service.quarantine import MOST_KEPT
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.applications import Starlette

    from fuzz.deliveries import Delivery

CORPUS = Path(__file__).parent.parent / "corpus"
MOST_SEED_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
AT_ONCE = 48
ROUND = 10_000
"""Inputs between two looks at Redis, which is emptied each time: it need not hold all that was accepted."""

WIRE_SHARE = 0.02
WIRE_PATIENCE_SECONDS = 0.5
"""An odd head may leave the server waiting for more, rightly."""

MOST_FINDINGS = 20
MOST_GROWTH_MB = 32.0

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch, when: 'lead.url != "" && size(lead.contact_ids) > 0'}
  - {name: Size, object: lead, field: Size, on: [created, updated(url, name), merged]}
  - {name: Segment, object: lead, field: Segment, on: [updated(url)], when: 'lead.custom["Size"] > 5'}
  - {name: Seniority, object: contact, field: Seniority, when: contact.title.startsWith("C")}
"""


@dataclass(slots=True)
class Summary:
    """What came of a run.

    Attributes:
        seed, inputs, wire_inputs: what was run; the inputs include those on the wire.
        seconds: how long it took.
        statuses: how often each was answered; 0 for a connection without an answer.
        answers: how often each `status` was said in an answer's body.
        findings: what went wrong.
        busy: answers of 503, after which the same was delivered again, alone.
        memory_mb: this process's memory after a fifth, and at the end.
        most_keys, most_quarantined: in Redis at any look.
    """

    seed: int
    inputs: int = 0
    wire_inputs: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    busy: int = 0
    memory_mb: tuple[float, float] = (0.0, 0.0)
    most_keys: int = 0
    most_quarantined: int = 0

    def figures(self) -> dict[str, Any]:
        """All of it as plain data."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return told | {
            "statuses": dict(self.statuses.most_common()),
            "answers": dict(self.answers.most_common()),
        }

    def find(self, what: str, raw: bytes, *, keep_in: Path | None) -> None:
        """Note a finding, and keep the input that led to it."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(what)
            if keep_in is not None:
                keep_in.mkdir(parents=True, exist_ok=True)
                (keep_in / f"{self.seed}-{len(self.findings)}.bin").write_bytes(raw)


def seed_bodies() -> list[bytes]:
    """What inputs are made from: the samples of Close's events, and the corpus."""
    bodies = [path.read_bytes() for path in sorted(SAMPLES.glob("[01]*.json"))]
    return [one for one in bodies if len(one) <= MOST_SEED_BYTES] + list(corpus().values())


def corpus() -> dict[str, bytes]:
    """Bodies worth keeping, by their files' names."""
    return {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}


class Fuzz:
    """One run against one Redis.

    Args:
        redis_url: a Redis that may be emptied.
        seed: of all chance.
        keep_in: where inputs go that lead to a finding.
    """

    def __init__(self, redis_url: str, *, seed: int, keep_in: Path | None = None) -> None:
        self.summary = Summary(seed=seed)
        self._redis_url = redis_url
        self._keep_in = keep_in
        self._inventor = Inventor(
            random=Random(seed),  # noqa: S311  chance in tests is no secret
            seeds=seed_bodies(),
            key=bytes.fromhex(KEY),
            timestamp=int(TIMESTAMP),
        )
        self._chance = Random(seed)  # noqa: S311  as above
        self._results = 0
        self._again: list[Delivery] = []

    def run(self, inputs: int, *, progress: Callable[[Summary], None] = lambda _: None) -> Summary:
        """Give so many inputs to the receiver."""
        begun = time.monotonic()
        with errors_logged() as log:
            save_schemas(self._redis_url)
            self._with_server(inputs, begun, progress)
        for line in log.getvalue().splitlines():
            if "not accepted" not in line or not self.summary.busy:
                self.summary.find(line, b"", keep_in=None)
        self.summary.seconds = time.monotonic() - begun
        return self.summary

    def _with_server(self, inputs: int, begun: float, progress: Callable[[Summary], None]) -> None:
        settings = {"rules": rulebook(RULES), "MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
        with Receiver(self._redis_url, **settings) as server:
            asyncio.run(self._run(inputs, server.port, begun, progress))

    async def _run(self, inputs: int, port: int, begun: float, progress: Callable[[Summary], None]) -> None:
        summary = self.summary
        warm_mb = 0.0
        async with (
            receiver_app(self._redis_url) as app,
            redis.asyncio.Redis.from_url(self._redis_url) as client,
        ):
            while summary.inputs < inputs:
                count = min(ROUND, inputs - summary.inputs)
                turns = iter(range(count))
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(self._work(app, port, turns))
                again, self._again = self._again, []
                for delivery in again:
                    await self._in_process(app, delivery, alone=True)
                await self._look_at_redis(client)
                summary.seconds = time.monotonic() - begun
                if not warm_mb and summary.inputs >= inputs / 5:
                    warm_mb = memory_mb(os.getpid())
                summary.memory_mb = (warm_mb, memory_mb(os.getpid()))
                progress(summary)
        if summary.memory_mb[1] - summary.memory_mb[0] > MOST_GROWTH_MB:
            summary.find(f"memory grew: {summary.memory_mb}", b"", keep_in=None)

    async def _work(self, app: Starlette, port: int, turns: Iterator[int]) -> None:
        for _ in turns:
            self.summary.inputs += 1
            if self._chance.random() < WIRE_SHARE:
                await self._on_the_wire(port, self._inventor.request())
            else:
                await self._in_process(app, self._inventor.delivery())

    async def _in_process(self, app: Starlette, delivery: Delivery, *, alone: bool = False) -> None:
        """Deliver, and look at the answer.

        A machine that has other work to do may keep Redis waiting for so long that the answer is a 503: what
        got one is delivered again alone at the end of a round.
        """
        summary = self.summary
        try:
            status, answer = await ask(app, delivery)
            if status == HTTPStatus.SERVICE_UNAVAILABLE and not alone:
                summary.busy += 1
                self._again.append(delivery)
                return
        except Exception as error:  # noqa: BLE001  any exception is a finding
            summary.find(f"raised {error!r}", delivery.body, keep_in=self._keep_in)
            return
        summary.statuses[status] += 1
        summary.answers[answer.get("status", "refused")] += 1
        self._results += len(answer.get("planned", ()))
        found = problem(delivery, status, answer, max_body_bytes=MAX_BODY_BYTES)
        if found is not None:
            summary.find(found, delivery.body, keep_in=self._keep_in)

    async def _on_the_wire(self, port: int, raw: bytes) -> None:
        self.summary.wire_inputs += 1
        answered = statuses(await exchange(port, raw)) or [0]
        self.summary.statuses.update(answered)
        # each may have been planned
        self._results += len(answered) * 4
        if max(answered) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.summary.find(f"answered {answered} on the wire", raw, keep_in=self._keep_in)

    async def _look_at_redis(self, client: redis.asyncio.Redis) -> None:
        count, quarantined = await client.dbsize(), await client.xlen(keys.QUARANTINE)
        self.summary.most_keys = max(self.summary.most_keys, count)
        self.summary.most_quarantined = max(self.summary.most_quarantined, quarantined)
        found = too_many_keys(
            keys=count, results=self._results, quarantined=quarantined, most_quarantined=MOST_KEPT
        )
        if found is not None:
            self.summary.find(found, b"", keep_in=None)
        known = {keys.QUARANTINE.encode(), keys.schema("lead").encode(), keys.schema("contact").encode()}
        others = [name async for name in client.scan_iter(count=1000) if name not in known]
        for start in range(0, len(others), 1000):
            await client.unlink(*others[start : start + 1000])
        self._results = 0


@contextlib.asynccontextmanager
async def receiver_app(redis_url: str) -> Any:
    """The app with everything it works with, started."""
    environ = {
        "REDIS_URL": redis_url,
        "CLOSE_SIGNATURE_KEYS": KEY,
        "CLOSE_API_KEY_ID": OWN_API_KEY_ID,
        "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    }
    settings = load_settings(environ, needs=("REDIS_URL", "CLOSE_SIGNATURE_KEYS"))
    if not isinstance(settings, Settings):
        raise TypeError(settings)
    with patience():
        app = build_app(settings, rulebook(RULES))
        async with app.router.lifespan_context(app):
            yield app


async def ask(app: Starlette, delivery: Delivery) -> tuple[int, dict[str, Any]]:
    """Deliver in this process; status and body of the answer."""
    last = len(delivery.pieces) - 1
    coming = [
        {"type": "http.request", "body": piece, "more_body": place < last}
        for place, piece in enumerate(delivery.pieces)
    ]
    if delivery.cut:
        coming[-1] = {"type": "http.disconnect"}
    messages = iter(coming)
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/webhooks/close",
        "raw_path": b"/webhooks/close",
        "query_string": b"",
        "root_path": "",
        "headers": list(delivery.headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    raw = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(raw)


async def exchange(port: int, raw: bytes) -> bytes:
    """Send bytes to the server; all that it answers."""
    answered = bytearray()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(raw)
            async with asyncio.timeout(WIRE_PATIENCE_SECONDS):
                await writer.drain()
                while piece := await reader.read(65536):
                    answered += piece
        finally:
            writer.transport.abort()
    except (ConnectionError, TimeoutError):
        pass
    return bytes(answered)


class _Tail(io.StringIO):
    """Keeps the first lines only."""

    def write(self, text: str) -> int:
        return super().write(text) if self.tell() < 100_000 else len(text)


@contextlib.contextmanager
def errors_logged() -> Iterator[io.StringIO]:
    """The errors that are logged meanwhile, and nothing else."""
    stream = _Tail()
    with captured_log():  # which restores what was logged how
        configure_logging(log_format="json", level="error", secrets=(), stream=stream)
        yield stream
