"""Posting a message to `ALERT_WEBHOOK_URL`. What came of it comes back as data; cancellation is raised."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from service.alert_text import payload, plain
from workers.close_address import environment_proxy

if TYPE_CHECKING:
    from service.settings_values import Secret

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 10.0
MOST_ANSWER_BYTES = 1024
MOST_SAID_CHARACTERS = 100
_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What came of a post.

    Attributes:
        delivered: the receiver answered 2xx.
        said: what it answered, or why it could not be asked, in words; never the address.
        retry_after_seconds: how long it wants to be left alone, where it says so in whole seconds.
    """

    delivered: bool
    said: str
    retry_after_seconds: float | None = None


class AlertPoster:
    """Posts to one address. A post is rare, so each has a connection of its own and nothing needs closing.

    Redirects are reported, never followed. The environment's proxy is used.

    Args:
        url: where to, which is a secret: whoever knows it can post.
    """

    def __init__(self, url: Secret) -> None:
        self._url = url

    async def post(self, text: str) -> Posted:
        """Post one message, within ten seconds."""
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                return await self._exchange(text)
        except (TimeoutError, httpx.TimeoutException):
            return Posted(delivered=False, said="no answer in time")
        except httpx.ConnectError:
            return Posted(delivered=False, said="it cannot be reached")
        # what an error says may name the address, so only its kind is told
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            return Posted(delivered=False, said=f"it cannot be asked ({type(error).__name__})")

    async def _exchange(self, text: str) -> Posted:
        url = self._url.reveal()
        transport = httpx.AsyncHTTPTransport(
            verify=httpx.create_ssl_context(),
            proxy=environment_proxy(url),
            limits=httpx.Limits(max_connections=1),
        )
        timeout = httpx.Timeout(WHOLE_SECONDS, connect=CONNECT_SECONDS)
        headers = {"content-type": "application/json", "user-agent": "close-enrich"}
        async with (
            httpx.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False) as client,
            client.stream("POST", url, content=payload(text), headers=headers) as response,
        ):
            body = b""
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MOST_ANSWER_BYTES:
                    break
        words = plain(body[:MOST_ANSWER_BYTES].decode(errors="replace").replace(url, "***"))
        return Posted(
            delivered=response.is_success,
            said=" ".join([str(response.status_code), words[:MOST_SAID_CHARACTERS]]).strip(),
            retry_after_seconds=_retry_after_seconds(response.headers.get("retry-after", "")),
        )


def _retry_after_seconds(text: str) -> float | None:
    return float(text) if _SECONDS.fullmatch(text) else None
