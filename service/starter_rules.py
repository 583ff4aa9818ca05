"""The first rules file and settings of a new installation, from the fields that somebody picked. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from service.problem import printable
from service.rules import ObjectType
from service.schema import ENRICHABLE_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.schema import CustomField, Schema

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 ()&+/.-]{0,58}[A-Za-z0-9)]")
_NOT_TEXT = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})
_ENV_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@%+=?&-]+")

WHEN = {ObjectType.LEAD: 'lead.url != ""', ObjectType.CONTACT: "has(contact.title)"}
"""A condition to begin with: what an enrichment can do little without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One custom field that may be enriched."""

    object_type: ObjectType
    field: CustomField

    @property
    def label(self) -> str:
        """How it is named on the command line: `lead:Industry`."""
        return f"{self.object_type}:{self.field.name}"


def picks_of(schemas: Iterable[Schema]) -> tuple[Pick, ...]:
    """Every field of a type that Close's enrichment fills, in Close's order."""
    return tuple(
        Pick(object_type=schema.object_type, field=field)
        for schema in schemas
        for field in schema.fields
        if field.type in ENRICHABLE_TYPES
    )


def starter_rules(picks: Sequence[Pick], *, organization: str, per_day: int) -> str:
    """A commented rules file with one rule for each picked field.

    Args:
        picks: the fields, at least one.
        organization: its name, for the heading.
        per_day: the budget, credits a day.
    """
    fields_named = Counter((pick.object_type, pick.field.name) for pick in picks)
    rules_named = Counter(pick.field.name for pick in picks)
    rules = []
    for pick in picks:
        field, kind = pick.field, pick.object_type
        name = field.name if rules_named[field.name] == 1 else f"{field.name} ({kind})"
        ambiguous = fields_named[kind, field.name] > 1
        if ambiguous:
            name = f"{field.name} ({field.id})"
        told = f"{field.type}, {len(field.choices)} choices" if field.choices else field.type
        rules.append(
            f"  - name: {_scalar(name)}\n"
            f"    object: {kind}\n"
            f"    field: {_scalar(field.id if ambiguous else field.name)}    # {told}\n"
            f"    # when: {WHEN[kind]}\n"
        )
    return _FILE.format(organization=printable(organization), per_day=per_day, rules="\n".join(rules))


_FILE = """\
# What to enrich on new leads and contacts of {organization}.
# `close-enrich rules check` names every mistake; `close-enrich rules schema` is for your editor.
version: 1

defaults:
  on: [created]        # also merged, updated(<field>, ...)
  mode: fill           # only where the field is empty | overwrite | preview: compute, do not save
  settle: 20s          # wait for people and forms to finish typing

budget:                # one credit is one call
  per_day: {per_day}
  on_exhausted: wait   # for the next day | drop
  burst: {{most: 500, within: 10m, then: hold}}   # a bulk import waits for `close-enrich release`

rules:
{rules}"""


def starter_settings(values: Mapping[str, str | None]) -> str:
    """A `.env` file: settings by name; one without a value is there as a comment."""
    lines = ["# Settings of close-enrich. It holds secrets: keep it out of version control."]
    for name, value in values.items():
        lines.append(f"# {name}=" if value is None else f"{name}={_quoted(value)}")
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A text as YAML reads it back."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    quoted: str = yaml.safe_dump(text, allow_unicode=True, default_style='"', width=math.inf)
    return quoted.rstrip("\n")


def _quoted(value: str) -> str:
    """A value as a shell, systemd and container engines read it; all take single quotes but for Docker's."""
    return value if _ENV_PLAIN.fullmatch(value) else "'" + value.replace("'", "'\\''") + "'"
