"""Every Redis key of ours, in one place. RQ's own (`rq:*`) come from RQ."""

from __future__ import annotations

COUNTS = "enrich:counts"
"""Hash: how many entries are in each state."""
ACTIVE = "enrich:active"
"""Sorted set: entries that are not final, by the moment (ms) something must have happened to them."""
HISTORY = "enrich:history"
"""Stream, capped: one line for each change of any entry."""
BACKLOG = "enrich:backlog"
"""List: authentic events that could not be planned yet because Close's schema was not to be had."""
QUARANTINE = "enrich:quarantine"
"""Stream, capped: authentic bodies that could not be read."""
HALT = "enrich:halt"
"""Hash, there only while all calls are halted: reason, kind, since_ms."""
RESUMED = "enrich:resumed"
"""String, for an hour: when a halt was last lifted (ms)."""
HELD = "enrich:held"
"""Sorted set: entries that the burst guard holds for a person, by when they were planned (ms)."""
ATTENTION = "enrich:attention"
"""Sorted set: dead letters, entries that ended so that a person has to look, by when they ended (ms)."""
BURST = "enrich:burst"
"""List: when the newest enrichments were planned (ms), newest first, as many as the burst guard allows."""
BREAKERS = "enrich:breakers"
"""Set: the fields whose breaker is open."""
PROBE = "enrich:probe"
"""Lease: at most one trial call in each interval while halted."""
HOUSEKEEPER = "enrich:lease:housekeeper"
"""Lease: the one worker that does the housekeeping."""
RECONCILER = "enrich:lease:reconciler"
"""Lease: the one worker that walks Close's event log."""
RECONCILED = "enrich:reconciled"
"""String with a time to live: Close's event log need not be walked before it expires."""
SIGNATURE_KEYS = "enrich:signature-keys"
"""Hash, secret: the signature keys of our webhook subscriptions by their ids. No command shows a value."""
WEBHOOK = "enrich:webhook"
"""Hash that expires: what the last look at our webhook subscription found: subscription, status, problem."""
WEBHOOK_PAUSED = "enrich:webhook:paused"
"""Set: subscriptions that a person has paused, which nothing but `webhook resume` reactivates."""
WEBHOOK_WATCHER = "enrich:lease:webhook"
"""Lease: one worker at a time looks at the webhook subscription, until the next look is due."""
RECONCILE_NOW = "enrich:reconcile:now"
"""String: there while Close's event log should be walked at once, as deliveries may have been lost."""


def entry(entry_id: str) -> str:
    """Hash: the ledger entry of one enrichment."""
    return f"enrich:entry:{entry_id}"


def story(entry_id: str) -> str:
    """List, capped: what happened to one enrichment, oldest first."""
    return f"enrich:story:{entry_id}"


def object_entries(object_id: str) -> str:
    """Set: the entries of one lead or contact."""
    return f"enrich:object:{object_id}"


def event(event_id: str) -> str:
    """String: the `date_updated` of an event that may start finished fields again, as last planned."""
    return f"enrich:event:{event_id}"


def log_mark(object_type: str, action: str) -> str:
    """String: up to which `date_updated` the event log has been drained of one kind of event."""
    return f"enrich:log:{object_type}:{action}"


def park(group: str) -> str:
    """String with a time to live: no call of this endpoint group before it expires."""
    return f"enrich:park:{group}"


def schema(object_type: str) -> str:
    """String: Close's custom field schema of leads or contacts, with the time it was read."""
    return f"enrich:schema:{object_type}"


def schema_asker(object_type: str) -> str:
    """Lease: the one process that asks Close for that schema, or has asked in vain a moment ago."""
    return f"enrich:schema:{object_type}:asker"


def spent(scope: str, period: str) -> str:
    """Counter: credits of `all` or `rule:<name>` spent or reserved in a day (2026-11-23) or month."""
    return f"enrich:spent:{scope}:{period}"


def breaker(field_id: str) -> str:
    """Hash: how often calls for a field have timed out in a row, and until when it is not called."""
    return f"enrich:breaker:{field_id}"


def cost(day: str) -> str:
    """Hash: what happened on a day, by rule, field and metric (see `service.costs`)."""
    return f"enrich:cost:{day}"


def limiter(api_key_name: str, group: str) -> str:
    """Hash: the pace of one endpoint group for one API key; the key's name is a digest."""
    return f"enrich:limiter:{api_key_name}:{group}"


def unused_permits(limiter_key: str) -> str:
    """Sorted set: calls that a limiter has permitted and that are not written down yet, by when (ms)."""
    return f"{limiter_key}:unused"
