"""What every command does first: read settings and rules, or say all that is wrong with them and exit 2."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from service.log import configure_logging
from service.settings import Settings, load_settings
from service.tracing import TracingMode, tracing_is_installed

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
    settings = load_settings(needs=needs)
    if not isinstance(settings, Settings):
        lines = [f"  {problem}" for problem in settings]
        give_up("\n".join(["These settings need attention:", *lines]))
    if settings.tracing is TracingMode.OTEL and not tracing_is_installed():
        give_up("TRACING: otel needs packages that are not installed: pip install 'close-enrich[otel]'")
    configure_logging(
        log_format=settings.log_format, level=settings.log_level, secrets=settings.secret_texts()
    )
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return settings


def rules_or_exit(path: Path) -> RuleBook:
    """The rules of a file; or every mistake in it, and the end. Warnings are shown and do not stop."""
    from service.rules_file import load_rules

    try:
        text = path.read_bytes()
    except OSError as error:
        give_up(f"{path}: the rules file cannot be read: {error.strerror} (see RULES_FILE)")
    result = load_rules(text, source=str(path))
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
