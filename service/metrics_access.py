"""Who may scrape, and read the reasons in `/readyz`. Pure.

Whoever is on this machine may, as long as `METRICS_TOKEN` is unset and nothing says that a proxy passes on
what somebody else asks. Everybody else needs a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_SCHEME = "bearer"
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]{1,5})?")


def may_scrape(
    *, client_host: str | None, headers: Mapping[str, str], metrics_token: str | None, admin_token: str | None
) -> bool:
    """Whether a request for metrics is to be answered.

    Args:
        client_host: the address it comes from; None where that is not known.
        headers: of the request, by their names in lower case.
        metrics_token: `METRICS_TOKEN`; where it is set, this machine needs a token, too.
        admin_token: `ADMIN_TOKEN`, which opens the same door.
    """
    tokens = [token for token in (metrics_token, admin_token) if token]
    if _bears_one_of(tokens, headers.get("authorization", "")):
        return True
    return not metrics_token and _from_this_machine(client_host, headers)


def _bears_one_of(tokens: Sequence[str], authorization: str) -> bool:
    scheme, _, given = authorization.strip().partition(" ")
    # all are compared, each in constant time, so that the time tells nothing
    matches = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in tokens]
    return scheme.lower() == _SCHEME and any(matches)


def _from_this_machine(client_host: str | None, headers: Mapping[str, str]) -> bool:
    return (
        _is_loopback(client_host or "")
        and _names_this_machine(headers.get("host", ""))
        and not any(name in headers for name in _PASSED_ON)
    )


def _names_this_machine(host: str) -> bool:
    """Whether a Host header names a loopback address: a page elsewhere cannot have a browser send that."""
    match = _HOST.fullmatch(host.lower())
    name = "" if match is None else match["six"] or match["name"]
    return name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
