"""The commands `listen`, `trigger` and `replay`: deliveries seen, made up, and sent again."""

from __future__ import annotations

import click

from service.samples import SAMPLE_TYPES

TO = click.option(
    "--to", metavar="URL", help="The receiver's address; by default `web` on HOST and PORT of this machine."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8070, show_default=True)
@click.option("--full", is_flag=True, help="Print the whole event; it may hold personal data.")
@click.option(
    "--save",
    type=click.Path(file_okay=False),
    metavar="DIRECTORY",
    help="Keep each body as a file, for `replay` and `rules explain`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an event a line.")
def listen(host: str, port: int, *, full: bool, save: str | None, as_json: bool) -> None:
    """Print events as they come, once their signature is verified. Nothing is enriched for them.

    It is a receiver of its own, for a subscription of its own: what is delivered here does not reach `web`.
    Keys come from CLOSE_SIGNATURE_KEYS and, with REDIS_URL, from those that the service has learned.

    Example: close-enrich listen --port 8070 --save events
    """
    from service.cli.listener import run_listen

    run_listen(host=host, port=port, full=full, save=save, as_json=as_json)


@click.command()
@click.argument("event_type", type=click.Choice(SAMPLE_TYPES), metavar="TYPE")
@TO
@click.option("--object", "object_id", metavar="ID", help="Have the event be about this lead or contact.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="An attribute of the record, such as url=https://acme.example; JSON or text. May be repeated.",
)
@AS_JSON
def trigger(
    event_type: str, to: str | None, object_id: str | None, changes: tuple[str, ...], *, as_json: bool
) -> None:
    """Sign a made-up event and send it to the receiver.

    TYPE is lead.created, lead.updated, lead.merged, contact.created or contact.updated. The record does not
    exist in Close, so a worker finds it gone and spends nothing; with --object it is a real one, and rules
    apply to it as they do to any event.

    Example: close-enrich trigger lead.created --set url=https://acme.example
    """
    from service.cli.sender import run_trigger

    run_trigger(event_type, to=to, object_id=object_id, changes=changes, as_json=as_json)


@click.command()
@click.argument("source", metavar="EV_ID|FILE")
@TO
@AS_JSON
def replay(source: str, to: str | None, *, as_json: bool) -> None:
    """Send an event again: one of Close's event log by its id, or one from a file (`-` for standard input).

    It is signed anew. What the ledger has planned for it already is a duplicate and is not paid for twice.

    Example: close-enrich replay ev_K1UZy8J22KpgaTqARjCw1j
    """
    from service.cli.sender import run_replay

    run_replay(source, to=to, as_json=as_json)
