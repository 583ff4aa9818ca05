"""What the commands `webhook …` do: ask Close through `workers.webhooks`, and say what came of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from service.cli.connection import connected
from service.cli.printing import print_json
from service.cli.start import give_up, rules_or_exit, settings_or_exit
from service.keyring import known_keys
from service.log import get_logger
from service.problem import printable
from workers.close_client import close_api
from workers.subscription import Change, Create, Nothing, needed_events, same_receiver, subscription_of
from workers.watcher import problem_with
from workers.webhook_reply import Trouble
from workers.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.ledger import Ledger
    from service.settings import Settings
    from workers.subscription import Subscription
    from workers.webhooks import Ensured, Rotated

EXIT_FAILED = 1
EXIT_DECLINED = 1

Found = TypeVar("Found")


def run_list(*, as_json: bool) -> None:
    """The command `webhook list`."""
    settings = _settings()

    async def work(webhooks: Webhooks, ledger: Ledger) -> tuple[Any, frozenset[str]]:
        return await webhooks.listed(), await known_keys(ledger.redis)

    found, keyed = _asked(settings, work)
    listed = _or_exit(found)
    rows = [_described(one, settings=settings, key_known=one.id in keyed) for one in listed]
    if as_json:
        print_json({"subscriptions": rows})
        return
    if not rows:
        click.echo("Close has no webhook subscription that this API key may see.")
        return
    for one in rows:
        here = " *" if one["here"] else ""
        failing = " (failing)" if one["failing"] else ""
        key = "known" if one["key_known"] else "not known"
        click.echo(f"{one['id']}{here}  {one['status']}{failing}, key {key}")
        # on lines of their own: no terminal is wide enough for all of it
        click.echo(printable(f"  to {one['url']}"))
        click.echo(printable(f"  {', '.join(one['events']) or 'no events'}"))
    if any(one["here"] for one in rows):
        click.echo("* delivers to PUBLIC_URL")


def run_ensure(*, as_json: bool) -> None:
    """The command `webhook ensure`."""
    settings = _settings("PUBLIC_URL")
    rulebook = rules_or_exit(settings.rules_file)
    url = _public_url(settings)
    found = _asked(settings, lambda webhooks, _: webhooks.ensure(url=url, events=needed_events(rulebook)))
    done: Ensured | Nothing = _or_exit(found)
    if isinstance(done, Nothing):
        give_up("no rule is enabled, so there is nothing to subscribe to", code=EXIT_FAILED)
    one, step, problem = done.subscription, done.step, problem_with(done)
    changed = isinstance(step, Create | Change)
    if as_json:
        shown = _described(one, settings=settings, key_known=done.key_known)
        filtered = list(done.filtered)
        print_json(
            {"changed": changed, "subscription": shown, "problem": problem or None, "filtered": filtered}
        )
        return
    events = ", ".join(event.name for event in one.events)
    if isinstance(step, Create):
        click.echo(f"Subscribed: {one.id} delivers {events}.")
    elif isinstance(step, Change):
        click.echo(f"Mended {one.id}: {'; '.join(step.why)}. It delivers {events}.")
    else:
        click.echo(f"{one.id} delivers {events}; nothing had to be changed.")
    if problem:
        click.echo(f"warning: {problem}", err=True)
    if done.filtered:
        click.echo(f"note: a filter on it holds back some of {', '.join(done.filtered)}", err=True)


def run_pause(subscription_id: str | None, *, as_json: bool) -> None:
    """The command `webhook pause`."""

    async def work(webhooks: Webhooks, of_id: str) -> Any:
        return await webhooks.pause(of_id)

    _change_status(subscription_id, work, "is paused until `close-enrich webhook resume`", as_json=as_json)


def run_resume(subscription_id: str | None, *, as_json: bool) -> None:
    """The command `webhook resume`."""

    async def work(webhooks: Webhooks, of_id: str) -> Any:
        return await webhooks.resume(of_id)

    words = "is active; workers read what it missed from Close's event log"
    _change_status(subscription_id, work, words, as_json=as_json)


def run_delete(subscription_id: str, *, yes: bool, as_json: bool) -> None:
    """The command `webhook delete`.

    Exits 1 where the person says no or Close has no such subscription, 2 where there is nobody to ask.
    """
    settings = _settings()
    if not yes:
        if not sys.stdin.isatty():
            give_up("there is no terminal to ask at: add --yes to delete")
        if not click.confirm(f"Delete {subscription_id}?", err=True):
            give_up("Nothing was deleted.", code=EXIT_DECLINED)
    known: bool = _or_exit(_asked(settings, lambda webhooks, _: webhooks.delete(subscription_id)))
    if as_json:
        print_json({"deleted": subscription_id if known else None})
    if not known:
        give_up(f"Close has no {subscription_id}; a key kept for it is forgotten", code=EXIT_FAILED)
    if not as_json:
        click.echo(f"{subscription_id} is deleted and its key forgotten.")


def run_rotate(*, finish: bool, as_json: bool) -> None:
    """The command `webhook rotate`. With `finish`, exits 1 while the new subscription has not delivered."""
    settings = _settings("PUBLIC_URL")
    url = _public_url(settings)

    async def work(webhooks: Webhooks, _: Ledger) -> Any:
        return await (webhooks.finish(url=url) if finish else webhooks.rotate(url=url))

    found: Rotated | None = _or_exit(_asked(settings, work))
    if found is None:
        give_up("no rotation is under way: begin one with `close-enrich webhook rotate`", code=EXIT_FAILED)
    old = [one.id for one in found.old]
    if as_json:
        print_json({"new": found.new.id, "old": old, "deleted": list(found.deleted)})
    elif found.deleted:
        click.echo(f"{', '.join(found.deleted)} is deleted; {found.new.id} delivers alone.")
    elif not finish:
        click.echo(f"{found.new.id} delivers beside {', '.join(old)}, and both keys are accepted.")
        click.echo("A worker deletes the old one when the new one has delivered; or: webhook rotate --finish")
    if settings.signature_keys and not as_json:
        click.echo("CLOSE_SIGNATURE_KEYS stays in force: take the old key out of it at the end.", err=True)
    if finish and old:
        give_up(f"{found.new.id} has not delivered yet, so {', '.join(old)} stays", code=EXIT_FAILED)


def _change_status(
    subscription_id: str | None, work: Callable[[Webhooks, str], Awaitable[Any]], words: str, *, as_json: bool
) -> None:
    settings = _settings(*([] if subscription_id else ["PUBLIC_URL"]))

    async def on_it(webhooks: Webhooks, _: Ledger) -> Any:
        if subscription_id is not None:
            return await work(webhooks, subscription_id)
        listed = await webhooks.listed()
        if isinstance(listed, Trouble):
            return listed
        here = subscription_of(listed, url=_public_url(settings))
        return (
            Trouble(reason="no subscription delivers to PUBLIC_URL")
            if here is None
            else await work(webhooks, here.id)
        )

    now: Subscription = _or_exit(_asked(settings, on_it))
    if as_json:
        print_json({"id": now.id, "status": now.status})
    else:
        click.echo(f"{now.id} {words}.")


def _settings(*more: str) -> Settings:
    return settings_or_exit("CLOSE_API_KEY", "REDIS_URL", *more)


def _public_url(settings: Settings) -> str:
    if settings.public_url is None:
        give_up("PUBLIC_URL is not set")
    return settings.public_url


def _described(one: Subscription, *, settings: Settings, key_known: bool) -> dict[str, Any]:
    """A subscription as plain data."""
    return {
        "id": one.id,
        "status": one.status,
        "events": [event.name for event in one.events],
        "url": one.url,
        "here": settings.public_url is not None and same_receiver(one.url, settings.public_url),
        "failing": one.failing_buckets > 0,
        "key_known": key_known,
    }


def _asked(settings: Settings, work: Callable[[Webhooks, Ledger], Awaitable[Found]]) -> Found:
    """What asking Close comes to; exit 2 where key or address cannot be used."""
    try:
        api = close_api(settings)
    except ValueError as error:
        give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")

    async def run(ledger: Ledger) -> Found:
        try:
            return await work(Webhooks(api, ledger.redis, log=get_logger("webhook")), ledger)
        finally:
            await api.aclose()

    found: Found = connected(settings, run)
    return found


def _or_exit(found: Any) -> Any:
    """What was found; or why there is nothing, and exit 1."""
    if isinstance(found, Trouble):
        give_up(found.reason, code=EXIT_FAILED)
    return found
