"""The rules file as people write it: its keys, their kinds and ranges; nothing that needs two keys at once.

`service.rules_file` turns it into `service.rules.RuleBook`; `RulesFile.model_json_schema()` describes it to
editors. An absent key is None here; `service.rules_file` applies the defaults.

A value that does not fit is a pydantic error of type `refused` whose context has the `value` as text, the
`fault` that completes the sentence, and the `suggestion` or None.
"""

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
    percent = isinstance(value, str) and value.endswith("%")
    try:
        number = float(str(value).removesuffix("%")) if percent else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        _refuse(value, "is not a share like 10% or 0.1")
    share = number / 100 if percent else float(number)
    if not 0 <= share <= 1:
        _refuse(value, "is not within 0% to 100%", f"{value}%" if not percent and 1 < number <= 100 else None)  # noqa: PLR2004 - percent
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


_DURATION_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]})
_SHARE_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string", "pattern": r"^[0-9.]+%$"}, {"type": "number", "minimum": 0, "maximum": 1}]}
)

_Name: TypeAlias = Annotated[str, _text(LONGEST_NAME), Field(min_length=1, max_length=LONGEST_NAME)]
_FieldName: TypeAlias = Annotated[str, _text(_LONGEST_FIELD), Field(min_length=1, max_length=_LONGEST_FIELD)]
_Expression: TypeAlias = Annotated[
    str, _text(LONGEST_CONDITION), Field(min_length=1, max_length=LONGEST_CONDITION)
]
_Events: TypeAlias = Annotated[list[_FieldName], BeforeValidator(_list)]
_Credits: TypeAlias = Annotated[int, _whole(0, _MOST_CREDITS), Field(ge=0, le=_MOST_CREDITS)]
_Attempts: TypeAlias = Annotated[int, _whole(1, 100), Field(ge=1, le=100)]
_Settle: TypeAlias = Annotated[float, _duration(0, 7 * _DAY), _DURATION_SCHEMA]
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
    """`backoff`: exponential, with full jitter; a delay that a server names wins."""

    first: _Pause | None = Field(None, description="The ceiling of the first pause.")
    most: _Pause | None = Field(None, description="The ceiling of every pause.")


class BurstKeys(_Part):
    """`burst`: more enrichments than `most` planned within `within` wait for a person."""

    most: _Credits
    within: _Window
    then: Annotated[BurstGuard, BeforeValidator(_one_of(BurstGuard))] = BurstGuard.HOLD


class OwnBudgetKeys(_Part):
    """A rule's `budget`: a ceiling on credits; one credit is one call."""

    per_day: _Credits | None = None
    per_month: _Credits | None = None
    on_exhausted: Annotated[OnExhausted, BeforeValidator(_one_of(OnExhausted))] | None = Field(
        None, description="Wait for the next window, or drop."
    )


class BudgetKeys(OwnBudgetKeys):
    """The file's `budget`: the organization's ceiling, and the guard against bursts of all rules together."""

    burst: BurstKeys | None = None


class DefaultKeys(_Part):
    """`defaults`: what a rule that does not say otherwise does."""

    on: _Events | None = Field(None, description="created | updated(<field>, ...) | merged")
    mode: _ModeWord | None = Field(
        None, description="fill: only when empty; overwrite; preview: compute, do not save."
    )
    settle: _Settle | None = Field(None, description="Wait for people and forms to finish typing.")
    timeout: _Timeout | None = Field(None, description="How long one call may take.")
    attempts: _Attempts | None = Field(None, description="Failed calls before giving up.")
    backoff: BackoffKeys | None = None
    on_ambiguous: _AmbiguousWord | None = Field(
        None, description="After a call that may have run, with the field still empty."
    )


class RuleKeys(DefaultKeys):
    """One of `rules`: a field to enrich, and when and how."""

    name: _Name
    object: Annotated[ObjectType, BeforeValidator(_one_of(ObjectType))]
    field: _FieldName = Field(description="A custom field's name in Close, or its id.")
    when: _Expression | None = Field(None, description="CEL over lead or contact, event and organization.")
    priority: Annotated[Priority, BeforeValidator(_one_of(Priority))] | None = None
    after: Annotated[list[_Name], BeforeValidator(_list)] | None = Field(
        None, description="Rules for the same object that must have ended."
    )
    sample: Annotated[float, BeforeValidator(_share), _SHARE_SCHEMA] | None = Field(
        None, description="The share of matching records, the same ones every time."
    )
    enabled: Annotated[bool, BeforeValidator(_switch)] | None = None
    budget: OwnBudgetKeys | None = None


class RulesFile(_Part):
    """What to enrich on new leads and contacts."""

    version: Annotated[Literal[1], BeforeValidator(_version)]
    defaults: DefaultKeys | None = None
    budget: BudgetKeys | None = None
    rules: Annotated[list[RuleKeys], BeforeValidator(_list)]
