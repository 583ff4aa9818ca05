"""`close-enrich rules`: what is said about the rules file before it is put to work."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.rules_explain import explain
from service.cli.rules_plan import plan


@click.group()
def rules() -> None:
    """The rules file."""


@rules.command("check")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--offline", is_flag=True, help="Look at the file only; do not ask Close.")
@click.option("--strict", is_flag=True, help="Take warnings as mistakes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(path: Path | None, *, offline: bool, strict: bool, as_json: bool) -> None:
    """Name every mistake in a rules file at once; PATH is RULES_FILE by default.

    With CLOSE_API_KEY, the rules are also compared with the organization's custom fields.

    Exits 0 without mistakes, 2 with, and 1 where the file has none and Close could not be asked.

    Example: close-enrich rules check rules.yaml --offline
    """
    from service.cli.rules_check import run_check

    run_check(path, offline=offline, strict=strict, as_json=as_json)


@rules.command("schema")
def schema() -> None:
    """Print the JSON Schema of rules files, by which editors complete and check them.

    The rules file names it in its first line: # yaml-language-server: $schema=rules.schema.json

    Example: close-enrich rules schema > rules.schema.json
    """
    from service.rules_schema import rules_schema_text

    click.echo(rules_schema_text(), nl=False)


rules.add_command(explain)
rules.add_command(plan)
