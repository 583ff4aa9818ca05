"""The command line. Each command imports what it needs when it runs, so that all start quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

COMMAND_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=COMMAND_HELP)
@click.version_option(package_name="close-enrich", prog_name="close-enrich")
def main() -> None:
    """Fill custom fields on new leads and contacts in Close.

    Settings come from the environment (CLOSE_API_KEY, REDIS_URL, ...; each also as NAME_FILE).
    """


@main.command()
def web() -> None:
    """Receive Close's webhooks.

    Needs REDIS_URL and CLOSE_SIGNATURE_KEYS; listens on HOST and PORT.
    """
    from service.cli.start import rules_or_exit, settings_or_exit

    settings = settings_or_exit("REDIS_URL", "CLOSE_SIGNATURE_KEYS")
    rulebook = rules_or_exit(settings.rules_file)
    from service.cli.serve import serve_web

    serve_web(settings, rulebook)


@main.command()
def worker() -> None:
    """Ask Close for the fields that the rules name.

    Needs REDIS_URL and CLOSE_API_KEY. Start as many as you like, on any machine.
    """
    from service.cli.start import rules_or_exit, settings_or_exit

    settings = settings_or_exit("REDIS_URL", "CLOSE_API_KEY")
    rulebook = rules_or_exit(settings.rules_file)
    from service.cli.serve import serve_worker

    serve_worker(settings, rulebook)


@main.command()
@click.option("--leads", type=click.IntRange(min=1), help="Stop making leads after so many.")
@click.option("--per-second", type=click.FloatRange(min=0.1, max=1000), default=3.0, show_default=True)
@click.option("--once", is_flag=True, help="End when every lead has reached a final state; needs --leads.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of the service; any free one by default."
)
def demo(leads: int | None, per_second: float, *, once: bool, port: int) -> None:
    """See it work, with nothing to set up: a pretend Close, new leads, and their fields being filled.

    Example: close-enrich demo --leads 20 --once
    """
    if once and leads is None:
        raise click.UsageError("--once needs --leads N: without a number there is no end to reach")
    from service.cli.demo import run_demo

    run_demo(leads=leads, per_second=per_second, once=once, port=port)


@main.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".close-enrich"),
    show_default=True,
    help="Where the embedded Redis keeps its data.",
)
def up(data_dir: Path) -> None:
    """Run it all on one machine: web, worker and, where REDIS_URL is unset, a Redis that keeps its data."""
    from service.cli.up import run_up

    run_up(data_dir)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True)
@click.option(
    "--latency",
    "latency_seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds one enrichment takes.",
)
@click.option(
    "--rate",
    "calls_per_second",
    type=click.FloatRange(min=0, min_open=True),
    help="Enrichments a second that it allows.",
)
@click.option(
    "--credits", "credit_balance", type=click.IntRange(min=0), help="Credits to spend before it answers 402."
)
def sandbox(host: str, port: int, **options: Any) -> None:
    """Run a pretend Close for development and tests. Point CLOSE_API_URL at it."""
    from service.cli.sandbox import run_sandbox_command

    run_sandbox_command(host=host, port=port, **options)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Count enrichments by state, and jobs by queue."""
    from service.cli.report import print_status

    print_status(as_json=as_json)


@main.command()
@click.argument("object_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(object_id: str, *, as_json: bool) -> None:
    """Tell the story of one lead, contact or enrichment.

    Example: close-enrich show lead_M3mBxgm1KvKx5ghAbbnJlL43xA40w7S3sc5EdurJySW
    """
    from service.cli.report import print_story

    print_story(object_id, as_json=as_json)


@main.group()
def quarantine() -> None:
    """Authentic deliveries that could not be read."""


@quarantine.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--bodies", is_flag=True, help="Print the bodies too; they may hold personal data.")
def quarantine_list(*, as_json: bool, bodies: bool) -> None:
    """List them, newest first."""
    from service.cli.report import print_quarantine

    print_quarantine(as_json=as_json, bodies=bodies)


@main.group()
def rules() -> None:
    """The rules file."""


@rules.command("check")
@click.argument("path", type=click.Path(path_type=Path), default=Path("rules.yaml"))
def rules_check(path: Path) -> None:
    """Name every mistake in a rules file at once; exit 0 when there is none, else 2."""
    from service.cli.start import rules_or_exit

    rulebook = rules_or_exit(path)
    click.echo(f"{path}: {len(rulebook.rules)} rules, {len(rulebook.enabled)} enabled, no mistakes")


if __name__ == "__main__":
    main()
