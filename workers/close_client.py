"""Close as the settings have it: the client, and the key's name. Without the worker, which few need."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from workers.close_api import CloseApi

if TYPE_CHECKING:
    from service.settings import Settings


def close_api(settings: Settings) -> CloseApi:
    """The client for the configured key and address.

    Raises:
        ValueError: there is no key, or key or address cannot be used.
    """
    if settings.close_api_key is None:
        raise ValueError("CLOSE_API_KEY is not set")
    return CloseApi(api_key=settings.close_api_key.reveal(), base_url=settings.close_api_url)


def key_name(settings: Settings) -> str:
    """A name for the API key that tells nothing about it; Close limits each key by itself."""
    key = "" if settings.close_api_key is None else settings.close_api_key.reveal()
    return hashlib.blake2b(key.encode(), digest_size=6, person=b"limiter").hexdigest()
