"""`close-enrich rules explain`: what is typed; what it does is in `service.cli.explaining`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("explain")
@click.argument("target", metavar="EVENT.json|ev_…|lead_…|cont_…")
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(path_type=Path),
    help="The rules file; the one of RULES_FILE by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(target: str, rules_file: Path | None, *, as_json: bool) -> None:
    """Say of each rule whether it wants an event or a record, why, and what it would cost.

    An event is a file with a webhook's body (`-` for stdin) or an id from Close's event log. A lead or
    contact is explained as if it had just been created. Shows the values that conditions saw.

    Reads from Close with CLOSE_API_KEY; a file needs no key where rules name their fields by id. With
    REDIS_URL it also says what the ledger and the budgets have.

    Example: close-enrich rules explain lead_M3mBxgm1KvKx5ghAbbnJlL43xA40w7S3sc5EdurJySW
    """
    from service.cli.explaining import run_explain

    run_explain(target, rules_file=rules_file, as_json=as_json)
