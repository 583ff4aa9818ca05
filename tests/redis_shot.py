"""All that Redis holds, to see that something changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis

_OF_VISITS = ("enrich:session:", "enrich:attempts:")


async def shot(client: Redis) -> dict[str, Any]:
    """Every key with its contents, but for who is logged in."""
    found: dict[str, Any] = {}
    async for raw in client.scan_iter():
        key = raw.decode()
        if not key.startswith(_OF_VISITS):
            found[key] = await client.dump(raw)
    return found
