"""What every command does first: read settings and rules, or say all that is wrong with them and exit 2."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from service.settings import Settings, load_settings
from service.settings_values import TracingMode

if TYPE_CHECKING:
    from pathlib import Path

    from service.rules import RuleBook

EXIT_BAD_INPUT = 2


def give_up(message: str, *, code: int = EXIT_BAD_INPUT) -> NoReturn:
    """End the command with a message for people and no traceback."""
    click.echo(message, err=True)
    sys.exit(code)


def settings_or_exit(*needs: str) -> Settings:
    """The settings, with logging set up; or all that is wrong with them, and the end."""
    settings = read_settings_or_exit(*needs)
    set_up_logging(settings)
    return settings


def read_settings_or_exit(*needs: str) -> Settings:
    """The same without logging, for what may end before there is anything to log: it takes long to load."""
    settings = load_settings(needs=needs)
    if not isinstance(settings, Settings):
        lines = [f"  {problem}" for problem in settings]
        give_up("\n".join(["These settings need attention:", *lines]))
    if settings.tracing is TracingMode.OTEL:
        from service.tracing import tracing_is_installed

        if not tracing_is_installed():
            give_up("TRACING: otel needs packages that are not installed: pip install 'close-enrich[otel]'")
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return settings


def set_up_logging(settings: Settings, **facts: object) -> None:
    """Log as the settings say; every line also says these facts."""
    from service.log import configure_logging

    configure_logging(
        log_format=settings.log_format,
        level=settings.log_level,
        secrets=settings.secret_texts(),
        facts=facts,
        no_color=settings.no_color,
    )


def rules_text_or_exit(path: Path, *, typed: bool = False) -> bytes:
    """What a rules file holds; or why it cannot be read, and the end.

    Args:
        path: of the file.
        typed: somebody has typed it, so no setting is to blame.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "" if typed else " (see RULES_FILE)"
        give_up(f"{path}: the rules file cannot be read: {error.strerror}{hint}")


def rules_or_exit(path: Path, *, typed: bool = False) -> RuleBook:
    """The rules of a file; or every mistake in it, and the end. Warnings are shown and do not stop.

    Args:
        path: of the file.
        typed: see `rules_text_or_exit`.
    """
    from service.rules_file import load_rules

    result = load_rules(rules_text_or_exit(path, typed=typed), source=str(path))
    for warning in result.warnings:
        click.echo(warning.render(), err=True)
    if result.rulebook is None:
        count = len(result.problems)
        parts = [problem.render() for problem in result.problems]
        give_up("\n\n".join([*parts, f"{path}: {count} problem{'s' if count > 1 else ''}"]))
    return result.rulebook


def redis_url_or_exit(settings: Settings) -> str:
    """The Redis address, for commands that cannot do without."""
    if settings.redis_url is None:
        give_up("REDIS_URL is not set")
    return settings.redis_url.reveal()
