"""Ledger entries as the pure decisions see them."""

from __future__ import annotations

from typing import Any

from service.enrichment import Entry, State

NOW_MS = 1_791_970_212_000


def make_entry(**changes: Any) -> Entry:
    """An entry that was queued a second ago and has not been tried."""
    facts: dict[str, Any] = {
        "id": "a" * 20,
        "version": 1,
        "organization_id": "orga_1",
        "object_type": "lead",
        "object_id": "lead_1",
        "lead_id": "lead_1",
        "field_id": "cf_1",
        "field_name": "Industry",
        "rule": "Industry",
        "mode": "fill",
        "queue": "enrich",
        "event_id": "ev_1",
        "action": "created",
        "state": State.PLANNED,
        "reason": "",
        "job_id": "a" * 20 + "-1",
        "fence": 1,
        "holder": "worker-1",
        "attempts": 0,
        "calls": 0,
        "failures": 0,
        "judged": True,
        "ambiguous": False,
        "blocked": False,
        "value_before": None,
        "planned_ms": NOW_MS - 1000,
        "due_ms": NOW_MS - 1000,
        "changed_ms": NOW_MS - 1000,
        "called_ms": None,
        "ended_ms": None,
        "unreachable_ms": None,
    }
    return Entry(**facts | changes)
