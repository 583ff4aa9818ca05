"""The rules file as people write it: its keys, their kinds and ranges; nothing that needs two keys at once.

`service.rules_file` turns it into `service.rules.RuleBook`; `service.rules_schema` describes it to editors.
An absent key is None here; `service.rules_file` applies the defaults.

A value that does not fit is a pydantic error of type `refused` whose context has the `value` as text, the
`fault` that completes the sentence, and the `suggestion` or None.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.condition import LONGEST_CONDITION
from service.durations import DURATION_PATTERN, format_duration, nearest_duration, parse_duration
from service.problem import nearest, shown
from service.rules import Mode, ObjectType, OnAmbiguous, OnExhausted, Priority

LONGEST_NAME = 60
"""Characters of a rule's name."""

_LONGEST_FIELD = 200
_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400
_MOST_CREDITS = 1_000_000_000

_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?%")

_Word = TypeVar("_Word", bound=StrEnum)


def _refuse(value: object, fault: str, suggestion: str | None = None) -> NoReturn:
    kinds: dict[type, str] = {dict: "a mapping", list: "a list", bool: shown(str(value).lower())}
    named = kinds.get(type(value)) or shown(str(value))
    raise PydanticCustomError(
        "refused", "{value} {fault}", {"value": named, "fault": fault, "suggestion": suggestion}
    )


def _one_of(kind: type[_Word]) -> Callable[[object], _Word]:
    words = [member.value for member in kind]

    def check(value: object) -> _Word:
        if isinstance(value, str) and value in words:
            return kind(value)
        _refuse(value, f"is not one of {', '.join(words)}", nearest(str(value), words))

    return check


def _duration(least_seconds: float, most_seconds: float) -> BeforeValidator:
    limits = f"{format_duration(least_seconds)} to {format_duration(most_seconds)}"

    def check(value: object) -> float:
        seconds = parse_duration(str(value))
        if seconds is None:
            _refuse(value, "is not a duration like 250ms, 20s, 2m, 1h or 1d", nearest_duration(str(value)))
        if not least_seconds <= seconds <= most_seconds:
            _refuse(value, f"is not within {limits}")
        return seconds

    return BeforeValidator(check)


def _whole(least: int, most: int) -> BeforeValidator:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse(value, "is not a whole number")
        if not least <= value <= most:
            _refuse(value, f"is not within {least} to {most}")
        return value

    return BeforeValidator(check)


def _text(longest: int) -> BeforeValidator:
    def check(value: object) -> str:
        if not isinstance(value, str):
            _refuse(
                value, "is not text" if isinstance(value, (dict, list)) else "is not text; put it in quotes"
            )
        if not value.strip():
            _refuse(value, "is empty")
        if len(value) > longest:
            _refuse(value, f"has {len(value)} characters, but at most {longest} fit")
        return value

    return BeforeValidator(check)


def _share(value: object) -> float:
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        share = float(value.removesuffix("%")) / 100
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        share = float(value)
    else:
        _refuse(value, "is not a share like 10% or 0.1")
    if not 0 <= share <= 1:
        likely = f"{value}%" if not isinstance(value, str) and 1 < share <= 100 else None  # noqa: PLR2004 - percent
        _refuse(value, "is not within 0% to 100%", likely)
    return share


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        _refuse(value, "is neither true nor false", nearest(str(value), ("true", "false")))
    return value


def _version(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value != 1:
        _refuse(value, "is not a version that can be read; the only one is 1", "1")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        _refuse(value, "is not a list", f"[{value}]" if isinstance(value, str) else None)
    return value


def _text_schema(longest: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": longest, "pattern": r"\S"})


def _whole_schema(least: int, most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": least, "maximum": most})


_WRITTEN_DURATION = {"type": "string", "pattern": DURATION_PATTERN}
_DURATION_SCHEMA = WithJsonSchema(_WRITTEN_DURATION)
_DURATION_OR_NONE_SCHEMA = WithJsonSchema({"anyOf": [_WRITTEN_DURATION, {"const": 0}]})
_SHARE_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "pattern": r"^0*(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$"},
            {"type": "number", "minimum": 0, "maximum": 1},
        ]
    }
)
_WHOLE_EVENT = r"^\s*(created|merged)\s*$"
_EVENTS_SCHEMA = WithJsonSchema(
    {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": _LONGEST_FIELD,
            "anyOf": [{"enum": ["created", "merged"]}, {"pattern": r"\S"}],
        },
        # YAML splits `[updated(title, url)]` at the comma: beside an `updated(` any text may be a part of it
        "if": {"not": {"contains": {"type": "string", "pattern": r"^\s*updated\s*\("}}},
        "then": {"items": {"pattern": _WHOLE_EVENT}},
    }
)

_Name: TypeAlias = Annotated[str, _text(LONGEST_NAME), _text_schema(LONGEST_NAME)]
_FieldName: TypeAlias = Annotated[str, _text(_LONGEST_FIELD), _text_schema(_LONGEST_FIELD)]
_Expression: TypeAlias = Annotated[str, _text(LONGEST_CONDITION), _text_schema(LONGEST_CONDITION)]
_Events: TypeAlias = Annotated[list[_FieldName], BeforeValidator(_list), _EVENTS_SCHEMA]
_Credits: TypeAlias = Annotated[int, _whole(0, _MOST_CREDITS), _whole_schema(0, _MOST_CREDITS)]
_Attempts: TypeAlias = Annotated[int, _whole(1, 100), _whole_schema(1, 100)]
_Settle: TypeAlias = Annotated[float, _duration(0, 7 * _DAY), _DURATION_OR_NONE_SCHEMA]
_Timeout: TypeAlias = Annotated[float, _duration(_SECOND, 15 * _MINUTE), _DURATION_SCHEMA]
_Pause: TypeAlias = Annotated[float, _duration(0.1, _DAY), _DURATION_SCHEMA]
_Window: TypeAlias = Annotated[float, _duration(_SECOND, 7 * _DAY), _DURATION_SCHEMA]
_ModeWord: TypeAlias = Annotated[Mode, BeforeValidator(_one_of(Mode))]
_AmbiguousWord: TypeAlias = Annotated[OnAmbiguous, BeforeValidator(_one_of(OnAmbiguous))]


class BurstGuard(StrEnum):
    """What becomes of the enrichments of a burst."""

    HOLD = "hold"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackoffKeys(_Part):
    """Pauses between failed calls: exponential, with full jitter; a delay that Close names wins."""

    first: _Pause | None = Field(
        None, description="The longest that the first pause may be; 2s by default.", examples=["2s"]
    )
    most: _Pause | None = Field(
        None, description="The longest that any pause may be; 10m by default.", examples=["10m"]
    )


class BurstKeys(_Part):
    """A guard against bulk imports: what is planned beyond `most` within `within` waits for a person."""

    most: _Credits = Field(description="So many fields are planned unguarded.", examples=[500])
    within: _Window = Field(description="In so much time, up to 7d.", examples=["10m"])
    then: Annotated[BurstGuard, BeforeValidator(_one_of(BurstGuard))] = Field(
        BurstGuard.HOLD, description="hold: until `close-enrich release`."
    )


class OwnBudgetKeys(_Part):
    """A ceiling on credits; one credit is one call. A rule's own one holds within the top-level one."""

    per_day: _Credits | None = Field(None, description="Credits a day at most.", examples=[300])
    per_month: _Credits | None = Field(None, description="Credits a month at most.", examples=[5000])
    on_exhausted: Annotated[OnExhausted, BeforeValidator(_one_of(OnExhausted))] | None = Field(
        None,
        description="wait: for the next day or month (the default); drop: ends as skipped.",
        examples=["wait"],
    )


class BudgetKeys(OwnBudgetKeys):
    """The organization's ceiling on credits, and the guard against bursts, for all rules together."""

    burst: BurstKeys | None = Field(
        None,
        description="A bulk import waits for a person.",
        examples=[{"most": 500, "within": "10m", "then": "hold"}],
    )


class DefaultKeys(_Part):
    """What a rule does that does not say otherwise."""

    on: _Events | None = Field(
        None,
        description="The events that run the rule: created, merged (leads only), or updated(<field>, ...) "
        "with the fields whose change counts.",
        examples=[["created"], ["created", "updated(title)"], ["merged"]],
    )
    mode: _ModeWord | None = Field(
        None,
        description="fill: only where the field is empty (the default); overwrite: over what is there; "
        "preview: compute and record, do not save.",
        examples=["fill"],
    )
    settle: _Settle | None = Field(
        None,
        description="How long to wait for people and forms to finish typing, 0 to 7d; 20s by default. "
        "The condition is then judged on a fresh read; with 0, on the event itself.",
        examples=["20s", 0],
    )
    timeout: _Timeout | None = Field(
        None, description="How long one call may take, 1s to 15m; 120s by default.", examples=["120s"]
    )
    attempts: _Attempts | None = Field(
        None,
        description="Failed calls before giving up; 5 by default. Waiting for the rate limit does not count.",
        examples=[5],
    )
    backoff: BackoffKeys | None = Field(
        None, description="Pauses between failed calls.", examples=[{"first": "2s", "most": "10m"}]
    )
    on_ambiguous: _AmbiguousWord | None = Field(
        None,
        description="When a call may have run and the field, read back, is still empty: retry (the default), "
        "or hold for a person.",
        examples=["retry"],
    )


class RuleKeys(DefaultKeys):
    """A field to enrich, and when and how."""

    name: _Name = Field(description="What people call the rule; unique.", examples=["Industry"])
    object: Annotated[ObjectType, BeforeValidator(_one_of(ObjectType))] = Field(
        description="Whose field it is.", examples=["lead"]
    )
    field: _FieldName = Field(
        description="A custom field's name in Close, or its id.", examples=["Industry", "# of employees"]
    )
    when: _Expression | None = Field(
        None,
        description="A condition in CEL over lead or contact, event and organization. A field without a "
        'value is absent to has() and reads as empty text. Custom fields: lead.custom["Industry"].',
        examples=['lead.url != ""', 'lead.status_label in ["Potential", "Qualified"]', "has(contact.title)"],
    )
    priority: Annotated[Priority, BeforeValidator(_one_of(Priority))] | None = Field(
        None,
        description="high: at the front; normal (the default); low: behind all live work.",
        examples=["high"],
    )
    after: Annotated[list[_Name], BeforeValidator(_list)] | None = Field(
        None,
        description="Names of rules for the same object that must have ended first.",
        examples=[["Industry"]],
    )
    sample: Annotated[float, BeforeValidator(_share), _SHARE_SCHEMA] | None = Field(
        None,
        description="The share of matching records to enrich, the same ones every time: 10% or 0.1.",
        examples=["10%", 0.1],
    )
    enabled: Annotated[bool, BeforeValidator(_switch)] | None = Field(
        None, description="A disabled rule is checked and never runs.", examples=[False]
    )
    budget: OwnBudgetKeys | None = Field(
        None, description="The rule's own ceiling on credits.", examples=[{"per_day": 300}]
    )


class RulesFile(_Part):
    """What to enrich on new leads and contacts in Close. Check a file with `close-enrich rules check`."""

    version: Annotated[Literal[1], BeforeValidator(_version)] = Field(
        description="The version of this format; the only one is 1.", examples=[1]
    )
    defaults: DefaultKeys | None = Field(None, description="What a rule that does not say otherwise does.")
    budget: BudgetKeys | None = Field(
        None,
        description="The organization's ceiling on credits, for all rules together.",
        examples=[{"per_day": 2000, "per_month": 30000, "on_exhausted": "wait"}],
    )
    rules: Annotated[list[RuleKeys], BeforeValidator(_list)] = Field(
        description="Each names one field. Of two rules for one field, the first that wants a record gets it."
    )
