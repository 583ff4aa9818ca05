"""The templates with their filters: how numbers, moments and durations are written for people."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.dashboard import charts_svg
from service.enrichment import STATE_MEANINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1000, 60_000, 3_600_000, 86_400_000
_MANY = 100_000
_FIRST_DECIMAL_S = 10
_FIRST_WHOLE_RATE = 100


@functools.cache
def read_static() -> Mapping[str, bytes]:
    """The files of `static/` that browsers are given, by name. Read once: there is no path to wander off."""
    folder = files("service.dashboard") / "static"
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if one.is_file() and "." + one.name.rpartition(".")[2] in MEDIA_TYPES
    }


class Look:
    """The pages' look.

    Args:
        nav: path and name of every page in the navigation.
    """

    def __init__(self, *, nav: Sequence[tuple[str, str]]) -> None:
        self.nav = nav

    def render(self, template: str, **facts: Any) -> str:
        """A page's HTML.

        Raises:
            jinja2.TemplateError: the template names what it was not given.
        """
        return _environment().get_template(template).render(**facts, nav=self.nav)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "short": short,
        "rate": rate,
        "to_second": to_second,
        "moment": moment,
        "iso": iso,
        "duration": duration,
        "sum_of": lambda counts: sum(counts.values()),
        "chart": Markup,  # our own SVG, in which charts_svg has escaped every word
    }
    environment.globals |= {
        "static": _static_address,
        "charts": charts_svg,
        "meanings": {str(state): meaning for state, meaning in STATE_MEANINGS.items()},
        "seconds_words": lambda seconds: duration(seconds * 1000),
    }
    return environment


@functools.cache
def _static_address(name: str) -> str:
    """Where browsers get a file of `static/`; another address for other contents, as they keep it."""
    return f"/static/{name}?v={hashlib.sha256(read_static()[name]).hexdigest()[:12]}"


def number(value: float) -> str:
    """A number with thousands apart: 12,345."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def rate(value: float) -> str:
    """How often something happens, in digits that tell something: 0.4, 12.5, 353."""
    return number(round(value, 1) if value < _FIRST_WHOLE_RATE else round(value))


def short(value: int) -> str:
    """A number that may be large, in few characters: 1.2M."""
    if abs(value) < _MANY:
        return number(value)
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return number(value)


def moment(at_ms: int) -> str:
    """A moment for people, UTC, to the second."""
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(at_ms: int) -> str:
    """A moment for machines."""
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def to_second(written: str) -> str:
    """A moment as Close writes it, for people; what is none stays as it is."""
    try:
        at = dt.datetime.fromisoformat(written)
    except ValueError:
        return written
    return moment(round(at.replace(tzinfo=at.tzinfo or dt.UTC).timestamp()) * 1000)


def duration(milliseconds: float) -> str:
    """How long something takes or is ago, in its largest unit: 0.4 s, 12 s, 5 min, 3 h, 2 days."""
    ms = max(0.0, milliseconds)
    if ms < _FIRST_DECIMAL_S * _SECOND_MS:
        return f"{ms / _SECOND_MS:.1f} s"
    if ms < 2 * _MINUTE_MS:
        return f"{ms / _SECOND_MS:.0f} s"
    if ms < 2 * _HOUR_MS:
        return f"{ms / _MINUTE_MS:.0f} min"
    if ms < 2 * _DAY_MS:
        return f"{ms / _HOUR_MS:.0f} h"
    return f"{ms / _DAY_MS:.0f} days"
