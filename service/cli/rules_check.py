"""The commands `rules check` and `rules schema`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from service.cli.agree import number
from service.cli.printing import print_json
from service.cli.start import EXIT_BAD_INPUT, read_settings_or_exit, rules_text_or_exit, set_up_logging
from service.problem import Level
from service.rules import ObjectType
from service.rules_file import load_rules
from service.rules_report import all_problems, counted, described, rendered

if TYPE_CHECKING:
    from pathlib import Path

    from service.rules_file import LoadedRules
    from service.schema import Schema
    from service.settings import Settings

EXIT_NOT_CHECKED = 1


def run_check(path: Path | None, *, offline: bool, strict: bool, as_json: bool) -> None:
    """The command `rules check`.

    Exits 2 where the rules are wrong, and 1 where they could not be compared with Close's custom fields.

    Args:
        path: the rules file; `RULES_FILE` if None.
        offline: do not ask Close.
        strict: take warnings as mistakes.
        as_json: print JSON.
    """
    settings = None if offline and path is not None else read_settings_or_exit()
    loaded = _loaded_or_exit(settings, path)
    schemas: dict[ObjectType, Schema] = {}
    failure = None
    keyed = settings is not None and settings.close_api_key is not None
    if settings is not None and keyed and not offline:
        import asyncio

        from service.cli.rules_check_fields import ask_schemas

        set_up_logging(settings)
        schemas, failure = asyncio.run(ask_schemas(settings, _object_types(loaded)))
    if offline:
        missing = "--offline"
    elif not keyed:
        missing = "CLOSE_API_KEY is not set"
    else:
        missing = failure or ("" if schemas else "there is no rule that could be")
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
    typed = path is not None
    if path is None:
        if settings is None:
            raise ValueError("a rules file is needed where no settings are read")
        path = settings.rules_file
    return load_rules(rules_text_or_exit(path, typed=typed), source=str(path))


def _praise(loaded: LoadedRules, *, online: bool, warnings: str) -> None:
    rules = loaded.readable.values()
    enabled = sum(rule.enabled for rule in rules)
    fits = ", all fit Close's custom fields" if online else ""
    but = f" ({warnings})" if warnings else ""
    click.echo(
        f"{loaded.tree.source}: {number(len(rules), 'rule')}, {enabled} enabled, no mistakes{fits}{but}"
    )


def _object_types(loaded: LoadedRules) -> list[ObjectType]:
    used = {rule.object_type for rule in loaded.readable.values()}
    return [object_type for object_type in ObjectType if object_type in used]
