"""A running sandbox for tests: its world to look into, a client to call it, a clock to set."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from service.sandbox.options import DEMO_API_KEY, SandboxOptions
from service.sandbox.server import serve_sandbox
from service.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

START = 1_791_970_212.418
"""2026-10-14T09:30:12.418Z, the moment of the sample events."""


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
    return World(
        options=SandboxOptions(**{**quick, **options}), clock=clock or Clock(), random=random.Random(7)
    )


@dataclass(frozen=True, slots=True)
class Box:
    """A served world."""

    world: World
    url: str
    api: httpx.AsyncClient

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
