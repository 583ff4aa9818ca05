"""A running sandbox for tests: its world to look into, a client to call it, a clock to set."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from service.sandbox import records
from service.sandbox.options import DEMO_API_KEY, SandboxOptions
from service.sandbox.server import serve_sandbox
from service.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from stack_parts import Background

START = 1_791_970_212.418
"""2026-10-14T09:30:12.418Z, the moment of the sample events."""


def chance(seed: int) -> random.Random:
    """Chance that repeats itself."""
    return random.Random(seed)  # noqa: S311  # tests need repetition, not secrecy


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def make_world(*, clock: Clock | None = None, **options: Any) -> World:
    """A world without latency whose chance and time are fixed."""
    quick = {"latency_min_seconds": 0.0, "latency_max_seconds": 0.0, "nothing_found_share": 0.0}
    return World(options=SandboxOptions(**{**quick, **options}), clock=clock or Clock(), random=chance(7))


@dataclass(frozen=True, slots=True)
class Close:
    """A world served in the background, for commands that are run in a test's own thread."""

    world: World
    url: str
    background: Background

    @classmethod
    @contextlib.contextmanager
    def served(cls, background: Background, **options: Any) -> Iterator[Close]:
        world = make_world(**options)
        with background.entered(serve_sandbox(world)) as url:
            yield cls(world, url, background)

    @property
    def settings(self) -> dict[str, str]:
        """What lets a command ask this Close."""
        return {"CLOSE_API_KEY": DEMO_API_KEY, "CLOSE_API_URL": f"{self.url}/api/v1"}

    def add_lead(self, **body: Any) -> dict[str, Any]:
        """A person makes a lead."""
        cause = self.world.cause(path="/api/v1/lead/", method="POST")
        return self.background.call(lambda: records.create_lead(self.world, body, cause))


@dataclass(frozen=True, slots=True)
class Box:
    """A served world."""

    world: World
    url: str
    api: httpx.AsyncClient

    def advance(self, seconds: float) -> None:
        """Move the world's clock."""
        clock = self.world.clock
        assert isinstance(clock, Clock)
        clock.advance(seconds)
        self.world.look_at_clock()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the world, but not for ever."""
        async with asyncio.timeout(20):
            await self.world.until(condition)

    async def lead(self, **body: Any) -> dict[str, Any]:
        """A new lead."""
        reply = await self.api.post("lead/", json={"name": "Brindlemoor Joinery", **body})
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def enrich(self, object_id: str, field: str = "Industry", **more: Any) -> httpx.Response:
        """One enrichment call."""
        return await self.api.post("enrich_field/", json=self.target(object_id, field, **more))

    async def raw_post(self, path: str, body: dict[str, Any]) -> bytes:
        """All bytes a plain socket gets for one call until the server closes the connection."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        payload, key = json.dumps(body).encode(), base64.b64encode(f"{DEMO_API_KEY}:".encode())
        writer.write(
            b"POST /api/v1/%s HTTP/1.1\r\nhost: x\r\nauthorization: Basic %s\r\ncontent-length: %d\r\n\r\n%s"
            % (path.encode(), key, len(payload), payload)
        )
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    def target(self, object_id: str, field: str = "Industry", **more: Any) -> dict[str, Any]:
        """The body of an enrichment call."""
        return {
            "organization_id": self.world.organization.id,
            "object_type": "contact" if object_id.startswith("cont_") else "lead",
            "object_id": object_id,
            "field_id": self.world.field_named(field).id,
            **more,
        }


@contextlib.asynccontextmanager
async def running(world: World | None = None, **options: Any) -> AsyncIterator[Box]:
    """Serve a world on a real socket."""
    world = world or make_world(**options)
    async with (
        serve_sandbox(world) as url,
        httpx.AsyncClient(
            base_url=f"{url}/api/v1/", auth=(DEMO_API_KEY, ""), trust_env=False, timeout=10
        ) as api,
    ):
        yield Box(world, url, api)
