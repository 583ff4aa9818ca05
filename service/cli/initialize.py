"""What `init` does: ask Close for its fields, ask the person which, write the two files."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from service.cli import agree
from service.cli.printing import print_json
from service.cli.start import give_up, settings_or_exit
from service.problem import nearest_names, printable
from service.rules import ObjectType
from service.rules_file import load_rules
from service.schema import Schema, parse_schema
from service.settings import Settings, load_settings
from service.starter_rules import picks_of, starter_rules, starter_settings
from workers.close_client import close_api
from workers.reply import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from service.starter_rules import Pick
    from workers.close_api import CloseApi
    from workers.reply import Reply

EXIT_FAILED = 1
HTTP_OK = 200
REFUSED = {401: "Close refuses this API key", 403: "this API key may not read custom fields"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was given on the command line; see `service.cli.init`."""

    fields: tuple[str, ...]
    all_fields: bool
    only_list: bool
    per_day: int
    public_url: str | None
    redis_url: str | None
    directory: Path
    force: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What Close says about the key: the organization's name and the fields that may be enriched."""

    organization: str
    picks: tuple[Pick, ...]


def run_init(wishes: Wishes) -> None:
    """The command `init`."""
    _check_targets(wishes)
    settings = _with_key(settings_or_exit())
    _check_urls(wishes)
    account = _account_or_exit(settings)
    if wishes.only_list:
        _list(account, as_json=wishes.as_json)
        return
    picks = _picks_or_exit(wishes, account)
    rules = starter_rules(picks, organization=account.organization, per_day=wishes.per_day)
    mistakes = load_rules(rules, source="rules.yaml").problems
    if mistakes:
        raise RuntimeError(f"init wrote rules with mistakes: {mistakes[0].message}")
    api_key = settings.close_api_key.reveal() if settings.close_api_key else None
    env = {
        "CLOSE_API_KEY": api_key,
        **({"CLOSE_API_URL": os.environ["CLOSE_API_URL"]} if os.environ.get("CLOSE_API_URL") else {}),
        "RULES_FILE": "rules.yaml",
        "PUBLIC_URL": wishes.public_url,
        "REDIS_URL": wishes.redis_url,
    }
    written = [
        _write(wishes.directory / "rules.yaml", rules),
        _write(wishes.directory / ".env", starter_settings(env), secret=True),
    ]
    if wishes.as_json:
        print_json(
            {
                "organization": account.organization,
                "fields": [one.label for one in picks],
                "written": [str(path) for path in written],
            }
        )
    else:
        _say_what_next(wishes, account, picks)


def _check_targets(wishes: Wishes) -> None:
    there = [
        str(wishes.directory / name)
        for name in ("rules.yaml", ".env")
        if (wishes.directory / name).exists() and not (wishes.force or wishes.only_list)
    ]
    if there:
        give_up(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already: --force writes anew"
        )


def _check_urls(wishes: Wishes) -> None:
    given = {"PUBLIC_URL": wishes.public_url, "REDIS_URL": wishes.redis_url}
    found = load_settings({name: value for name, value in given.items() if value}, needs=(), on_terminal=True)
    if not isinstance(found, Settings):
        give_up("\n".join(f"--{one.name.lower().replace('_', '-')}: {one.message}" for one in found))


def _with_key(settings: Settings) -> Settings:
    """Settings with a key: the environment's, or one that is typed in."""
    if settings.close_api_key is not None:
        return settings
    if not agree.at_terminal():
        give_up("CLOSE_API_KEY is not set, and there is no terminal to ask at")
    click.echo("An API key is made in Close under Settings > Developer > API Keys.", err=True)
    text = click.prompt("Close API key", hide_input=True, err=True).strip()
    found = load_settings({**os.environ, "CLOSE_API_KEY": text}, needs=("CLOSE_API_KEY",))
    if not isinstance(found, Settings):
        give_up("\n".join(str(one) for one in found))
    return replace(settings, close_api_key=found.close_api_key)


def _account_or_exit(settings: Settings) -> Account:
    async def ask() -> Account | str:
        api = close_api(settings)
        try:
            return await _account(api)
        finally:
            await api.aclose()

    try:
        found = asyncio.run(ask())
    except ValueError as error:
        give_up(f"CLOSE_API_KEY, CLOSE_API_URL: {error}")
    if isinstance(found, str):
        give_up(found, code=EXIT_FAILED)
    return found


async def _account(api: CloseApi) -> Account | str:
    """What Close says; or why it cannot be had."""
    me, *answers = await asyncio.gather(
        api.get_me(), *(api.get_schema(object_type=object_type) for object_type in ObjectType)
    )
    schemas: list[Schema] = []
    for object_type, answer in zip(ObjectType, answers, strict=True):
        if isinstance(answer, Failure):
            return f"Close does not answer: {answer.kind}, {answer.detail}"
        if answer.status != HTTP_OK:
            return REFUSED.get(
                answer.status, f"Close answered {answer.status} when asked for its custom fields"
            )
        schema = parse_schema(answer.body, object_type=object_type)
        if isinstance(schema, str):
            return f"Close's answer cannot be used: {schema}"
        schemas.append(schema)
    ids = {schema.organization_id for schema in schemas}
    return Account(organization=_organization(me, ids), picks=picks_of(schemas))


def _organization(me: Reply | Failure, ids: set[str]) -> str:
    """The organization's name, as far as Close tells it."""
    try:
        found: Any = json.loads(me.body) if not isinstance(me, Failure) and me.status == HTTP_OK else {}
    except ValueError:
        found = {}
    known = found.get("organizations") if isinstance(found, dict) else None
    for one in known if isinstance(known, list) else []:
        if isinstance(one, dict) and one.get("id") in ids and isinstance(one.get("name"), str):
            return str(one["name"])
    return next(iter(ids), "") or "your organization"


def _list(account: Account, *, as_json: bool) -> None:
    if as_json:
        print_json(
            [{"label": one.label, "id": one.field.id, "type": one.field.type} for one in account.picks]
        )
        return
    click.echo(
        f"{agree.number(len(account.picks), 'field')} of {printable(account.organization)} can be enriched:"
    )
    for pick in account.picks:
        click.echo(f"  {printable(pick.label)}  ({pick.field.type})")


def _picks_or_exit(wishes: Wishes, account: Account) -> Sequence[Pick]:
    if not account.picks:
        give_up(
            "no custom field of leads or contacts can be enriched: text, choices, number or date fields are "
            "made in Close under Settings > Custom Fields",
            code=EXIT_FAILED,
        )
    if wishes.all_fields:
        return account.picks
    if wishes.fields:
        return _named_or_exit(wishes.fields, account.picks)
    if not agree.at_terminal():
        labels = ", ".join(pick.label for pick in account.picks[:5])
        give_up(f"there is no terminal to ask at: add --field ({labels}, ...) or --all-fields")
    picked = _ask_for(account)
    if not picked:
        give_up("No field was picked; nothing was written.", code=EXIT_FAILED)
    return picked


def _named_or_exit(wanted: Sequence[str], picks: Sequence[Pick]) -> list[Pick]:
    found: list[Pick] = []
    problems = []
    for text in dict.fromkeys(wanted):
        kind, _, name = text.partition(":")
        fitting = [
            pick for pick in picks if pick.object_type == kind and name in {pick.field.name, pick.field.id}
        ]
        if len(fitting) > 1:
            ids = " or ".join(f"{kind}:{pick.field.id}" for pick in fitting)
            problems.append(f"--field {text}: several fields have that name; take {ids}")
        elif fitting:
            found += fitting
        else:
            near = nearest_names(text, (pick.label for pick in picks))
            hint = f"; did you mean {near[0]}?" if near else "; `--list` shows all"
            problems.append(f"--field {text}: no such field that can be enriched{hint}")
    if problems:
        give_up("\n".join(problems))
    return found


def _ask_for(account: Account) -> list[Pick]:
    """Let the person pick with arrow keys and space."""
    import questionary

    choices: list[Any] = []
    for object_type in ObjectType:
        of_type = [pick for pick in account.picks if pick.object_type is object_type]
        if of_type:
            choices.append(questionary.Separator(f"{object_type.value.capitalize()}s"))
            choices += [
                questionary.Choice(f"{printable(pick.field.name)} ({pick.field.type})", value=pick)
                for pick in of_type
            ]
    answer = questionary.checkbox(
        f"Which fields of {printable(account.organization)} shall be filled?",
        choices=choices,
        instruction="(arrow keys move, space picks, a picks all, Enter ends)",
    ).ask()
    return list(answer or ())


def _write(path: Path, text: str, *, secret: bool = False) -> Path:
    mode = stat.S_IRUSR | stat.S_IWUSR if secret else 0o644
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # a file that was there keeps the mode it had
            os.fchmod(file.fileno(), mode)
            file.write(text)
    except OSError as error:
        give_up(f"{path}: cannot be written: {error.strerror}", code=EXIT_FAILED)
    return path


def _say_what_next(wishes: Wishes, account: Account, picks: Sequence[Pick]) -> None:
    where = "" if str(wishes.directory) == "." else f"cd {wishes.directory} && "
    click.echo(
        f"Wrote rules.yaml with {agree.number(len(picks), 'rule')} "
        f"for {printable(account.organization)}, and .env."
    )
    click.echo("\nNext:")
    steps = [
        (f"{where}set -a && . ./.env && set +a", "let this shell know the settings"),
        ("close-enrich rules check", "after every change"),
        *(
            [("", "set PUBLIC_URL in .env: where Close reaches this machine")]
            if wishes.public_url is None
            else []
        ),
        ("close-enrich up", "web, worker and, without REDIS_URL, a Redis"),
    ]
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        click.echo(f"  {command:{width}}  # {why}")
