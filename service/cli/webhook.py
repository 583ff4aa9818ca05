"""The commands `webhook …`. What they do is in `service.cli.subscriptions`, imported when one runs."""

from __future__ import annotations

import click

_ID = click.argument("subscription_id", required=False, metavar="[ID]")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def webhook() -> None:
    """The webhook subscription through which Close delivers.

    Each command needs CLOSE_API_KEY and REDIS_URL. Where no ID is given, it is the subscription that delivers
    to PUBLIC_URL. With PUBLIC_URL set, workers do by themselves what `ensure` does, every few minutes.
    """


@webhook.command("list")
@_JSON
def list_(*, as_json: bool) -> None:
    """Show the subscriptions at Close, never their keys.

    Example: close-enrich webhook list
    """
    from service.cli.subscriptions import run_list

    run_list(as_json=as_json)


@webhook.command()
@_JSON
def ensure(*, as_json: bool) -> None:
    """Have one active subscription that brings what the rules need to PUBLIC_URL.

    One that delivers there is adopted and mended; otherwise it is made. Its signature key goes into Redis.

    Example: PUBLIC_URL=https://enrich.example.com close-enrich webhook ensure
    """
    from service.cli.subscriptions import run_ensure

    run_ensure(as_json=as_json)


@webhook.command()
@_ID
@_JSON
def pause(subscription_id: str | None, *, as_json: bool) -> None:
    """Have Close deliver nothing until `webhook resume`.

    Workers leave a subscription alone that was paused so; `close-enrich reconcile` finds what it misses.

    Example: close-enrich webhook pause
    """
    from service.cli.subscriptions import run_pause

    run_pause(subscription_id, as_json=as_json)


@webhook.command()
@_ID
@_JSON
def resume(subscription_id: str | None, *, as_json: bool) -> None:
    """Have Close deliver again; workers read what was missed from its event log.

    Example: close-enrich webhook resume
    """
    from service.cli.subscriptions import run_resume

    run_resume(subscription_id, as_json=as_json)


@webhook.command()
@click.argument("subscription_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def delete(subscription_id: str, *, yes: bool, as_json: bool) -> None:
    """Delete a subscription and forget its key. What waits for delivery through it is lost to the webhook.

    Example: close-enrich webhook delete whsub_Iq5EjgdHbwzMUCTTH3gXHR
    """
    from service.cli.subscriptions import run_delete

    run_delete(subscription_id, yes=yes, as_json=as_json)


@webhook.command()
@click.option("--finish", is_flag=True, help="Delete the old subscription, once the new one has delivered.")
@_JSON
def rotate(*, finish: bool, as_json: bool) -> None:
    """Replace the signature key, without losing an event.

    A second subscription with a new key delivers beside the first, and both keys are accepted. When the new
    one has delivered, a worker deletes the old one, or `--finish` does.

    Example: close-enrich webhook rotate
    """
    from service.cli.subscriptions import run_rotate

    run_rotate(finish=finish, as_json=as_json)
