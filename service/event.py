"""Close's webhook events. Pure: bytes in, an event or the reason there is none out.

A delivery is `{"subscription_id": …, "event": {…}}`; the event log serves the same `event` objects bare.
Only what names the event is required. Keys we do not know are ignored and the others may be missing or null,
as Close adds and omits some without notice. Source: https://developer.close.com/api/resources/events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

ENRICH_PATH = "/enrich_field/"
"""How the request path ends in an event that an enrichment caused; see `Event.own_write`."""

_LONGEST_KEY = 200


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event, decoded as far as planning needs it; `data` stays raw until somebody asks.

    Attributes:
        id: `ev_…`; the same event can be delivered more than once.
        organization_id: whose event it is.
        object_type: `lead`, `contact`, or any of the many types we do not enrich.
        object_id: the object the event is about; for `merged`, the lead that survives.
        lead_id: the lead the object belongs to, or None.
        action: `created`, `updated`, `merged`, `deleted`, …
        date_created: as Close wrote it: ISO 8601 without a zone, UTC.
        date_updated: moves when Close consolidates several changes into one event.
        changed_fields: attribute names and `custom.<field id>`; empty unless `updated`.
        api_key_id: the API key that caused the event, or None.
        request_path: the API path that caused the event, or None.
        subscription_id: the webhook subscription that delivered it, or None for one from the event log.
        data_json: the object after the change as raw JSON, or None. Never shown in logs or reprs.
    """

    id: str
    organization_id: str
    object_type: str
    object_id: str
    lead_id: str | None
    action: str
    date_created: str
    date_updated: str
    changed_fields: tuple[str, ...] = ()
    api_key_id: str | None = None
    request_path: str | None = None
    subscription_id: str | None = None
    data_json: bytes | None = None

    def __repr__(self) -> str:
        """Which event it is, without what it says of the record."""
        return f"Event(id={self.id!r}, {self.object_type}.{self.action}, object_id={self.object_id!r})"

    def data(self) -> dict[str, Any]:
        """The object's snapshot decoded, `{}` where the event carries none that can be read."""
        if self.data_json is None:
            return {}
        try:
            data = msgspec.json.decode(self.data_json)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    def own_write(self, own_api_key_id: str | None) -> bool:
        """Whether an enrichment, and so most likely we ourselves, caused the event.

        Close does not document what an enrichment leaves in its event, so either sign is enough: our API key
        or the enrichment path.

        Args:
            own_api_key_id: `api_…`, or None when it is not known.
        """
        if own_api_key_id is not None and self.api_key_id == own_api_key_id:
            return True
        return self.request_path is not None and self.request_path.endswith(ENRICH_PATH)


@dataclass(frozen=True, slots=True)
class Unparseable:
    """An authentic body that is not an event we can read; `reason` names what is wrong, never a value."""

    reason: str


def parse_event(body: bytes) -> Event | Unparseable:
    """Read a delivery's body. Never raises, whatever the bytes are."""
    try:
        envelope = _ENVELOPE.decode(body)
    except _UNREADABLE as error:
        return Unparseable(_reason(error))
    return _event(envelope.event, subscription_id=envelope.subscription_id)


def parse_any_event(body: bytes) -> Event | Unparseable:
    """Read an event as people have it: a delivery's whole body, or the event by itself. Never raises.

    The reason why it is none is a whole sentence for them.
    """
    try:
        decoded = msgspec.json.decode(body)
    except _UNREADABLE:
        return Unparseable("not JSON; expected a webhook's body, or an event as Close's event log has it")
    enveloped = isinstance(decoded, dict) and "event" in decoded
    event = parse_event(body) if enveloped else parse_log_event(body)
    return Unparseable(f"not an event of Close: {event.reason}") if isinstance(event, Unparseable) else event


def parse_log_event(body: bytes) -> Event | Unparseable:
    """Read one event object as the event log serves it, without an envelope. Never raises."""
    try:
        wire = _EVENT.decode(body)
    except _UNREADABLE as error:
        return Unparseable(_reason(error))
    return _event(wire, subscription_id=None)


class _Meta(msgspec.Struct):
    request_path: str | None = None
    merge_destination_lead_id: str | None = None


class _WireEvent(msgspec.Struct):
    id: str
    organization_id: str
    object_type: str
    object_id: str
    action: str
    lead_id: str | None = None
    date_created: str | None = None
    date_updated: str | None = None
    changed_fields: tuple[str, ...] | None = None
    api_key_id: str | None = None
    meta: _Meta | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Envelope(msgspec.Struct):
    event: _WireEvent
    subscription_id: str | None = None


_NO_META = _Meta()
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_EVENT = msgspec.json.Decoder(_WireEvent)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _reason(error: Exception) -> str:
    """What is wrong, without any value: msgspec's messages name types, positions and our own fields."""
    if isinstance(error, msgspec.DecodeError):
        return str(error)
    return "nested too deep" if isinstance(error, RecursionError) else "a string is not UTF-8"


def _event(wire: _WireEvent, *, subscription_id: str | None) -> Event | Unparseable:
    meta = wire.meta or _NO_META
    lead_id = wire.lead_id or None
    object_id = wire.object_id
    if wire.object_type == "lead" and wire.action == "merged":
        # Close says that `lead_id` is the destination; it does not say what `object_id` is.
        object_id = lead_id = meta.merge_destination_lead_id or lead_id or object_id
    named = (wire.id, wire.organization_id, wire.object_type, object_id, wire.action, lead_id or object_id)
    if not _can_be_keys(named):
        return Unparseable(_unfit(named))
    data_json = bytes(wire.data)
    return Event(
        id=wire.id,
        organization_id=wire.organization_id,
        object_type=wire.object_type,
        object_id=object_id,
        lead_id=lead_id,
        action=wire.action,
        date_created=wire.date_created or "",
        date_updated=wire.date_updated or "",
        changed_fields=wire.changed_fields or (),
        api_key_id=wire.api_key_id,
        request_path=meta.request_path,
        subscription_id=subscription_id,
        data_json=None if data_json == b"null" else data_json,
    )


_NAMED = ("id", "organization_id", "object_type", "object_id", "action", "lead_id")


def _can_be_keys(texts: tuple[str, ...]) -> bool:
    """Whether all can stand as they are in a Redis key and in a log line."""
    # all at once: one by one takes as long as decoding the event
    lengths = [len(one) for one in texts]
    joined = "".join(texts)
    return min(lengths) > 0 and max(lengths) <= _LONGEST_KEY and joined.isprintable() and " " not in joined


def _unfit(texts: tuple[str, ...]) -> str:
    """What is wrong with the first that cannot."""
    name = next(name for name, one in zip(_NAMED, texts, strict=True) if not _can_be_keys((one,)))
    return f"`{name}` must have 1 to {_LONGEST_KEY} characters without spaces or control characters"
