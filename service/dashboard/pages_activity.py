"""Activity: the newest changes, by rule, field, state and kind of record; and finding one record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlencode

import msgspec

from service.dashboard.activity import (
    CURSOR_PATTERN,
    Activity,
    Filter,
    read_activity,
    read_of_object,
)
from service.dashboard.routes import Call, Page
from service.enrichment import State
from service.sought import sought_id

if TYPE_CHECKING:
    from starlette.responses import Response

    from service.dashboard.visit import Visit

PAGE = 50

_Text = Annotated[str, msgspec.Meta(max_length=200)]


class ActivityAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes are wanted; what is left out does not matter.

    Attributes:
        rule: of this rule.
        field: of the field with this name.
        state: that went to this state.
        object_type: of leads, or of contacts.
        object_id: of this lead or contact; an enrichment's own id does as well, or an address of Close's.
        before: where the page before has ended: its `next`.
        limit: at most so many enrichments.
    """

    rule: _Text | None = None
    field: _Text | None = None
    state: State | None = None
    object_type: Literal["lead", "contact"] | None = None
    object_id: _Text | None = msgspec.field(default=None, name="object")
    before: (
        Annotated[str, msgspec.Meta(pattern=CURSOR_PATTERN, description="the `next` of a page")] | None
    ) = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = PAGE

    def query(self, **changes: str) -> str:
        """The same as a query, without the place in it, with some of it changed."""
        named = {
            "rule": self.rule,
            "field": self.field,
            "state": self.state,
            "object_type": self.object_type,
            "object": self.object_id,
        }
        return urlencode({name: value for name, value in {**named, **changes}.items() if value})

    @property
    def filtered(self) -> bool:
        """Whether anything is left out."""
        return bool(self.query())


async def activity(visit: Visit, wanted: ActivityAsked) -> Response:
    """The page."""
    found = await _read(visit, wanted)
    query = wanted.query()
    rules = [rule.name for rule in visit.desk.knowledge().rulebook.rules]
    fields = {one.field_name for one in visit.desk.knowledge().bindings.bound}
    return await visit.page(
        "activity.html",
        activity=found,
        wanted=wanted,
        rules=rules if wanted.rule is None or wanted.rule in rules else [*rules, wanted.rule],
        fields=sorted(fields),
        states=[str(state) for state in State],
        record=sought_id(wanted.object_id) if wanted.object_id else "",
        newest="/activity" + (f"?{query}" if query else ""),
        older=f"/activity?{wanted.query(before=found.next)}" if found.next else "",
    )


async def activity_json(visit: Visit, wanted: ActivityAsked) -> Activity:
    """The same as JSON."""
    return await _read(visit, wanted)


async def _read(visit: Visit, wanted: ActivityAsked) -> Activity:
    which = Filter(rule=wanted.rule, field=wanted.field, state=wanted.state, object_type=wanted.object_type)
    if wanted.object_id is not None:
        return await read_of_object(visit.desk, which, sought_id(wanted.object_id))
    return await read_activity(visit.desk, which, most=wanted.limit, before=wanted.before)


ROUTES = (
    Page(path="/activity", handler=activity, asks=ActivityAsked, nav="Activity"),
    Call(
        path="/api/activity",
        summary="The newest changes, one for each enrichment of a page.",
        handler=activity_json,
        answers=Activity,
        asks=ActivityAsked,
        tag="activity",
    ),
)
