"""Record: what was done for one lead or contact, why, and what it cost."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import msgspec

from service.dashboard.records import RecordStory, read_record
from service.dashboard.routes import Call, Page, Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from service.dashboard.visit import Visit

UNKNOWN = "nothing is known of it: no rule has wanted it in the last 35 days"


class RecordAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Whose story is wanted.

    Attributes:
        record_id: a lead's, a contact's or an enrichment's id.
    """

    record_id: Annotated[str, msgspec.Meta(max_length=200)]


async def record(visit: Visit, wanted: RecordAsked) -> Response:
    """The page."""
    found = await read_record(visit.desk, wanted.record_id)
    if found is None:
        return await visit.page("record_unknown.html", status=HTTPStatus.NOT_FOUND, wanted=wanted.record_id)
    return await visit.page("record.html", record=found, wanted=wanted.record_id)


async def record_json(visit: Visit, wanted: RecordAsked) -> RecordStory | Refused:
    """The same as JSON."""
    found = await read_record(visit.desk, wanted.record_id)
    return Refused(status=HTTPStatus.NOT_FOUND, error=UNKNOWN) if found is None else found


ROUTES = (
    Page(path="/records/{record_id}", handler=record, asks=RecordAsked),
    Call(
        path="/api/records/{record_id}",
        summary="The whole story of a lead or contact, or of one enrichment.",
        handler=record_json,
        answers=RecordStory,
        asks=RecordAsked,
        refuses=((HTTPStatus.NOT_FOUND, "Nothing is known of it."),),
        tag="activity",
    ),
)
