"""The commands `rules check` and `rules schema`."""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

import click

from service.cli.report import print_json
from service.cli.start import EXIT_BAD_INPUT, give_up, settings_or_exit
from service.problem import Level
from service.rules import ObjectType
from service.rules_file import load_rules
from service.rules_report import all_problems, counted, described, rendered
from service.schema import Schema, parse_schema
from workers.reply import Failure
from workers.runtime import close_api

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from service.rules_file import LoadedRules
    from service.settings import Settings
    from workers.close_api import CloseApi

EXIT_NOT_CHECKED = 1
ASK_SECONDS = 15.0
"""How long a person waits for Close's custom fields."""

_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def run_check(path: Path | None, *, offline: bool, strict: bool, as_json: bool) -> None:
    """The command `rules check`.

    Exits 2 where the rules are wrong, and 1 where they could not be compared with Close's custom fields.

    Args:
        path: the rules file; `RULES_FILE` if None.
        offline: do not ask Close.
        strict: take warnings as mistakes.
        as_json: print JSON.
    """
    settings = None if offline and path is not None else settings_or_exit()
    loaded = _loaded_or_exit(settings, path)
    schemas: dict[ObjectType, Schema] = {}
    failure = None
    if settings is not None and settings.close_api_key is not None and not offline:
        schemas, failure = asyncio.run(_schemas(settings, _object_types(loaded)))
    missing = "--offline" if offline else failure or ("" if schemas else "CLOSE_API_KEY is not set")
    problems = all_problems(loaded, schemas=schemas)
    wrong = [problem for problem in problems if strict or problem.level is Level.ERROR]
    if as_json:
        print_json([described(problem) for problem in problems])
    elif problems:
        click.echo(rendered(problems, source=loaded.tree.source), err=True)
    if not as_json and not wrong:
        _praise(loaded, online=not missing, warnings=counted(problems))
    if missing:
        note = f"Not compared with Close's custom fields: {missing}."
        click.echo(note, err=as_json or bool(wrong) or failure is not None)
    if wrong:
        sys.exit(EXIT_BAD_INPUT)
    if failure is not None:
        sys.exit(EXIT_NOT_CHECKED)


def _loaded_or_exit(settings: Settings | None, path: Path | None) -> LoadedRules:
    if path is None:
        if settings is None:
            raise ValueError("a rules file is needed where no settings are read")
        path = settings.rules_file
    try:
        text = path.read_bytes()
    except OSError as error:
        give_up(f"{path}: the rules file cannot be read: {error.strerror} (see RULES_FILE)")
    return load_rules(text, source=str(path))


def _praise(loaded: LoadedRules, *, online: bool, warnings: str) -> None:
    rules = loaded.readable.values()
    enabled = sum(rule.enabled for rule in rules)
    fits = ", all fit Close's custom fields" if online else ""
    but = f" ({warnings})" if warnings else ""
    click.echo(f"{loaded.tree.source}: {len(rules)} rules, {enabled} enabled, no mistakes{fits}{but}")


def _object_types(loaded: LoadedRules) -> list[ObjectType]:
    used = {rule.object_type for rule in loaded.readable.values()}
    return [object_type for object_type in ObjectType if object_type in used]


async def _schemas(
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
