"""Rules: as loaded, with what each did and cost; and what they make of an event that somebody pastes."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from service.dashboard.explaining import EventExplained, explain_event
from service.dashboard.reading import value_words
from service.dashboard.routes import Call, Form, Page, Refused
from service.dashboard.rules_view import RulesView, read_rules

if TYPE_CHECKING:
    from starlette.responses import Response

    from service.dashboard.visit import Visit


class EventPasted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has pasted.

    Attributes:
        event: a delivery's body, or an event as Close's event log has it.
    """

    event: Annotated[str, msgspec.Meta(max_length=60_000)] = ""


class EventGiven(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be explained: a delivery's body as it is, or an event under `event`.

    Attributes:
        event: as Close's event log has it.
    """

    event: dict[str, Any]


async def rules(visit: Visit, _: Any) -> Response:
    """The page."""
    return await visit.page("rules.html", view=await read_rules(visit.desk))


async def rules_json(visit: Visit, _: Any) -> RulesView:
    """The same as JSON."""
    return await read_rules(visit.desk)


async def explain_page(visit: Visit, _: Any) -> Response:
    """The form by itself, for whoever reloads its answer."""
    return await visit.page("rules_explain.html", explained=None, problem="", pasted="", words=value_words)


async def explain_form(visit: Visit, pasted: EventPasted) -> Response:
    """The page with the explanation. It shows what was pasted and keeps nothing."""
    found = await explain_event(visit.desk, pasted.event.encode())
    problem = found if isinstance(found, str) else ""
    return await visit.page(
        "rules_explain.html",
        status=HTTPStatus.BAD_REQUEST if problem else HTTPStatus.OK,
        explained=None if isinstance(found, str) else found,
        problem=problem,
        pasted=pasted.event,
        words=value_words,
    )


async def explain_json(visit: Visit, given: EventGiven) -> EventExplained | Refused:
    """The same as JSON."""
    found = await explain_event(visit.desk, msgspec.json.encode(given.event))
    return Refused(status=HTTPStatus.BAD_REQUEST, error=found) if isinstance(found, str) else found


ROUTES = (
    Page(path="/rules", handler=rules, nav="Rules"),
    Page(path="/rules/explain", handler=explain_page),
    Form(path="/rules/explain", handler=explain_form, asks=EventPasted),
    Call(
        path="/api/rules",
        summary="The rules as loaded, what each did and cost, and what is wrong with them.",
        handler=rules_json,
        answers=RulesView,
        tag="rules",
    ),
    Call(
        method="POST",
        path="/api/rules/explain",
        summary="What the rules make of an event, and why. Nothing is planned.",
        handler=explain_json,
        answers=EventExplained,
        asks=EventGiven,
        tag="rules",
    ),
)
