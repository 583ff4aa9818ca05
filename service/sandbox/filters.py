"""The filter language of webhook subscriptions (`extra_filter`). Pure.

Source: https://developer.close.com/api/resources/webhooks/webhook-filters. A filter is judged on the event
object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_MISSING: Any = object()

_LEAVES = ("equals", "not_equals", "is_null", "non_null", "contains")
_NODES = ("field_accessor", "any_array_value", "and", "or", "not", *_LEAVES)
_NEEDS: dict[str, tuple[str, ...]] = {
    "field_accessor": ("field", "filter"),
    "any_array_value": ("filter",),
    "equals": ("value",),
    "not_equals": ("value",),
    "contains": ("value",),
    "is_null": (),
    "non_null": (),
    "and": ("filters",),
    "or": ("filters",),
    "not": ("filter",),
}


def filter_problem(node: object, *, path: str = "extra_filter") -> str | None:
    """What is wrong with a filter and where, or None.

    Args:
        node: the decoded JSON.
        path: where the filter stands, for the message.
    """
    if not isinstance(node, dict):
        return f"{path}: expected an object"
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in _NEEDS:
        return f"{path}.type: expected one of {', '.join(_NODES)}"
    problem = _keys_problem(node, _NEEDS[kind])
    if problem is not None:
        return f"{path}.{problem}"
    if "filter" in node:
        return filter_problem(node["filter"], path=f"{path}.filter")
    return _list_problem(node["filters"], path=f"{path}.filters") if "filters" in node else None


def _keys_problem(node: dict[str, object], needs: tuple[str, ...]) -> str | None:
    for name in needs:
        if name not in node:
            return f"{name}: this field is required"
    for name in node:
        if name != "type" and name not in needs:
            return f"{name}: unknown field"
    return "field: expected a string" if not isinstance(node.get("field", ""), str) else None


def _list_problem(nodes: object, *, path: str) -> str | None:
    if not isinstance(nodes, list):
        return f"{path}: expected a list"
    problems = (filter_problem(node, path=f"{path}[{index}]") for index, node in enumerate(nodes))
    return next((problem for problem in problems if problem), None)


def matches(node: dict[str, Any], value: object, *, missing_is_null: bool = True) -> bool:
    """Whether a value, at the top the event, passes a valid filter.

    Args:
        node: a filter without a `filter_problem`.
        value: decoded JSON.
        missing_is_null: whether a key that is absent counts as null (likely, not documented); otherwise
            `is_null` is false for it, as every leaf but `not_equals` is.
    """
    return _judge(node, None if missing_is_null and value is _MISSING else value, missing_is_null)


def _judge(node: dict[str, Any], value: object, missing_is_null: bool) -> bool:  # noqa: FBT001  # internal recursion
    kind = node["type"]
    if kind == "field_accessor":
        absent = None if missing_is_null else _MISSING
        inner = value.get(node["field"], absent) if isinstance(value, dict) else absent
        return _judge(node["filter"], inner, missing_is_null)
    if kind == "any_array_value":
        return isinstance(value, list) and any(
            _judge(node["filter"], item, missing_is_null) for item in value
        )
    if kind == "and":
        return all(_judge(inner, value, missing_is_null) for inner in node["filters"])
    if kind == "or":
        return any(_judge(inner, value, missing_is_null) for inner in node["filters"])
    if kind == "not":
        return not _judge(node["filter"], value, missing_is_null)
    return _LEAF_TESTS[kind](value, node.get("value"))


def _equal(left: object, right: object) -> bool:
    # Python's True == 1; JSON's true is no number.
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _contains(value: object, wanted: object) -> bool:
    if isinstance(value, list):
        return any(_equal(item, wanted) for item in value)
    return isinstance(value, str) and isinstance(wanted, str) and wanted in value


_LEAF_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": _equal,
    "not_equals": lambda value, wanted: not _equal(value, wanted),
    "is_null": lambda value, _: value is None,
    "non_null": lambda value, _: value is not None and value is not _MISSING,
    "contains": _contains,
}
