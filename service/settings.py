"""The settings of every command: the only reader of the environment.

Each setting can also come from a file: `CLOSE_API_KEY_FILE=/run/secrets/key` names one that holds the key. A
blank variable counts as unset. All problems are named at once, and no secret's text is among the words.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from service import settings_values as values
from service.redis_address import redis_passwords
from service.settings_values import DashboardDoor, LogFormat, LogLevel, Secret, TracingMode

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Mapping

    from service.signature import SignatureKey

__all__ = ["SETTINGS", "Secret", "Setting", "SettingProblem", "Settings", "load_settings"]

Value = TypeVar("Value")
Otherwise = TypeVar("Otherwise")

MOST_WEB_WORKERS = 64

_FILE = "_FILE"
# a secret put into the wrong variable is longer than this, or has one of these marks
_MAY_BE_SHOWN = re.compile(r"(?!api_)[^@?]{1,30}")
_LIKE_ENOUGH = 0.85
# what makes another setting unnecessary: the keys of a subscription that looks after itself are learned
_STANDS_IN = {"CLOSE_SIGNATURE_KEYS": "PUBLIC_URL"}
_KUBERNETES_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_[0-9]+_(TCP|UDP)\w*)?)")
_KEY_WITH_ID = re.compile(r"(api_[A-Za-z0-9]+)\.[A-Za-z0-9.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as people see it.

    Attributes:
        name: the environment variable.
        default: the text that stands in for it when it is unset; "" where nothing does.
        help: what it does, in a sentence.
        secret: its text is never shown.
    """

    name: str
    default: str = ""
    help: str
    secret: bool = False


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(name="CLOSE_API_KEY", secret=True, help="API key of the organization to enrich."),
        Setting(
            name="CLOSE_API_KEY_ID",
            help="The key's id, `api_…`: it marks our own writes. Unset, it is read off the key.",
        ),
        Setting(
            name="CLOSE_API_URL",
            default="https://api.close.com/api/v1",
            help="Where Close's API is; another address for the sandbox.",
        ),
        Setting(
            name="CLOSE_SIGNATURE_KEYS",
            secret=True,
            help="Signature keys of webhook subscriptions made by hand, hex, comma-separated.",
        ),
        Setting(
            name="PUBLIC_URL",
            help="`https://` address where Close reaches `web`; workers then look after the subscription.",
        ),
        Setting(
            name="REDIS_URL",
            secret=True,
            help="`redis://`, `rediss://`, `unix://` or `redis+sentinel://` URL of Redis.",
        ),
        Setting(
            name="REDIS_WAIT_REPLICAS",
            default="0",
            help="Replicas that must have an event before it is answered 202, and a call before it leaves.",
        ),
        Setting(name="RULES_FILE", default="rules.yaml", help="What to enrich, and when."),
        Setting(name="HOST", default="127.0.0.1", help="Address to listen on; `0.0.0.0` in a container."),
        Setting(name="PORT", default="8080", help="Port to listen on; 0 takes any free one."),
        Setting(
            name="WEB_WORKERS",
            default="1",
            help=f"Processes of one `web` that share the port, 1 to {MOST_WEB_WORKERS}.",
        ),
        Setting(
            name="ADMIN_TOKEN",
            secret=True,
            help="Opens the dashboard, at least 16 characters; unset, there is no dashboard.",
        ),
        Setting(
            name="DASHBOARD",
            default="token",
            help="`open` shows the dashboard to this machine without a token; `demo` and `up` set it.",
        ),
        Setting(name="WORKER_CONCURRENCY", default="100", help="Calls in flight in one worker, 1 to 10000."),
        Setting(
            name="MAX_CALLS_PER_SECOND",
            help="Enrichment calls a second at most, all workers together; unset, Close's limit counts.",
        ),
        Setting(
            name="MAX_IN_FLIGHT",
            help="Enrichment calls in flight at most, all workers together; unset, no ceiling.",
        ),
        Setting(
            name="BUDGET_TIMEZONE",
            default="UTC",
            help="Where a budget's days and months begin, such as `Europe/Paris`.",
        ),
        Setting(
            name="RECONCILE_EVERY",
            default="5m",
            help="How often workers look in Close's event log for missed events: `300`, `5m` or `off`.",
        ),
        Setting(
            name="METRICS_TOKEN",
            secret=True,
            help="Bearer token for `/metrics`, at least 16 characters; unset, this machine needs none.",
        ),
        Setting(
            name="ALERT_WEBHOOK_URL",
            secret=True,
            help="`https://` address that alerts are posted to as Slack-compatible JSON; unset, only logged.",
        ),
        Setting(
            name="ALERT_OLDEST_JOB",
            default="15m",
            help="Alert when a live job has waited for a worker for so long: `900`, `15m` or `off`.",
        ),
        Setting(
            name="SHUTDOWN_GRACE",
            default="25s",
            help="How long a stopping worker lets its calls finish: `25` or `25s`.",
        ),
        Setting(
            name="MAX_BODY_BYTES", default="2MiB", help="Largest delivery accepted: `2097152` or `2MiB`."
        ),
        Setting(
            name="SIGNATURE_MAX_AGE",
            default="off",
            help="Refuse deliveries signed longer ago: `300`, `5m` or `off`. Close retries for 72 hours.",
        ),
        Setting(name="LOG_FORMAT", help="`json` or `console`; unset, `console` on a terminal, else `json`."),
        Setting(name="LOG_LEVEL", default="info", help="`debug`, `info`, `warning`, `error` or `critical`."),
        Setting(
            name="TRACING",
            default="off",
            help="`otel` sends spans by OTLP, as the `OTEL_…` variables say; needs `close-enrich[otel]`.",
        ),
    )
}
"""Every setting, in the order in which they are explained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, checked.

    Attributes:
        close_api_key: None when unset.
        close_api_key_id: `api_…`, or None when it is not known.
        close_api_url: without a slash at its end.
        signature_keys: empty when unset.
        public_url: where Close delivers, with a path; None when unset.
        redis_url: None when unset.
        redis_wait_replicas: how many replicas must have what is accepted, and what is called; 0 for none.
        rules_file: need not exist.
        host: to listen on.
        port: to listen on; 0 for any.
        web_workers: how many processes share the port.
        admin_token: opens the dashboard; None when unset.
        dashboard: whether this machine needs it.
        worker_concurrency: calls in flight in one worker.
        max_calls_per_second: for all workers together; None for no ceiling of ours.
        max_in_flight: calls of all workers together; None for no ceiling of ours.
        budget_timezone: where days and months begin.
        reconcile_every_seconds: how often the event log is walked; None for never.
        metrics_token: opens `/metrics`; None when unset.
        alert_webhook_url: where alerts are posted; None when unset.
        alert_oldest_job_seconds: how long a live job may wait for a worker; None for any time.
        shutdown_grace_seconds: how long a stopping worker lets its calls finish.
        max_body_bytes: largest delivery accepted.
        signature_max_age_seconds: None when age is not checked.
        log_format: how lines are written.
        log_level: the least that is written.
        tracing: where spans go.
        no_color: lines on a terminal are written without colours.
        warnings: variables that look like a misspelt setting, one sentence each.
    """

    close_api_key: Secret | None
    close_api_key_id: str | None
    close_api_url: str
    signature_keys: tuple[SignatureKey, ...]
    public_url: str | None
    redis_url: Secret | None
    redis_wait_replicas: int
    rules_file: Path
    host: str
    port: int
    web_workers: int
    admin_token: Secret | None
    dashboard: DashboardDoor
    worker_concurrency: int
    max_calls_per_second: float | None
    max_in_flight: int | None
    budget_timezone: dt.tzinfo
    reconcile_every_seconds: float | None
    metrics_token: Secret | None
    alert_webhook_url: Secret | None
    alert_oldest_job_seconds: float | None
    shutdown_grace_seconds: float
    max_body_bytes: int
    signature_max_age_seconds: float | None
    log_format: LogFormat
    log_level: LogLevel
    tracing: TracingMode
    no_color: bool = False
    warnings: tuple[str, ...] = ()

    def secret_texts(self) -> tuple[str, ...]:
        """Every text that must not turn up in a log, for `service.log.configure_logging`."""
        texts = [] if self.close_api_key is None else [self.close_api_key.reveal()]
        for one in self.signature_keys:
            texts += [one.key.hex(), one.key.hex().upper()]
        if self.redis_url is not None:
            texts += redis_passwords(self.redis_url.reveal())
        if self.admin_token is not None:
            texts.append(self.admin_token.reveal())
        if self.metrics_token is not None:
            texts.append(self.metrics_token.reveal())
        if self.alert_webhook_url is not None:
            texts.append(self.alert_webhook_url.reveal())
        return tuple(texts)


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """Why the settings cannot be used: which variable, and what was expected."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


def load_settings(
    environ: Mapping[str, str] | None = None, *, needs: Collection[str], on_terminal: bool | None = None
) -> Settings | tuple[SettingProblem, ...]:
    """Read all settings, and the files they point to.

    Args:
        environ: the variables; those of this process when None.
        needs: names of settings the command cannot do without.
        on_terminal: whether logs go to a person's terminal; whether stderr is one when None.

    Raises:
        KeyError: `needs` names no setting.
    """
    environ = os.environ if environ is None else environ
    reader = _Reader(environ, needs=needs)
    terminal = sys.stderr.isatty() if on_terminal is None else on_terminal
    api_key = reader.optional("CLOSE_API_KEY", values.token)
    settings = Settings(
        close_api_key=api_key,
        close_api_key_id=reader.optional("CLOSE_API_KEY_ID", values.plain) or _id_in(api_key),
        close_api_url=reader.value("CLOSE_API_URL", values.http_url),
        signature_keys=reader.optional("CLOSE_SIGNATURE_KEYS", values.signature_keys) or (),
        public_url=reader.optional("PUBLIC_URL", values.public_url),
        redis_url=reader.optional("REDIS_URL", values.redis_url),
        redis_wait_replicas=reader.value("REDIS_WAIT_REPLICAS", values.whole_number(least=0, most=9)),
        rules_file=Path(reader.value("RULES_FILE", values.plain)),
        host=reader.value("HOST", values.plain),
        port=reader.value("PORT", values.whole_number(least=0, most=65_535)),
        web_workers=reader.value("WEB_WORKERS", values.whole_number(least=1, most=MOST_WEB_WORKERS)),
        admin_token=reader.optional("ADMIN_TOKEN", values.long_token),
        dashboard=reader.value("DASHBOARD", values.member(DashboardDoor)),
        worker_concurrency=reader.value("WORKER_CONCURRENCY", values.whole_number(least=1, most=10_000)),
        max_calls_per_second=reader.optional("MAX_CALLS_PER_SECOND", values.rate),
        max_in_flight=reader.optional("MAX_IN_FLIGHT", values.whole_number(least=1, most=100_000)),
        budget_timezone=reader.value("BUDGET_TIMEZONE", values.timezone),
        reconcile_every_seconds=reader.value("RECONCILE_EVERY", values.seconds_or_off),
        metrics_token=reader.optional("METRICS_TOKEN", values.long_token),
        alert_webhook_url=reader.optional("ALERT_WEBHOOK_URL", values.alert_url),
        alert_oldest_job_seconds=reader.value("ALERT_OLDEST_JOB", values.seconds_or_off),
        shutdown_grace_seconds=reader.value("SHUTDOWN_GRACE", values.seconds),
        max_body_bytes=reader.value("MAX_BODY_BYTES", values.size_bytes),
        signature_max_age_seconds=reader.value("SIGNATURE_MAX_AGE", values.seconds_or_off),
        log_format=reader.optional("LOG_FORMAT", values.member(LogFormat))
        or (LogFormat.CONSOLE if terminal else LogFormat.JSON),
        log_level=reader.value("LOG_LEVEL", values.member(LogLevel)),
        tracing=reader.value("TRACING", values.member(TracingMode)),
        # not ours: any text turns colours off in all programs that know it (https://no-color.org)
        no_color=bool(environ.get("NO_COLOR")),
        warnings=tuple(str(one) for one in reader.misspelt),
    )
    # a misspelt variable is most likely why another one is missing
    return (*reader.problems, *reader.misspelt) if reader.problems else settings


class _Reader:
    """Reads one setting after the other and collects what is wrong."""

    def __init__(self, environ: Mapping[str, str], *, needs: Collection[str]) -> None:
        self._environ = environ
        self._needs = {SETTINGS[name].name for name in needs}
        self.problems: list[SettingProblem] = []
        self.misspelt = tuple(_misspelt(environ))

    def optional(self, name: str, parse: Callable[[str], Value]) -> Value | None:
        """The setting's value; None when it is unset or wrong."""
        text = self._text(name)
        return None if text is None else self._parsed(name, text, parse, otherwise=None)

    def value(self, name: str, parse: Callable[[str], Value]) -> Value:
        """The setting's value, or its default's when it is unset or wrong."""
        text = self._text(name)
        default = parse(SETTINGS[name].default)
        return default if text is None else self._parsed(name, text, parse, otherwise=default)

    def _parsed(
        self, name: str, text: str, parse: Callable[[str], Value], *, otherwise: Otherwise
    ) -> Value | Otherwise:
        try:
            return parse(text)
        except ValueError as error:
            shown = _MAY_BE_SHOWN.fullmatch(text) and not SETTINGS[name].secret
            self._problem(name, f"{error}, not {text!r}" if shown else str(error))
            return otherwise

    def _text(self, name: str) -> str | None:
        """What the variable or its file says; None when it is unset or cannot be used."""
        direct = self._environ.get(name, "").strip()
        file = self._environ.get(name + _FILE, "").strip()
        if direct and file:
            self._problem(name, f"set here and in {name}{_FILE}; expected one of the two")
            return None
        if file:
            return self._contents(name + _FILE, file)
        if not direct and name in self._needs and not SETTINGS[name].default:
            self._missing(name)
        return direct or None

    def _missing(self, name: str) -> None:
        other = _STANDS_IN.get(name)
        if other is None:
            self._problem(name, f"not set. {SETTINGS[name].help}")
        elif not any(self._environ.get(form, "").strip() for form in (other, other + _FILE)):
            self._problem(name, f"not set, and neither is {other}. {SETTINGS[name].help}")

    def _contents(self, name: str, file: str) -> str | None:
        # no message repeats the path: somebody may have put the secret itself there
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            self._problem(name, f"the file it names cannot be read: {error.strerror}")
            return None
        except ValueError:
            self._problem(name, "the file it names is not UTF-8 text")
            return None
        if not text:
            self._problem(name, "the file it names is empty")
        return text or None

    def _problem(self, name: str, message: str) -> None:
        self.problems.append(SettingProblem(name, message))


def _id_in(api_key: Secret | None) -> str | None:
    match = _KEY_WITH_ID.fullmatch(api_key.reveal()) if api_key else None
    return match[1] if match else None


def _misspelt(environ: Mapping[str, str]) -> list[SettingProblem]:
    """Variables nobody reads that look meant for us: our prefix, or nearly the name of a setting."""
    names = [form for name in SETTINGS for form in (name, name + _FILE)]
    found = []
    for name in sorted(set(environ) - set(names)):
        near = difflib.get_close_matches(name, names, n=1, cutoff=_LIKE_ENOUGH)
        if near:
            found.append(SettingProblem(name, f"no such setting; did you mean {near[0]}?"))
        elif name.startswith("CLOSE_") and not _KUBERNETES_LINK.fullmatch(name):
            found.append(SettingProblem(name, "no such setting"))
    return found
