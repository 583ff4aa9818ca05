"""In what words alerts are told. Pure.

Slack, Mattermost and Discord's `/slack` endpoint take JSON with a `text`. Slack reads `&`, `<` and `>` in it
as markup (https://docs.slack.dev/messaging/formatting-message-text); Discord takes 2,000 characters at most.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from service.alert_telling import What
from service.alerts import MANNERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from service.alert_telling import Alert

MOST_CHARACTERS = 1900
MOST_LINES = 10
MOST_WORDS_CHARACTERS = 300

_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})
"""For `@`: a space of no width, so that no name in a reason calls a whole channel."""


def instance_of(public_url: str | None) -> str:
    """How messages name this installation: the host of `PUBLIC_URL`, or "" where it is not known."""
    return "" if public_url is None else urlsplit(public_url).netloc


def message(alerts: Sequence[Alert], *, instance: str) -> str:
    """One message with all that is to be told; what does not fit is counted.

    Args:
        alerts: the most urgent first; at least one.
        instance: see `instance_of`.
    """
    lines = [f"*close-enrich* at {_safe(instance)}" if instance else "*close-enrich*"]
    for number, alert in enumerate(alerts):
        line = _line(alert)
        rest = _rest(alerts[number:])
        # what is left must still fit, should this be the last line that does
        full = sum(map(len, lines)) + len(lines) + len(line) + len(rest) > MOST_CHARACTERS
        if full or number == MOST_LINES:
            lines.append(rest)
            break
        lines.append(line)
    return "\n".join(lines)


def sample(*, instance: str) -> str:
    """The message of `close-enrich alerts test`."""
    at = f" at {_safe(instance)}" if instance else ""
    return f"*close-enrich*{at}\nThis is a test: alerts arrive here."


def payload(text: str) -> bytes:
    """The body of a post."""
    return msgspec.json.encode({"text": text})


def moment(at_ms: int) -> str:
    """A moment, to the minute, UTC."""
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M} UTC"


def plain(text: str) -> str:
    """A text on one line without control characters, cut where it is long."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MOST_WORDS_CHARACTERS else line[: MOST_WORDS_CHARACTERS - 1] + "…"


def _line(alert: Alert) -> str:
    words, since = _safe(plain(alert.words)), moment(alert.since_ms)
    if alert.what is What.OVER:
        until = "" if alert.until_ms is None else f" to {moment(alert.until_ms)}"
        return f"Over: {words} ({since}{until})"
    head = f"Still, since {since}: {words}" if alert.what is What.STILL else f"Alert: {words}. Since {since}"
    return f"{head}. What to do: {MANNERS[alert.kind].advice}"


def _rest(alerts: Iterable[Alert]) -> str:
    kinds = Counter(str(alert.kind) for alert in alerts)
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"And {kinds.total()} more ({named}): `close-enrich alerts list`"


def _safe(text: str) -> str:
    return text.translate(_MARKUP)
