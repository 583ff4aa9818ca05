"""The commands `alerts …`: try the address that alerts are posted to, and see what needs a person now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.ledger import Ledger
    from service.rules import RuleBook
    from service.settings import Settings

EXIT_NOT_DELIVERED = 1

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def alerts() -> None:
    """What needs a person, and where that is told.

    Workers and web post alerts to ALERT_WEBHOOK_URL, and log them with or without it.
    """


@alerts.command("test")
@_JSON
def test_(*, as_json: bool) -> None:
    """Post a sample to ALERT_WEBHOOK_URL and tell what came back; exit 1 if it was not taken.

    Example: close-enrich alerts test
    """
    import asyncio

    from service.alert_text import instance_of, sample
    from service.cli.printing import print_json
    from service.cli.start import give_up, settings_or_exit
    from workers.alert_post import AlertPoster

    settings = settings_or_exit("ALERT_WEBHOOK_URL")
    if settings.alert_webhook_url is None:
        give_up("ALERT_WEBHOOK_URL is not set")
    poster = AlertPoster(settings.alert_webhook_url)
    posted = asyncio.run(poster.post(sample(instance=instance_of(settings.public_url))))
    if as_json:
        print_json({"delivered": posted.delivered, "said": posted.said})
    elif posted.delivered:
        click.echo(f"Delivered; the receiver said: {posted.said}")
    else:
        click.echo(f"Not delivered: {posted.said} (see ALERT_WEBHOOK_URL)", err=True)
    if not posted.delivered:
        raise SystemExit(EXIT_NOT_DELIVERED)


@alerts.command("list")
@_JSON
def list_(*, as_json: bool) -> None:
    """Show what needs a person now, and when that was told.

    Needs REDIS_URL; budgets are looked at where RULES_FILE can be read.

    Example: close-enrich alerts list --json
    """
    from service.cli.budgets import readable_rules
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.cli.start import settings_or_exit

    settings = settings_or_exit("REDIS_URL")
    rulebook = readable_rules(settings.rules_file)
    found = connected(settings, lambda ledger: _read(ledger, settings, rulebook))
    if as_json:
        print_json(found)
        return
    _show(found)


async def _read(ledger: Ledger, settings: Settings, rulebook: RuleBook | None) -> dict[str, Any]:
    """What holds now, as plain data."""
    from service.alert_telling import note
    from service.alerts import MANNERS
    from service.rules import RuleBook
    from workers.alert_facts import Lookout
    from workers.alerter import read_told

    rules = RuleBook() if rulebook is None else rulebook
    lookout = Lookout(ledger, rulebook=lambda: rules, zone=settings.budget_timezone)
    told = note(
        await read_told(ledger.redis),
        await lookout.look(),
        oldest_job_seconds=settings.alert_oldest_job_seconds,
    )
    return {
        "alerts": [
            {
                "kind": str(one.kind),
                "about": key,
                "words": one.words,
                "since_ms": one.since_ms,
                "told_ms": one.told_ms,
                "advice": MANNERS[one.kind].advice,
            }
            for key, one in told.watched.items()
            if one.holds
        ],
        "posted_to": None if settings.alert_webhook_url is None else str(settings.alert_webhook_url),
        "failed_posts": told.failures,
        "rules_known": rulebook is not None,
    }


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from service.alert_text import moment
    from service.cli.printing import report_console

    if found["alerts"]:
        table = Table(title="Alerts", title_justify="left", box=None)
        for name in ("since", "told"):
            table.add_column(name, no_wrap=True)
        table.add_column("what")
        table.add_column("what to do")
        for one in found["alerts"]:
            told = "not yet" if one["told_ms"] is None else moment(one["told_ms"])
            table.add_row(
                moment(one["since_ms"]),
                told,
                Text(one["words"], style="red"),
                Text(one["advice"], style="dim"),
            )
        report_console().print(table)
    else:
        click.echo("Nothing needs you.")
    if found["posted_to"] is None:
        click.echo("ALERT_WEBHOOK_URL is not set: alerts are only logged.")
    if found["failed_posts"]:
        count = found["failed_posts"]
        posts = "post was" if count == 1 else f"{count} posts were"
        click.echo(f"The last {posts} not delivered: close-enrich alerts test", err=True)
    if not found["rules_known"]:
        click.echo("RULES_FILE cannot be read here, so budgets were not looked at.", err=True)
