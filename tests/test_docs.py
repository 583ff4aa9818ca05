"""README tells all there is: every setting, command and rule key, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from service.cli.main import main
from service.enrichment import State
from service.rules_model import BackoffKeys, BudgetKeys, BurstKeys, DefaultKeys, RuleKeys
from service.settings import SETTINGS

if TYPE_CHECKING:
    from pydantic import BaseModel

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
RULES_TABLE = README.split("## The rules file")[1].split("\n\n**")[0]

RUN_ON = ("web", "worker", "up", "demo", "sandbox")
"""These run until they are stopped; they report to a log."""

PRINT_FILES = ("completion", "export", "rules schema")


def commands_by_name(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        path = f"{prefix}{name}"
        found |= (
            commands_by_name(command, f"{path} ") if isinstance(command, click.Group) else {path: command}
        )
    return found


COMMANDS = commands_by_name(main)


def keys_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_json_schema()["properties"])


def row_of(key: str) -> str:
    """What the table of rule keys has about one."""
    (row,) = re.findall(rf"^\| `{key}`[ *]*\|.*$", RULES_TABLE, re.MULTILINE)
    return str(row)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_documented(name) -> None:
    assert re.search(rf"^\| .*`{name}`", README, re.MULTILINE)


def test_no_setting_is_documented_that_does_not_exist() -> None:
    table = README.split("## Settings")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", table, re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)}
    assert documented == set(SETTINGS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command) -> None:
    assert f"| `close-enrich {command}`" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(command) -> None:
    help_text = COMMANDS[command].help or ""
    assert re.search(rf"Example: .*close-enrich {command}\b", help_text)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in RUN_ON + PRINT_FILES])
def test_every_command_that_reports_can_print_json(command) -> None:
    assert "--json" in {option for parameter in COMMANDS[command].params for option in parameter.opts}


def test_no_command_is_documented_that_does_not_exist() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `close-enrich ([a-z -]+)", table, re.MULTILINE)) == set(COMMANDS)


def test_the_keys_of_a_rule_are_documented_and_no_other() -> None:
    documented = re.findall(r"^\| `(\w+)`", RULES_TABLE, re.MULTILINE)
    assert sorted(documented) == sorted(keys_of(RuleKeys))


def test_the_keys_that_have_a_mark_are_those_of_the_defaults() -> None:
    assert set(re.findall(r"^\| `(\w+)` \* \|", RULES_TABLE, re.MULTILINE)) == keys_of(DefaultKeys)


def test_the_keys_of_a_backoff_are_documented() -> None:
    assert set(re.findall(r"(\w+):", row_of("backoff"))) == keys_of(BackoffKeys)


@pytest.mark.parametrize("key", sorted(keys_of(BudgetKeys)))
def test_every_key_of_a_budget_is_documented(key) -> None:
    assert f"`{key}`" in row_of("budget")


def test_the_keys_of_a_burst_guard_are_documented() -> None:
    (shown,) = re.findall(r"^ *burst: \{(.*)\}$", README, re.MULTILINE)
    assert set(re.findall(r"(\w+):", shown)) == keys_of(BurstKeys)


@pytest.mark.parametrize("state", State)
def test_every_state_is_in_the_picture(state) -> None:
    assert str(state) in README
