"""A look of `doctor` that ends in time with findings, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from service.doctor import Finding, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOK_SECONDS = 20.0


class NotLookedError(Exception):
    """A look is not possible; the message says why."""


async def bounded(look: Callable[[], Awaitable[list[Finding]]], *checks: str) -> list[Finding]:
    """What a look finds; where it takes too long or is not possible, that, for each of its checks.

    Args:
        look: what to do.
        checks: whose findings it makes.
    """
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await look()
    except TimeoutError:
        why = f"took longer than {LOOK_SECONDS:.0f} s"
    except NotLookedError as error:
        why = str(error)
    except (RedisError, OSError) as error:
        why = f"Redis does not answer ({type(error).__name__})"
    except Exception as error:  # noqa: BLE001  whatever one look stumbles over, the others are wanted
        why = f"internal error: {type(error).__name__}"
    return [Finding(check=check, state=State.NOT_CHECKED, finding=why) for check in checks]
