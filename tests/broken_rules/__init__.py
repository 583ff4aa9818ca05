"""Broken rules files, each beside the exact words that `close-enrich rules check` has for it.

`file` holds what is wrong by itself, `close` what is wrong in the light of Close's custom fields (those of
`fields.json`), `doubtful` what can be used and is warned of. After a wanted change of words,
`python -m tests.broken_rules` writes them all anew; read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from service.rules import ObjectType
from service.rules_file import load_rules
from service.rules_report import all_problems, rendered
from service.schema import Schema, parse_schema

if TYPE_CHECKING:
    from service.problem import Problem

FOLDER = Path(__file__).parent
CASES = tuple(sorted(FOLDER.glob("*/*.yaml")))


def case_name(path: Path) -> str:
    """`file/empty` for the file `file/empty.yaml`."""
    return f"{path.parent.name}/{path.stem}"


def frozen_schemas() -> dict[ObjectType, Schema]:
    """The custom fields that the cases in `close` are compared with."""
    schemas = {}
    for name, answer in json.loads((FOLDER / "fields.json").read_text(encoding="utf-8")).items():
        schema = parse_schema(answer, object_type=ObjectType(name))
        if not isinstance(schema, Schema):
            raise TypeError(schema)
        schemas[ObjectType(name)] = schema
    return schemas


def problems_of(path: Path) -> tuple[Problem, ...]:
    """All that is wrong with a case."""
    schemas = frozen_schemas() if path.parent.name == "close" else {}
    return all_problems(load_rules(path.read_bytes(), source="rules.yaml"), schemas=schemas)


def words_for(path: Path) -> str:
    """What a person reads about a case."""
    return rendered(problems_of(path), source="rules.yaml") + "\n"
