"""Whether a delivery was signed by Close. Pure: headers, bytes, keys and the time in, a verdict out.

Source: https://developer.close.com/api/resources/webhooks, "Webhook signatures". The signature is
`hex(HMAC_SHA256(bytes.fromhex(signature_key), timestamp + raw body))`: the timestamp in ASCII as it was
received, no separator. A retry may carry the timestamp of the first attempt, for up to 72 hours.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import unhexlify
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

HASH_HEADER = "close-sig-hash"
TIMESTAMP_HEADER = "close-sig-timestamp"

_HASH_NAME, _TIMESTAMP_NAME = HASH_HEADER.encode(), TIMESTAMP_HEADER.encode()
_LENGTHS = (len(_HASH_NAME), len(_TIMESTAMP_NAME))

Headers: TypeAlias = Iterable[tuple[bytes, bytes]] | Mapping[str, str]

_LEAST_KEY_DIGITS = 32
_KEY = re.compile(rf"(?:[0-9a-fA-F]{{2}}){{{_LEAST_KEY_DIGITS // 2},}}")
_DIGEST_BYTES = 32
_MOST_TIMESTAMP_DIGITS = 20


@dataclass(frozen=True, slots=True)
class SignatureKey:
    """The `signature_key` of one webhook subscription, decoded; it never shows in a repr."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> SignatureKey:
        """Read a key as Close hands it out.

        Args:
            text: an even number of hex digits, at least 32, in either case.

        Raises:
            ValueError: the text is something else; the message does not repeat it.
        """
        if not _KEY.fullmatch(text):
            raise ValueError(f"a signature key is an even number of hex digits, at least {_LEAST_KEY_DIGITS}")
        return cls(bytes.fromhex(text))


class Verified(msgspec.Struct, frozen=True):
    """The delivery was signed with one of our keys.

    Attributes:
        key_index: which of the given keys; tells when an old one can be dropped.
        age_seconds: from the signature's timestamp to now; negative when Close's clock is ahead.
    """

    key_index: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The delivery is not known to be Close's; `reason` holds nothing that was sent or expected."""

    reason: str


UNKNOWN_KEY = Refused("the signature matches no key")
"""Well-formed, and signed with none of the keys given; with a key learned since, it may verify."""


def verify(
    *,
    headers: Headers,
    body: bytes,
    keys: Sequence[SignatureKey],
    now: float,
    max_age_seconds: float | None,
) -> Verified | Refused:
    """Judge a delivery's signature. Every key is compared in constant time, whichever matches.

    Args:
        headers: the request's headers, as ASGI's pairs or as a mapping; names in any case.
        body: the raw body as received, not decoded and encoded again.
        keys: all keys in force, several while one is being replaced. With none, everything is refused.
        now: Unix time in seconds.
        max_age_seconds: refuse timestamps further from `now` than this, past or future; None checks no age.
    """
    sent = _signature_headers(headers)
    if isinstance(sent, Refused):
        return sent
    timestamp, digest = sent
    key_index = _matching_key(keys, timestamp=timestamp, body=body, digest=digest)
    if key_index is None:
        return UNKNOWN_KEY
    age_seconds = now - int(timestamp)
    if max_age_seconds is not None and age_seconds > max_age_seconds:
        return Refused(f"{TIMESTAMP_HEADER} is too old")
    if max_age_seconds is not None and age_seconds < -max_age_seconds:
        return Refused(f"{TIMESTAMP_HEADER} lies in the future")
    return Verified(key_index=key_index, age_seconds=age_seconds)


def _signature_headers(headers: Headers) -> tuple[bytes, bytes] | Refused:
    """The timestamp as received and the hash decoded; a repeated header leaves open which one was signed."""
    digests: list[bytes] = []
    timestamps: list[bytes] = []
    # the commonest first: to be asked whether it is a mapping takes longer
    pairs = headers if isinstance(headers, list) or not isinstance(headers, Mapping) else headers.items()
    for name, value in pairs:
        if len(name) not in _LENGTHS:
            continue
        lower = _ascii(name).lower()
        if lower == _HASH_NAME:
            digests.append(_ascii(value))
        elif lower == _TIMESTAMP_NAME:
            timestamps.append(_ascii(value))
    for header, values in ((HASH_HEADER, digests), (TIMESTAMP_HEADER, timestamps)):
        if len(values) != 1:
            return Refused(f"{header} is given more than once" if values else f"{header} is missing")
    (digest,), (timestamp,) = digests, timestamps
    try:
        wanted = unhexlify(digest)
    except ValueError:
        wanted = b""
    if len(wanted) != _DIGEST_BYTES:
        return Refused(f"{HASH_HEADER} is not 64 hex digits")
    if not (timestamp.isdigit() and len(timestamp) <= _MOST_TIMESTAMP_DIGITS):
        return Refused(f"{TIMESTAMP_HEADER} is not Unix seconds")
    return timestamp, wanted


def _ascii(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("ascii", "replace")


def _matching_key(
    keys: Sequence[SignatureKey], *, timestamp: bytes, body: bytes, digest: bytes
) -> int | None:
    """The index of the first key that signed the body; looks at all of them, so time tells nothing."""
    found: int | None = None
    for index, key in enumerate(keys):
        mac = hmac.new(key.key, timestamp, hashlib.sha256)
        mac.update(body)  # a second update: joining the two would copy a body of megabytes
        if hmac.compare_digest(mac.digest(), digest) and found is None:
            found = index
    return found
