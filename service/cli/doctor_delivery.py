"""What `doctor` sends to the public address: an event that leads to nothing, genuine and forged."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import threading
import time
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import URLError

from service.cli.post import post
from service.doctor_address import Answered, address_findings
from service.sandbox.delivery import delivery_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.doctor import Finding
    from service.signature import SignatureKey

POST_SECONDS = 6.0
MOST_KEYS = 5
"""How many signature keys are tried."""


async def try_address(url: str, keys: Sequence[SignatureKey]) -> list[Finding]:
    """Deliver to the receiver as Close would.

    Args:
        url: the receiver's address.
        keys: those that are known here; the receiver should know them, too.
    """
    forged = await _in_thread(partial(deliver, url, signature_key=secrets.token_hex(32)))
    genuine: Answered | None = None
    for key in keys[:MOST_KEYS] if forged.status is not None else ():
        genuine = await _in_thread(partial(deliver, url, signature_key=key.key.hex()))
        if genuine.status != HTTPStatus.UNAUTHORIZED:
            break
    return address_findings(genuine, forged, address=url)


def deliver(url: str, *, signature_key: str) -> Answered:
    """Post one event of another organization and of no known type, which is answered and leads to nothing.

    Args:
        url: where to.
        signature_key: in hex.
    """
    body = _body()
    headers = delivery_headers(signature_key=signature_key, timestamp=int(time.time()), body=body)
    headers |= {"User-Agent": "close-enrich doctor", "Accept-Encoding": "identity"}
    try:
        answer = post(url, body=body, headers=headers, timeout_seconds=POST_SECONDS)
    except (OSError, HTTPException, ValueError) as error:
        return _unanswered(error)
    return Answered(status=answer.status, body=answer.body)


def _body() -> bytes:
    event = {
        "id": f"ev_doctor{secrets.token_hex(8)}",
        "organization_id": "orga_of_the_doctor",
        "object_type": "doctor",
        "object_id": "doctor_1",
        "action": "checked",
    }
    return json.dumps({"subscription_id": "whsub_of_the_doctor", "event": event}).encode()


def _unanswered(error: Exception) -> Answered:
    """Why nobody answered; urllib wraps the reason of what failed before the answer."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Answered(failure=reason.verify_message, untrusted=True)
    if isinstance(reason, TimeoutError):
        return Answered(failure=f"no answer within {POST_SECONDS:.0f} s")
    words = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
    return Answered(failure=words)


async def _in_thread(work: Callable[[], Answered]) -> Answered:
    """Run something that blocks, in a thread that nobody waits for once its time is over."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answered] = loop.create_future()

    def settle(found: Answered) -> None:
        if not answer.done():
            answer.set_result(found)

    def run() -> None:
        found = work()
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=run, name="delivery", daemon=True).start()
    return await answer
