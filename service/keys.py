"""Every Redis key of ours, in one place. RQ's own (`rq:*`) come from RQ."""

from __future__ import annotations

COUNTS = "enrich:counts"
"""Hash: how many entries are in each state."""
ACTIVE = "enrich:active"
"""Sorted set: entries that are not final, by the moment (ms) something must have happened to them."""
ORGANIZATION = "enrich:organization"
"""String: the organization of every entry that names no other."""
HISTORY = "enrich:history"
"""Stream, capped: one line for each change of any entry."""
SINCE = "enrich:since"
"""String: since when (ms) this Redis remembers what was called. Missing, it has lost everything."""
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
CONFIRM = "enrich:confirm"
"""String, empty: written before replicas are asked what they have, with `REDIS_WAIT_REPLICAS`."""
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
RULES = "enrich:rules"
"""Hash that expires: which rules each web and worker process runs, and what is wrong with its rules file."""
RECONCILE_NOW = "enrich:reconcile:now"
"""String: there while Close's event log should be walked at once, as deliveries may have been lost."""
MISSED = "enrich:missed"
"""Counter: events that walks through Close's event log have found and no delivery had brought."""
ALERTS = "enrich:alerts"
"""Hash: what people were told, as JSON under `told` (see `service.alert_telling`)."""
ALERTER = "enrich:lease:alerter"
"""Lease: the one process that looks for what deserves an alert."""

METRICS = "enrich:metrics"
"""Hash: what all processes have counted, see `service.metrics_catalogue`."""
METRICS_RULES = "enrich:metrics:rules"
"""Set: the rules that are counted by their names; any beyond so many are counted as one."""
METRICS_NOW = "enrich:metrics:now"
"""Hash: what each worker tells of itself every few seconds, with the moment before it."""

BACKFILLS = "enrich:backfills"
"""Sorted set: the newest backfills by when they began (ms)."""


def entry(entry_id: str) -> str:
    """Hash: the ledger entry of one enrichment."""
    return f"enrich:entry:{entry_id}"


def story(entry_id: str) -> str:
    """List, capped: what happened to one enrichment, oldest first."""
    return f"enrich:story:{entry_id}"


def object_entries(object_id: str) -> str:
    """Hash: the entries of one lead or contact, each to "". A small set takes twice as much in Redis 7.0."""
    return f"enrich:of:{object_id}"


def event(event_id: str) -> str:
    """String: the `date_updated` of an event that may start finished fields again, as last planned."""
    return f"enrich:event:{event_id}"


def housekeeper(version: int) -> str:
    """Lease: the one worker that does the housekeeping, of those that know entries up to this version."""
    return f"enrich:lease:housekeeper:{version}"


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


def backfill(run_id: str) -> str:
    """Hash that expires: a backfill as it stands, with a revision that counts its steps."""
    return f"enrich:backfill:{run_id}"


def backfill_found(run_id: str) -> str:
    """List that expires: what a backfill is to enrich, a page of its search an element."""
    return f"enrich:backfill:{run_id}:found"


def backfill_of(order: str) -> str:
    """String that expires: the newest backfill with the same arguments, whose digest is the key."""
    return f"enrich:backfill:of:{order}"


def minute(unix_minute: int) -> str:
    """Hash that expires: what all processes have counted in one minute, for charts."""
    return f"enrich:minute:{unix_minute}"


def metrics_mark(process: str) -> str:
    """String with a time to live: the number of a process's latest flush that was added up."""
    return f"enrich:metrics:mark:{process}"


def session(digest: str) -> str:
    """String with a time to live: since when (Unix seconds) somebody is logged in to the dashboard."""
    return f"enrich:session:{digest}"


def session_notice(digest_key: str) -> str:
    """String with a time to live: what the next page of a session says at its top."""
    return f"{digest_key}:notice"


def attempts(what: str, whose: str, minute: int) -> str:
    """Counter with a time to live: logins or wrong tokens of one address, or of all, in one minute."""
    return f"enrich:attempts:{what}:{whose}:{minute}"
