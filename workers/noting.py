"""What a worker notes on its steps for tracing: ids, states and reasons, as in its log, and no values."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from service.transitions import Settlement
from workers.reply import Reply

if TYPE_CHECKING:
    from service.enrichment import Entry
    from service.tracing import Step
    from service.transitions import Postponement
    from workers.outcome import Outcome
    from workers.reply import Failure


def note_begin(step: Step, entry: Entry) -> None:
    """Note on an execution what it is about."""
    step.note(
        {
            "enrichment.id": entry.id,
            "enrichment.object": entry.object_id,
            "enrichment.field": entry.field_name,
            "enrichment.rule": entry.rule,
            "enrichment.queue": entry.queue,
            "event.id": entry.event_id,
        }
    )


def note_reply(step: Step, result: Reply | Failure) -> None:
    """Note on a request to Close what came back: a status, or how it ended without one."""
    if isinstance(result, Reply):
        step.note({"http.response.status_code": result.status})
        if result.status >= HTTPStatus.BAD_REQUEST:
            step.fail(str(result.status))
    else:
        step.fail(str(result.kind))


def note_call(step: Step, result: Reply | Failure, outcome: Outcome, *, attempt: int) -> None:
    """Note on a call for a field what came back, and what that means."""
    note_reply(step, result)
    step.note({"enrichment.attempt": attempt, "enrichment.outcome": type(outcome).__name__})


def note_end(step: Step, then: Settlement | Postponement, *, kept: bool) -> None:
    """Note on an execution how the enrichment ended or why it waits.

    Args:
        step: the execution.
        then: what became of the enrichment.
        kept: the ledger took it; False where somebody else holds the enrichment by now.
    """
    # what Close itself says of a refusal may quote the record
    step.note({"enrichment.reason": then.reason.partition(": ")[0], "enrichment.kept": kept})
    if isinstance(then, Settlement):
        step.note({"enrichment.outcome": str(then.state)})
    else:
        step.note({"enrichment.outcome": "postponed", "enrichment.cause": str(then.cause)})
        step.note({"enrichment.delay_seconds": round(then.delay_seconds, 3)})
