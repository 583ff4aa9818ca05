"""What commands that only look read from Close: its answers, or why there is none and the end."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from service.cli.start import give_up
from service.rules import ObjectType
from service.schema import Schema, parse_schema
from workers.outcome import RateLimited, judge_refusal
from workers.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.close_api import CloseApi
    from workers.reply import Failure

EXIT_FAILED = 1

_NOTHING: Mapping[ObjectType, Schema] = {}


def answer_or_exit(result: Reply | Failure, what: str) -> Reply:
    """The reply to a question that Close has answered; else why not, and exit 1.

    Args:
        result: what came back.
        what: it was asked about.
    """
    if not isinstance(result, Reply) or result.status != HTTPStatus.OK:
        refusal = judge_refusal(result)
        reason = "Close's rate limit is reached" if isinstance(refusal, RateLimited) else refusal.reason
        give_up(f"{what}: {reason}", code=EXIT_FAILED)
    return result


async def fields_or_exit(
    api: CloseApi, *, known: Mapping[ObjectType, Schema] = _NOTHING
) -> Mapping[ObjectType, Schema]:
    """Close's custom fields as they are now; where one of both cannot be had, why, and exit 1.

    Args:
        api: asks Close.
        known: fields from before, which serve where Close does not answer.
    """
    found = {}
    for object_type in ObjectType:
        result = await api.get_schema(object_type=object_type)
        usable = isinstance(result, Reply) and result.status == HTTPStatus.OK
        if object_type in known and not usable:
            found[object_type] = known[object_type]
            continue
        what = f"Close's custom fields of {object_type}s"
        schema = parse_schema(answer_or_exit(result, what).body, object_type=object_type)
        if not isinstance(schema, Schema):
            give_up(f"{what}: {schema}", code=EXIT_FAILED)
        found[object_type] = schema
    return found
