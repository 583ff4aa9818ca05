"""`close-enrich rules`: what is said about the rules file before it is put to work."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def rules() -> None:
    """The rules file."""


@rules.command("check")
@click.argument("path", type=click.Path(path_type=Path), default=Path("rules.yaml"))
def check(path: Path) -> None:
    """Name every mistake in a rules file at once; exit 0 when there is none, else 2."""
    from service.cli.start import rules_or_exit

    rulebook = rules_or_exit(path)
    click.echo(f"{path}: {len(rulebook.rules)} rules, {len(rulebook.enabled)} enabled, no mistakes")
