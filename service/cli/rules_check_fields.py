"""Close's custom fields for `rules check`, or why they could not be had."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from service.schema import Schema, parse_schema
from workers.close_client import close_api
from workers.reply import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.rules import ObjectType
    from service.settings import Settings
    from workers.close_api import CloseApi

ASK_SECONDS = 15.0
"""How long a person waits for Close's custom fields."""

_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


async def ask_schemas(
    settings: Settings, wanted: Iterable[ObjectType]
) -> tuple[dict[ObjectType, Schema], str | None]:
    """The custom fields of the wanted objects, and why one could not be had."""
    try:
        api = close_api(settings)
    except ValueError as error:
        return {}, f"CLOSE_API_KEY, CLOSE_API_URL: {error}"
    try:
        answers = {one: await _schema(api, one) for one in wanted}
    finally:
        await api.aclose()
    schemas = {one: answer for one, answer in answers.items() if isinstance(answer, Schema)}
    return schemas, next((answer for answer in answers.values() if isinstance(answer, str)), None)


async def _schema(api: CloseApi, object_type: ObjectType) -> Schema | str:
    """The custom fields of one object, or why they could not be had."""
    result = await api.get_schema(object_type=object_type, timeout_seconds=ASK_SECONDS)
    if isinstance(result, Failure):
        return f"Close does not answer ({result.kind.value.replace('_', ' ')})"
    if result.status in _REFUSED:
        return f"Close refuses CLOSE_API_KEY ({result.status})"
    if result.status != HTTPStatus.OK or result.truncated:
        return f"Close answered {result.status}"
    return parse_schema(result.body, object_type=object_type)
