"""Where Close's API is, and which proxy stands on the way."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

DEFAULT_BASE_URL = "https://api.close.com/api/v1"
_API_PATH = "/api/v1"


def api_root(base_url: str) -> str:
    """The API's address without a slash at its end.

    Args:
        base_url: with or without `/api/v1`, which is added where it is missing, and a slash at the end.

    Raises:
        ValueError: not an `http` or `https` address, or one with a user, a query or a fragment. The message
            does not show the address, because a mistyped one may hold a secret.
    """
    expected = f"base_url must be an address like {DEFAULT_BASE_URL}"
    try:
        # Split at spaces: one within an address would otherwise become part of the host's name.
        (text,) = base_url.split()
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{expected}: http:// or https://, then a host")
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError(f"{expected}, without a user, a query or a fragment")
    path = url.path.rstrip("/")
    return f"{url.scheme}://{url.netloc}{path if path.endswith(_API_PATH) else path + _API_PATH}"


def environment_proxy(root: str) -> str | None:
    """The proxy that the environment names for an address, or None where it names none.

    `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` name a proxy, `NO_PROXY` the hosts reached without one, each
    in upper or lower case, as Python's own `urllib.request.getproxies` reads them.

    Args:
        root: an `http` or `https` address.
    """
    url = urlsplit(root)
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or proxy_bypass(url.netloc):
        return None
    return address if "://" in address else f"http://{address}"
