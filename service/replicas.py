"""Waiting until replicas have what was written, so that a failover right afterwards does not lose it.

Replication is asynchronous: a promoted replica may lack what the master answered last. `WAIT` tells how many
replicas have all of it. https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

WAIT_MS = 500
"""How long replicas may take: well within the second in which a delivery is answered."""


class TooFewReplicasError(RedisError):
    """The master has it, and too few replicas do: a failover now could lose it."""


def ask_replicas(pipeline: Pipeline, replicas: int) -> None:
    """Ask at the end of a pipeline how many replicas have all that was written so far, whoever wrote it.

    It adds two answers, of which the last is for `are_enough`.
    """
    # Valkey waits for what this very connection has written: a write of its own, after all the others'
    pipeline.set(keys.CONFIRM, "")
    pipeline.wait(replicas, WAIT_MS)


async def are_enough(redis: Redis, *, wanted: int, have_it: object) -> bool:
    """Whether so many replicas have it, as `WAIT` answered.

    Where they do not, the client connects anew: a master that lost its replicas may not be the master any
    more, and not know it yet.
    """
    if isinstance(have_it, int) and have_it >= wanted:
        return True
    await redis.connection_pool.disconnect(inuse_connections=False)
    return False


async def confirm(redis: Redis, replicas: int) -> None:
    """Return once so many replicas have all that was written before; at once for none.

    Raises:
        TooFewReplicasError: they did not within half a second.
    """
    if replicas == 0:
        return
    async with redis.pipeline(transaction=False) as pipeline:
        ask_replicas(pipeline, replicas)
        _, have_it = await pipeline.execute()
    if not await are_enough(redis, wanted=replicas, have_it=have_it):
        raise TooFewReplicasError(f"{have_it} of {replicas} replicas have it")
