"""A running receiver for tests: the real app behind the real uvicorn, in a thread, and what speaks to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import io
import json
import os
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import redis
import redis.asyncio
from logging_box import logging_left_as_it_was
from waiting import wait_until

from service import intake, keyring, readiness
from service.cli import serve
from service.log import configure_logging, get_logger
from service.rules_file import load_rules
from service.schema_cache import SchemaCache
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from service.embedded_redis import EmbeddedRedis
    from service.rules import ObjectType, RuleBook

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())
KEY = MANIFEST["signature_key_hex_TEST_ONLY"]
ORGANIZATION = "orga_uCo5tyJaJWQBf2BS8gaxtQzYD5fqYx0SB5aB6KvmBzF"
OWN_API_KEY_ID = "api_CP2w27gBTPawQwWnZDGDPy"
"""The key that the sample of our own write names."""
TIMESTAMP = "1791970212"

PATIENT_SECONDS = 15.0
"""More than a busy machine takes for an answer of Redis, and less than `Receiver.request` waits for ours."""

_PATIENCE = (
    (serve, "REDIS_TIMEOUT_SECONDS"),
    (serve, "PATIENCE_SECONDS"),
    (intake, "PATIENCE_SECONDS"),
    (keyring, "PATIENCE_SECONDS"),
    (readiness, "PATIENCE_SECONDS"),
)
"""Whatever makes a receiver give Redis up."""

FIELDS = {
    "lead": {"cf_pitch": "Pitch", "cf_size": "Size", "cf_segment": "Segment"},
    "contact": {"cf_seniority": "Seniority"},
}

RULES = """
version: 1
rules:
  - {name: Pitch, object: lead, field: Pitch, on: [created, merged, updated(url)], settle: 0s}
  - {name: Size, object: lead, field: Size, on: [created], settle: 20s}
  - {name: Segment, object: lead, field: Segment, on: [created], settle: 0s, when: lead.status_label == "Won"}
  - {name: Seniority, object: contact, field: Seniority, on: [created, updated(title)], settle: 0s}
"""


def rulebook(text: str = RULES) -> RuleBook:
    loaded = load_rules(text, source="rules.yaml")
    if loaded.rulebook is None:
        raise ValueError(loaded.problems)
    return loaded.rulebook


def schema_payload(object_type: str, *, organization_id: str | None = ORGANIZATION) -> bytes:
    """What Close's schema endpoint answers."""
    fields = [{"id": key, "name": name, "type": "text"} for key, name in FIELDS[object_type].items()]
    return json.dumps(
        {"object_type": object_type, "organization_id": organization_id, "fields": fields}
    ).encode()


async def _save_schemas(redis_url: str) -> None:
    async def fetch(object_type: ObjectType) -> bytes:
        return schema_payload(object_type)

    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await SchemaCache(client, fetch=fetch, log=get_logger("test")).load()


def save_schemas(redis_url: str) -> None:
    """Let Redis know Close's fields, as if a worker had read them."""
    asyncio.run(_save_schemas(redis_url))


def forget(redis_url: str) -> None:
    """Empty Redis, but for Close's fields."""
    with redis.Redis.from_url(redis_url) as client:
        known = set(client.scan_iter("enrich:schema:*"))
        others = set(client.scan_iter()) - known
        if others:
            client.delete(*others)


def sample(number: str) -> bytes:
    (path,) = SAMPLES.glob(f"{number}_*.json")
    return path.read_bytes()


def sample_event(number: str = "02", **changes: Any) -> bytes:
    """A sample's body with some of its event's keys changed."""
    envelope = json.loads(sample(number))
    envelope["event"] |= changes
    return json.dumps(envelope).encode()


def signed(body: bytes, *, key: str = KEY, timestamp: str = TIMESTAMP) -> dict[str, str]:
    """The headers of a genuine delivery."""
    mac = hmac.new(bytes.fromhex(key), timestamp.encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "close-sig-hash": mac.hexdigest(),
        "close-sig-timestamp": timestamp,
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@contextlib.contextmanager
def captured_log() -> Iterator[io.StringIO]:
    """All that is logged meanwhile, in full and with nothing masked."""
    stream = io.StringIO()
    with logging_left_as_it_was():
        configure_logging(log_format="json", level="debug", secrets=(), stream=stream)
        yield stream


@contextlib.contextmanager
def paused(server: EmbeddedRedis) -> Iterator[None]:
    """A Redis that takes connections and answers nothing, meanwhile."""
    if server.process is None:
        raise ValueError("the server does not run")
    os.kill(server.process.pid, signal.SIGSTOP)
    # a signal is only on its way when `kill` returns
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def patience(*, of_redis: bool = True, start_seconds: float = PATIENT_SECONDS) -> Iterator[None]:
    """Receivers that are built and run meanwhile take no slow moment of the machine for an outage of Redis.

    Args:
        of_redis: whether they do not; else they have their own patience.
        start_seconds: how long their start waits for Close's fields.
    """
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(serve, "START_PATIENCE_SECONDS", start_seconds))
        for module, name in _PATIENCE if of_redis else ():
            patches.enter_context(mock.patch.object(module, name, PATIENT_SECONDS))
        yield


def wait_until_written(redis_url: str) -> None:
    """Wait until what Redis has taken outlives its kill: while it syncs it answers, but writes later."""
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)


class Receiver:
    """The receiver on a free port of 127.0.0.1, while the `with` block lasts.

    Args:
        redis_url: its Redis.
        rules: its rules; `RULES` if None.
        signature_keys: the setting.
        patient, start_patience: see `patience`.
        environ: more settings.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        rules: RuleBook | None = None,
        signature_keys: str = KEY,
        patient: bool = True,
        start_patience: float = PATIENT_SECONDS,
        **environ: str,
    ) -> None:
        settings = load_settings(
            {
                "REDIS_URL": redis_url,
                "CLOSE_SIGNATURE_KEYS": signature_keys,
                "CLOSE_API_KEY_ID": OWN_API_KEY_ID,
                **environ,
            },
            needs=("REDIS_URL", "CLOSE_SIGNATURE_KEYS"),
        )
        if not isinstance(settings, Settings):
            raise TypeError(settings)
        self._settings, self._rules = settings, rules or rulebook()
        self._patience = contextlib.ExitStack()
        self._wanted_patience = patience(of_redis=patient, start_seconds=start_patience)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._patience.enter_context(self._wanted_patience)
        self._server = serve.web_server(self._settings, self._rules)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        # the listener takes connections already; the first answer comes once the app has started
        if self.get("/livez").status != http.HTTPStatus.OK:
            raise RuntimeError("the receiver is not alive")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()
        self._patience.close()
        if self._thread.is_alive():
            raise TimeoutError("the receiver does not stop")

    def get(self, path: str, *, method: str = "GET") -> Answer:
        return self.request(method, path, None, {})

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        """Deliver a body, by default with a genuine signature."""
        return self.request("POST", "/webhooks/close", body, signed(body) if headers is None else headers)

    def request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            sent = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, sent, response.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)
