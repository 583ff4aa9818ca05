"""Posting one event to a receiver, as Close would."""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage
    from typing import IO

MOST_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """What a receiver said: any status, redirects too, and the start of its body."""

    status: int
    body: bytes


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Close follows none that we know of, and a signed body belongs to one address."""

    def redirect_request(
        self,
        _req: urllib.request.Request,
        _fp: IO[bytes],
        _code: int,
        _msg: str,
        _headers: HTTPMessage,
        _newurl: str,
    ) -> None:
        """Never."""


def post(url: str, *, body: bytes, headers: Mapping[str, str], timeout_seconds: float = 15.0) -> Answered:
    """Send it, and tell what came back. The environment's proxy is used, but not for this machine.

    Args:
        url: http:// or https://.
        body: the raw bytes.
        headers: all but the length.
        timeout_seconds: for connecting and for each read.

    Raises:
        OSError: nobody answered.
        ValueError: the address is none.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError("expected an http:// or https:// URL")
    request = urllib.request.Request(url, data=body, method="POST", headers=dict(headers))  # noqa: S310  looked at above
    proxies = urllib.request.ProxyHandler({} if _is_here(url) else None)
    try:
        with urllib.request.build_opener(proxies, _NoRedirects).open(
            request, timeout=timeout_seconds
        ) as answer:
            return Answered(answer.status, answer.read(MOST_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return Answered(error.code, error.read(MOST_ANSWER_BYTES))


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
