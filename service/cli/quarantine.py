"""The commands `quarantine list|show|retry|drop`: signed deliveries that could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.ledger import Ledger
    from service.quarantine import Quarantined, Retried
    from service.settings import Settings

EXIT_NOT_FOUND = 1
EXIT_NOT_ALL = 1
PERSONAL = "The body may hold personal data: mind where this is kept."


def _which(command: Callable[..., None]) -> Callable[..., None]:
    """What `retry` and `drop` take: ids or all."""
    options = (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.option("--all", "everything", is_flag=True, help="All of them."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def quarantine() -> None:
    """Authentic deliveries that could not be read."""


@quarantine.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--bodies", is_flag=True, help="Print the bodies too; they may hold personal data.")
def quarantine_list(*, limit: int, as_json: bool, bodies: bool) -> None:
    """List them, newest first.

    Example: close-enrich quarantine list --limit 10
    """
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.cli.start import settings_or_exit
    from service.problem import printable
    from service.quarantine import list_quarantined

    found = connected(
        settings_or_exit("REDIS_URL"), lambda ledger: list_quarantined(ledger.redis, most=limit)
    )
    rows = [_describe(one, body=bodies) for one in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("The quarantine is empty.")
    for row in rows:
        click.echo(f"{row['received_at']}  {row['id']}  {row['size_bytes']} bytes: {row['reason']}")
        if bodies:
            click.echo(printable(row["body"]))


@quarantine.command("show")
@click.argument("quarantine_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quarantine_show(quarantine_id: str, *, as_json: bool) -> None:
    """Print one with its body, which may hold personal data.

    Example: close-enrich quarantine show 1795442400000-0
    """
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.cli.start import give_up, settings_or_exit
    from service.problem import printable
    from service.quarantine import read_quarantined

    settings = settings_or_exit("REDIS_URL")
    _check_ids([quarantine_id])
    found: Quarantined | None = connected(
        settings, lambda ledger: read_quarantined(ledger.redis, quarantine_id)
    )
    if found is None:
        give_up(f"{quarantine_id} is not in quarantine, or not any more", code=EXIT_NOT_FOUND)
    row = _describe(found, body=True)
    click.echo(PERSONAL, err=True)
    if as_json:
        print_json({**row, "whole": found.whole})
        return
    click.echo(f"{row['received_at']}  {row['id']}  {row['size_bytes']} bytes: {row['reason']}")
    if not found.whole:
        click.echo(f"Only its first {len(found.body)} bytes were kept, so it cannot be retried.")
    click.echo(printable(row["body"]))


@quarantine.command("retry")
@_which
def quarantine_retry(ids: tuple[str, ...], *, everything: bool, yes: bool, as_json: bool) -> None:
    """Have them read and planned again by `web`, after an update that can read them.

    What still cannot be read comes back under a new id. What can be costs what the rules then want of it.

    Example: close-enrich quarantine retry --all
    """
    from service.cli.agree import agree_or_exit, number
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.quarantine import Retried, retry_quarantined

    settings, wanted = _wanted("retry", ids, everything=everything)
    if wanted and not yes:
        what = number(len(wanted), "delivery", "deliveries")
        agree_or_exit(f"Retry {what}, for the credits that rules then spend?", otherwise="add --yes to retry")

    async def work(ledger: Ledger) -> dict[str, Retried]:
        return {one: await retry_quarantined(ledger.redis, one) for one in wanted}

    answers: dict[str, Retried] = connected(settings, work)
    by_answer = {kind: [one for one, answer in answers.items() if answer is kind] for kind in Retried}
    if as_json:
        print_json({str(kind): found for kind, found in by_answer.items()})
    else:
        retried = number(len(by_answer[Retried.RETRIED]), "delivery", "deliveries")
        click.echo(f"Handed {retried} to web, which plans them while it runs.")
    if by_answer[Retried.CUT]:
        click.echo(
            "Only the start was kept, so these cannot be retried; `reconcile` finds what they announced in "
            f"Close's event log: {', '.join(by_answer[Retried.CUT])}",
            err=True,
        )
    if by_answer[Retried.GONE]:
        click.echo(f"Not in quarantine, or not any more: {', '.join(by_answer[Retried.GONE])}", err=True)
    if by_answer[Retried.CUT] or by_answer[Retried.GONE]:
        raise SystemExit(EXIT_NOT_ALL)


@quarantine.command("drop")
@_which
def quarantine_drop(ids: tuple[str, ...], *, everything: bool, yes: bool, as_json: bool) -> None:
    """Delete them for good.

    Example: close-enrich quarantine drop 1795442400000-0
    """
    from service.cli.agree import agree_or_exit, number
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.quarantine import drop_quarantined

    settings, wanted = _wanted("drop", ids, everything=everything)
    if wanted and not yes:
        what = number(len(wanted), "delivery", "deliveries")
        agree_or_exit(f"Delete {what} for good?", otherwise="add --yes to drop")
    dropped = connected(settings, lambda ledger: drop_quarantined(ledger.redis, wanted))
    if as_json:
        print_json({"dropped": dropped})
    else:
        click.echo(f"Deleted {number(dropped, 'delivery', 'deliveries')}.")
    if dropped < len(wanted):
        click.echo(f"{len(wanted) - dropped} were not in quarantine, or not any more.", err=True)
        raise SystemExit(EXIT_NOT_ALL)


def _wanted(verb: str, ids: Sequence[str], *, everything: bool) -> tuple[Settings, list[str]]:
    """The settings, and the ids that are meant."""
    from service.cli.connection import connected
    from service.cli.start import settings_or_exit
    from service.quarantine import quarantined_ids

    if bool(ids) == everything:
        raise click.UsageError(f"say which to {verb}: ids, or --all")
    _check_ids(ids)
    settings = settings_or_exit("REDIS_URL")
    if everything:
        return settings, connected(settings, lambda ledger: quarantined_ids(ledger.redis))
    return settings, list(dict.fromkeys(ids))


def _check_ids(ids: Sequence[str]) -> None:
    from service.quarantine import is_quarantine_id

    for one in ids:
        if not is_quarantine_id(one):
            raise click.UsageError(
                f"'{one}' is not an id such as 1791970212000-0; see close-enrich quarantine list"
            )


def _describe(one: Quarantined, *, body: bool) -> dict[str, Any]:
    from service.overview import moment

    return {
        "id": one.id,
        "received_at": moment(int(one.id.partition("-")[0])),
        "reason": one.reason,
        "size_bytes": one.size_bytes,
        **({"body": one.body.decode(errors="replace")} if body else {}),
    }
