"""The JSON Schema of a rules file, for editors. Pure.

It describes what can be said of one key at a time; whatever `service.rules_file` accepts, it accepts. Draft:
https://json-schema.org/draft/2020-12.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from service.rules_model import RulesFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _ForEditors(GenerateJsonSchema):
    """Pydantic's schema as a file has it: an absent key is absent, not null, and needs no title."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002 - pydantic's signature
        """Keep the order of the model, which is the one that people read it in."""
        return value


def rules_schema() -> dict[str, Any]:
    """The schema as plain data."""
    schema = RulesFile.model_json_schema(schema_generator=_ForEditors)
    return {"$schema": DIALECT, "title": "Rules of close-enrich", **_without_titles(schema)}


def rules_schema_text() -> str:
    """The schema as it is kept in `deploy/rules.schema.json`."""
    return json.dumps(rules_schema(), indent=2, ensure_ascii=False) + "\n"


def _without_titles(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without the names of our classes, which mean nothing to the person who writes."""
    plain = {key: value for key, value in schema.items() if key != "title"}
    definitions = {
        name: {key: value for key, value in part.items() if key != "title"}
        for name, part in schema["$defs"].items()
    }
    return {**plain, "$defs": definitions}
