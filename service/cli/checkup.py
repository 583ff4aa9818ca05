"""The command `check`: does all that Redis holds fit together?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.findings import Report

EXIT_FOUND = 1


@click.command()
@click.option("--repair", is_flag=True, help="Put right what can be.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(*, repair: bool, as_json: bool) -> None:
    """Compare the ledger with its indexes, its counts and RQ's jobs; exit 1 where something stays wrong.

    Workers and web may go on meanwhile. A worker puts back by itself what another one lost, within a minute.

    Example: close-enrich check --repair
    """
    from service.check import check as look
    from service.cli.connection import connected
    from service.cli.printing import print_json
    from service.cli.start import settings_or_exit
    from workers.conclusion import READ_BACK_DELAY_SECONDS

    report: Report = connected(
        settings_or_exit("REDIS_URL"),
        lambda ledger: look(ledger, repair=repair, read_back_seconds=READ_BACK_DELAY_SECONDS),
    )
    if as_json:
        print_json(describe_report(report))
    else:
        for line in report_lines(report):
            click.echo(line)
    if report.left:
        raise SystemExit(EXIT_FOUND)


def describe_report(report: Report) -> dict[str, Any]:
    """What a check has found, as plain data."""
    from service.findings import KIND_MEANINGS

    return {
        "clean": not report.left,
        "entries": report.entries,
        "jobs": report.jobs,
        "found": [
            {
                "kind": str(kind),
                "meaning": KIND_MEANINGS[kind],
                "count": count,
                "repaired": report.repaired[kind],
                "examples": report.examples[kind],
            }
            for kind, count in report.found.most_common()
        ],
    }


def report_lines(report: Report) -> list[str]:
    """What a check has found, for people."""
    from service.cli.agree import number
    from service.findings import HOPELESS, KIND_MEANINGS

    looked = f"Looked at {number(report.entries, 'entry', 'entries')} and {number(report.jobs, 'job')}"
    if not report.found:
        return [f"{looked}: all fits together."]
    lines = [f"{looked}."]
    for kind, count in report.found.most_common():
        repaired = report.repaired[kind]
        end = f"; {repaired} repaired" if repaired else ""
        lines.append(f"{count}: {KIND_MEANINGS[kind]}{end}")
        lines.append(
            f"    {', '.join(report.examples[kind])}{', …' if count > len(report.examples[kind]) else ''}"
        )
    if report.left:
        can_help = any(kind not in HOPELESS and not report.repaired[kind] for kind in report.found)
        hint = (
            " close-enrich check --repair puts right what it can." if can_help else " A person has to look."
        )
        lines.append(f"{report.left} left as found.{hint}")
    return lines
