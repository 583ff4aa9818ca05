"""The command line. Each command imports what it needs when it runs, so that all start quickly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.alerts import alerts
from service.cli.backfill import backfill
from service.cli.checkup import check
from service.cli.completion import completion
from service.cli.dead import dead
from service.cli.doctor import doctor
from service.cli.events import listen, replay, trigger
from service.cli.export import export
from service.cli.health import health
from service.cli.init import init
from service.cli.output import guarded
from service.cli.quarantine import quarantine
from service.cli.rules import rules
from service.cli.webhook import webhook

if TYPE_CHECKING:
    import datetime as dt

COMMAND_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """All commands, each run with an eye on whether its output can be written."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments name."""
        with guarded():
            return super().main(*args, **kwargs)


@click.group(cls=Commands, context_settings=COMMAND_HELP)
@click.version_option(package_name="close-enrich", prog_name="close-enrich")
def main() -> None:
    """Fill custom fields on new leads and contacts in Close.

    Settings come from the environment (CLOSE_API_KEY, REDIS_URL, ...; each also as NAME_FILE).
    """


@main.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that share the port; as many as WEB_WORKERS says by default.",
)
def web(workers: int | None) -> None:
    """Receive Close's webhooks.

    Needs REDIS_URL, and CLOSE_SIGNATURE_KEYS or PUBLIC_URL; listens on HOST and PORT. One process uses one
    core.

    Example: REDIS_URL=redis://localhost CLOSE_SIGNATURE_KEYS=$KEY close-enrich web
    """
    from service.cli.start import rules_or_exit, settings_or_exit

    settings = settings_or_exit("REDIS_URL", "CLOSE_SIGNATURE_KEYS")
    rulebook = rules_or_exit(settings.rules_file)
    count = workers or settings.web_workers
    if count > 1:
        from service.cli.serve_many import serve_web_many

        serve_web_many(settings, rulebook, count=count)
    from service.cli.serve import serve_web

    serve_web(settings, rulebook)


@main.command()
def worker() -> None:
    """Ask Close for the fields that the rules name.

    Needs REDIS_URL and CLOSE_API_KEY. Start as many as you like, on any machine.

    Example: REDIS_URL=redis://localhost CLOSE_API_KEY=$KEY close-enrich worker
    """
    from service.cli.start import rules_or_exit, settings_or_exit

    settings = settings_or_exit("REDIS_URL", "CLOSE_API_KEY")
    rulebook = rules_or_exit(settings.rules_file)
    from service.cli.serve_worker import serve_worker

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
    """Run it all on one machine: web, worker and, where REDIS_URL is unset, a Redis that keeps its data.

    Example: close-enrich up --data-dir /var/lib/close-enrich
    """
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
    """Run a pretend Close for development and tests. Point CLOSE_API_URL at it.

    Example: close-enrich sandbox --rate 5 --latency 2
    """
    from service.cli.sandbox import run_sandbox_command

    run_sandbox_command(host=host, port=port, **options)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Count enrichments by state, and jobs by queue.

    Example: close-enrich status --json
    """
    from service.cli.report import print_status

    print_status(as_json=as_json)


@main.command()
@click.option("--once", is_flag=True, help="Look once and end; so it does where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Look once and print JSON.")
def watch(*, once: bool, as_json: bool) -> None:
    """Watch queues, rates, spend and the newest results, live. Shows values found.

    Example: close-enrich watch
    """
    from service.cli.watch import run_watch

    run_watch(once=once, as_json=as_json)


@main.command()
@click.argument("object_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(object_id: str, *, as_json: bool) -> None:
    """Tell the story of one lead, contact or enrichment, by its id or by a record's address in Close.

    Example: close-enrich show lead_M3mBxgm1KvKx5ghAbbnJlL43xA40w7S3sc5EdurJySW
    """
    from service.cli.report import print_story

    print_story(object_id, as_json=as_json)


@main.command()
@click.option("--by", type=click.Choice(["rule", "field", "day"]), default="rule", show_default=True)
@click.option(
    "--days", type=click.IntRange(1, 400), help="So many days up to today, in BUDGET_TIMEZONE; 30 by default."
)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Or from this day on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cost(by: str, days: int | None, since: dt.datetime | None, *, as_json: bool) -> None:
    """What was called, paid, found and saved.

    Example: close-enrich cost --by field --since 2026-11-01
    """
    if days is not None and since is not None:
        raise click.UsageError("--days and --since both say where to begin; give one of them")
    from service.cli.prices import print_cost

    print_cost(by=by, days=days, since=None if since is None else since.date(), as_json=as_json)


@main.command()
@click.option("--reason", help="Why, for whoever looks at the status.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def halt(reason: str | None, *, as_json: bool) -> None:
    """Stop every call of all workers, until `resume`. Webhooks are accepted as before.

    Example: close-enrich halt --reason "the CRM is being cleaned up"
    """
    from service.cli.operate import run_halt

    run_halt(reason=reason, as_json=as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def resume(*, as_json: bool) -> None:
    """Let calls leave again after `halt`, or after a refused key or used-up credits.

    Example: close-enrich resume
    """
    from service.cli.operate import run_resume

    run_resume(as_json=as_json)


@main.command()
@click.option("--limit", type=click.IntRange(min=1), help="Release at most so many, the oldest first.")
@click.option("--rule", metavar="NAME", help="Release only what this rule has planned.")
@click.option("--dry-run", is_flag=True, help="Only show what is held, and its price.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def release(limit: int | None, rule: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Let go what the burst guard holds, after showing its price.

    Example: close-enrich release --limit 100 --rule Industry
    """
    from service.cli.operate import run_release

    run_release(limit=limit, rule=rule, dry_run=dry_run, yes=yes, as_json=as_json)


@main.command()
@click.option(
    "--since", default="1d", show_default=True, help="From so long ago on: 90m, 12h, 3d; at most 30d."
)
@click.option("--dry-run", is_flag=True, help="Plan nothing, only say what would be planned.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reconcile(since: str, *, dry_run: bool, as_json: bool) -> None:
    """Find events in Close's event log that were never planned, and plan them behind all live work.

    Needs REDIS_URL and CLOSE_API_KEY. Workers do the same every RECONCILE_EVERY.

    Example: close-enrich reconcile --since 3d --dry-run
    """
    from service.cli.reconcile import run_reconcile

    run_reconcile(since=since, dry_run=dry_run, as_json=as_json)


main.add_command(alerts)
main.add_command(backfill)
main.add_command(check)
main.add_command(completion)
main.add_command(dead)
main.add_command(doctor)
main.add_command(export)
main.add_command(health)
main.add_command(init)
main.add_command(listen)
main.add_command(replay)
main.add_command(trigger)
main.add_command(quarantine)
main.add_command(rules)
main.add_command(webhook)

if __name__ == "__main__":
    main()
