"""The signature keys that a command may use: the environment's, then those the service has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.connection import connected
from service.cli.start import give_up
from service.keyring import Keyring
from service.log import get_logger

if TYPE_CHECKING:
    from service.ledger import Ledger
    from service.settings import Settings
    from service.signature import SignatureKey


def signing_keys_or_exit(settings: Settings) -> tuple[SignatureKey, ...]:
    """All keys that are known, at least one; or why there is none, and the end."""

    async def look(ledger: Ledger) -> tuple[SignatureKey, ...]:
        keyring = Keyring(
            ledger.redis, fixed=settings.signature_keys, clock=lambda: 0.0, log=get_logger("keys")
        )
        await keyring.look()
        if not keyring.current():
            # it keeps to itself that Redis does not answer, which here is why there is no key
            await ledger.redis.ping()
        return keyring.current()

    found = settings.signature_keys if settings.redis_url is None else connected(settings, look)
    if not found:
        give_up(
            "no signature key is known: set CLOSE_SIGNATURE_KEYS, or REDIS_URL of a service that knows one"
        )
    return tuple(found)
