"""Settings come from the environment or from files, all problems at once, and secrets are never shown."""

import dataclasses
import datetime as dt
import os
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from service.log import LogFormat, LogLevel
from service.settings import SETTINGS, Secret, SettingProblem, Settings, load_settings
from service.settings_values import DashboardDoor, is_this_machine
from service.signature import SignatureKey
from service.tracing import TracingMode

KEY = "api_4kW2mQz9.0f1e2d3c4b5a"
SIGNATURE_KEY = "0123456789abcdef" * 4
PUBLIC = "expected an https:// URL (http:// only for this machine)"
LONG_TOKEN = "expected one word of at least 16 visible ASCII characters"
ZONE = "expected the name of a time zone, such as UTC or Europe/Paris"
SIZE = "expected a size of at least one byte, such as 2097152, 512KiB or 2MiB"


def load(environ=None, *, needs=(), on_terminal=False):
    return load_settings(environ or {}, needs=needs, on_terminal=on_terminal)


def loaded(environ=None, **options) -> Settings:
    settings = load(environ, **options)
    assert isinstance(settings, Settings), settings
    return settings


def problems(environ, **options) -> list[str]:
    found = load(environ, **options)
    assert isinstance(found, tuple)
    return [str(problem) for problem in found]


def test_an_empty_environment_gives_the_defaults():
    assert loaded() == Settings(
        close_api_key=None,
        close_api_key_id=None,
        close_api_url="https://api.close.com/api/v1",
        signature_keys=(),
        public_url=None,
        redis_url=None,
        redis_wait_replicas=0,
        rules_file=Path("rules.yaml"),
        host="127.0.0.1",
        port=8080,
        web_workers=1,
        admin_token=None,
        dashboard=DashboardDoor.TOKEN,
        worker_concurrency=100,
        max_calls_per_second=None,
        max_in_flight=None,
        budget_timezone=dt.UTC,
        reconcile_every_seconds=300.0,
        metrics_token=None,
        alert_webhook_url=None,
        alert_oldest_job_seconds=900.0,
        shutdown_grace_seconds=25.0,
        max_body_bytes=2 * 1024 * 1024,
        signature_max_age_seconds=None,
        log_format=LogFormat.JSON,
        log_level=LogLevel.INFO,
        tracing=TracingMode.OFF,
        warnings=(),
    )


def test_blank_variables_count_as_unset():
    assert loaded(dict.fromkeys(SETTINGS, " ") | {name + "_FILE": "" for name in SETTINGS}) == loaded()


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("CLOSE_API_KEY_ID", "api_other", "close_api_key_id", "api_other"),
        ("CLOSE_API_URL", "http://localhost:9000/api/v1/", "close_api_url", "http://localhost:9000/api/v1"),
        ("CLOSE_SIGNATURE_KEYS", SIGNATURE_KEY, "signature_keys", (SignatureKey.parse(SIGNATURE_KEY),)),
        (
            "CLOSE_SIGNATURE_KEYS",
            f" {SIGNATURE_KEY}, {'AB' * 16} ",
            "signature_keys",
            (SignatureKey.parse(SIGNATURE_KEY), SignatureKey.parse("ab" * 16)),
        ),
        ("PUBLIC_URL", "https://x.example", "public_url", "https://x.example/webhooks/close"),
        ("PUBLIC_URL", "https://x.example:8443/", "public_url", "https://x.example:8443/webhooks/close"),
        ("PUBLIC_URL", "https://x.example/in/", "public_url", "https://x.example/in/"),
        ("PUBLIC_URL", "http://localhost:8080", "public_url", "http://localhost:8080/webhooks/close"),
        ("RULES_FILE", "/etc/enrich/my rules.yaml", "rules_file", Path("/etc/enrich/my rules.yaml")),
        ("HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104 - what a container sets
        ("PORT", "0", "port", 0),
        ("DASHBOARD", "Open", "dashboard", DashboardDoor.OPEN),
        ("RECONCILE_EVERY", "90s", "reconcile_every_seconds", 90.0),
        ("RECONCILE_EVERY", "off", "reconcile_every_seconds", None),
        ("ALERT_OLDEST_JOB", "1h", "alert_oldest_job_seconds", 3600.0),
        ("ALERT_OLDEST_JOB", "off", "alert_oldest_job_seconds", None),
        ("PORT", "65535", "port", 65_535),
        ("WEB_WORKERS", "64", "web_workers", 64),
        ("WORKER_CONCURRENCY", "1", "worker_concurrency", 1),
        ("WORKER_CONCURRENCY", "10000", "worker_concurrency", 10_000),
        ("MAX_CALLS_PER_SECOND", "20", "max_calls_per_second", 20.0),
        ("MAX_CALLS_PER_SECOND", "0.000001", "max_calls_per_second", 0.000001),
        ("MAX_CALLS_PER_SECOND", "10000", "max_calls_per_second", 10_000.0),
        ("MAX_IN_FLIGHT", "1", "max_in_flight", 1),
        ("MAX_IN_FLIGHT", "100000", "max_in_flight", 100_000),
        ("BUDGET_TIMEZONE", "utc", "budget_timezone", dt.UTC),
        ("BUDGET_TIMEZONE", "Europe/Paris", "budget_timezone", ZoneInfo("Europe/Paris")),
        ("SHUTDOWN_GRACE", "0", "shutdown_grace_seconds", 0.0),
        ("SHUTDOWN_GRACE", "25", "shutdown_grace_seconds", 25.0),
        ("SHUTDOWN_GRACE", "2.5s", "shutdown_grace_seconds", 2.5),
        ("SHUTDOWN_GRACE", "2m", "shutdown_grace_seconds", 120.0),
        ("MAX_BODY_BYTES", "2097152", "max_body_bytes", 2_097_152),
        ("MAX_BODY_BYTES", "512KiB", "max_body_bytes", 524_288),
        ("MAX_BODY_BYTES", "2 mib", "max_body_bytes", 2_097_152),
        ("MAX_BODY_BYTES", "1GiB", "max_body_bytes", 1024**3),
        ("MAX_BODY_BYTES", "1b", "max_body_bytes", 1),
        ("SIGNATURE_MAX_AGE", "300", "signature_max_age_seconds", 300.0),
        ("SIGNATURE_MAX_AGE", "5m", "signature_max_age_seconds", 300.0),
        ("SIGNATURE_MAX_AGE", "OFF", "signature_max_age_seconds", None),
        ("LOG_FORMAT", "Console", "log_format", LogFormat.CONSOLE),
        ("LOG_LEVEL", "WARNING", "log_level", LogLevel.WARNING),
        ("TRACING", "otel", "tracing", TracingMode.OTEL),
    ],
)
def test_a_setting_is_read_from_its_variable_or_its_file(name, text, attribute, value, tmp_path):
    file = tmp_path / "setting"
    file.write_text(f"\n{text}\n")
    assert getattr(loaded({name: text}), attribute) == value
    assert getattr(loaded({name + "_FILE": str(file)}), attribute) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("CLOSE_API_KEY", "two words", "an API key is one word of visible ASCII characters"),
        ("CLOSE_API_KEY", "api_é", "an API key is one word of visible ASCII characters"),
        ("CLOSE_API_KEY_ID", "api\nother", "expected one line without control characters, not 'api\\nother'"),
        ("ALERT_WEBHOOK_URL", "http://hooks.example/T0/B0/secret", PUBLIC),
        ("ALERT_WEBHOOK_URL", "https://", PUBLIC),
        ("ALERT_WEBHOOK_URL", "https://me:pass@hooks.example/T0", "expected a URL without user or fragment"),
        ("ALERT_WEBHOOK_URL", "https://hooks.example/T0#x", "expected a URL without user or fragment"),
        ("ALERT_OLDEST_JOB", "0", "expected a duration above zero, or `off`, not '0'"),
        ("PUBLIC_URL", "http://enrich.example", f"{PUBLIC}, not 'http://enrich.example'"),
        ("PUBLIC_URL", "enrich.example", f"{PUBLIC}, not 'enrich.example'"),
        ("PUBLIC_URL", "https://", f"{PUBLIC}, not 'https://'"),
        ("PUBLIC_URL", "https://[", f"{PUBLIC}, not 'https://['"),
        ("PUBLIC_URL", "https://me:pass@x", "expected a URL without user, query or fragment"),
        ("PUBLIC_URL", "https://x/?k=1", "expected a URL without user, query or fragment"),
        ("CLOSE_API_URL", "ftp://close.com", "expected an http:// or https:// URL, not 'ftp://close.com'"),
        ("CLOSE_API_URL", "api.close.com", "expected an http:// or https:// URL, not 'api.close.com'"),
        ("CLOSE_API_URL", "https://", "expected an http:// or https:// URL, not 'https://'"),
        ("CLOSE_API_URL", "https://x:port/", "expected an http:// or https:// URL, not 'https://x:port/'"),
        ("CLOSE_API_URL", "https://a b/", "expected an http:// or https:// URL, not 'https://a b/'"),
        ("CLOSE_API_URL", "https://[::1", "expected an http:// or https:// URL, not 'https://[::1'"),
        ("CLOSE_API_URL", "https://me:pass@x/", "expected a URL without user, query or fragment"),
        ("CLOSE_API_URL", "https://x/?key=1", "expected a URL without user, query or fragment"),
        (
            "CLOSE_API_URL",
            "https://x/#part",
            "expected a URL without user, query or fragment, not 'https://x/#part'",
        ),
        ("CLOSE_SIGNATURE_KEYS", "abc", "a signature key is an even number of hex digits, at least 32"),
        (
            "CLOSE_SIGNATURE_KEYS",
            SIGNATURE_KEY + ",",
            "a signature key is an even number of hex digits, at least 32",
        ),
        (
            "REDIS_URL",
            "localhost:6379",
            "expected a redis://, rediss:// or unix:// URL, or redis+sentinel://",
        ),
        (
            "REDIS_URL",
            "redis://:pass@:x",
            "expected a redis://, rediss:// or unix:// URL, or redis+sentinel://",
        ),
        ("REDIS_URL", "redis:///0", "expected a host: redis://host:6379/0"),
        ("REDIS_URL", "unix://", "expected the path of a socket: unix:///run/redis.sock"),
        ("HOST", "a\x07b", "expected one line without control characters, not 'a\\x07b'"),
        ("ADMIN_TOKEN", "fifteen-letters", LONG_TOKEN),
        ("ADMIN_TOKEN", "sixteen letters!", LONG_TOKEN),
        ("DASHBOARD", "closed", "expected token or open, not 'closed'"),
        ("PORT", "65536", "expected a whole number from 0 to 65535, not '65536'"),
        ("PORT", "-1", "expected a whole number from 0 to 65535, not '-1'"),
        ("PORT", "http", "expected a whole number from 0 to 65535, not 'http'"),
        ("PORT", "\u0661", "expected a whole number from 0 to 65535, not '\u0661'"),
        ("WEB_WORKERS", "0", "expected a whole number from 1 to 64, not '0'"),
        ("WORKER_CONCURRENCY", "0", "expected a whole number from 1 to 10000, not '0'"),
        *(
            ("MAX_CALLS_PER_SECOND", text, f"expected a number above 0, at most 10000, not '{text}'")
            for text in ("0", "0.0", "-1", "10000.1", "99999", "1e3", "fast", "nan", "1.", "\u0661")
        ),
        ("MAX_IN_FLIGHT", "0", "expected a whole number from 1 to 100000, not '0'"),
        ("MAX_IN_FLIGHT", "100001", "expected a whole number from 1 to 100000, not '100001'"),
        ("MAX_IN_FLIGHT", "1.5", "expected a whole number from 1 to 100000, not '1.5'"),
        ("BUDGET_TIMEZONE", "Europe/Pariss", f"{ZONE} (did you mean Europe/Paris?), not 'Europe/Pariss'"),
        ("BUDGET_TIMEZONE", "+01:00", f"{ZONE}, not '+01:00'"),
        ("BUDGET_TIMEZONE", "../UTC", f"{ZONE} (did you mean UTC?), not '../UTC'"),
        ("BUDGET_TIMEZONE", "Europe", f"{ZONE} (did you mean Europe/Rome?), not 'Europe'"),
        ("SHUTDOWN_GRACE", "soon", "expected a duration such as 25, 25s, 5m, 1h or 3d, not 'soon'"),
        ("SHUTDOWN_GRACE", "-5", "expected a duration such as 25, 25s, 5m, 1h or 3d, not '-5'"),
        ("MAX_BODY_BYTES", "0", f"{SIZE}, not '0'"),
        ("MAX_BODY_BYTES", "2MB", f"{SIZE}, not '2MB'"),
        ("SIGNATURE_MAX_AGE", "0s", "expected a duration above zero, or `off`, not '0s'"),
        ("SIGNATURE_MAX_AGE", "old", "expected a duration such as 25, 25s, 5m, 1h or 3d, not 'old'"),
        ("LOG_FORMAT", "xml", "expected json or console, not 'xml'"),
        ("TRACING", "on", "expected off or otel, not 'on'"),
        ("LOG_LEVEL", "loud", "expected debug or info or warning or error or critical, not 'loud'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(name, text, message):
    assert problems({name: text}) == [f"{name}: {message}"]


@pytest.mark.parametrize("text", [KEY, SIGNATURE_KEY, "redis://:hunter2@x", "x?password=hunter2"])
def test_a_secret_in_the_wrong_variable_is_not_repeated(text):
    assert problems({"PORT": text}) == ["PORT: expected a whole number from 0 to 65535"]


def test_all_problems_are_named_at_once():
    environ = {"PORT": "x", "LOG_LEVEL": "y", "REDIS_URL": "z"}
    names = [problem.partition(":")[0] for problem in problems(environ, needs=["CLOSE_API_KEY"])]
    assert names == ["CLOSE_API_KEY", "REDIS_URL", "PORT", "LOG_LEVEL"]


def test_a_missing_needed_setting_is_a_problem_and_a_default_is_not_missing():
    needs = ["CLOSE_SIGNATURE_KEYS", "RULES_FILE"]
    assert load({}, needs=needs) == (
        SettingProblem(
            "CLOSE_SIGNATURE_KEYS",
            "not set, and neither is PUBLIC_URL. "
            "Signature keys of webhook subscriptions made by hand, hex, comma-separated.",
        ),
    )


def test_needed_settings_that_are_set_are_no_problem():
    settings = loaded(
        {"CLOSE_API_KEY": KEY, "REDIS_URL": "redis://localhost"}, needs=["CLOSE_API_KEY", "REDIS_URL"]
    )
    assert settings.close_api_key is not None
    assert settings.close_api_key.reveal() == KEY


def test_no_signature_key_is_needed_where_the_subscription_looks_after_itself(tmp_path):
    file = tmp_path / "url"
    file.write_text("https://enrich.example")
    for environ in ({"PUBLIC_URL": "https://enrich.example"}, {"PUBLIC_URL_FILE": str(file)}):
        assert loaded(environ, needs=["CLOSE_SIGNATURE_KEYS"]).signature_keys == ()
    (problem,) = problems({}, needs=["CLOSE_SIGNATURE_KEYS"])
    assert problem.startswith("CLOSE_SIGNATURE_KEYS: not set, and neither is PUBLIC_URL. ")


def test_needing_something_that_is_no_setting_is_a_mistake():
    with pytest.raises(KeyError, match="CLOSE_KEY"):
        load({}, needs=["CLOSE_KEY"])


def test_a_variable_and_its_file_together_are_a_problem():
    assert problems({"HOST": "::1", "HOST_FILE": "host"}) == [
        "HOST: set here and in HOST_FILE; expected one of the two"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file it names cannot be read: No such file or directory"),
        (b" \n", "the file it names is empty"),
        (b"\xff\xfe", "the file it names is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_problem_that_hides_its_path(content, message, tmp_path):
    file = tmp_path / "the-secret-itself"
    if content is not None:
        file.write_bytes(content)
    assert problems({"CLOSE_API_KEY_FILE": str(file)}, needs=["CLOSE_API_KEY"]) == [
        f"CLOSE_API_KEY_FILE: {message}"
    ]


def test_the_process_environment_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setattr(os, "environ", {"PORT": "81"})
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    settings = load_settings(needs=())
    assert isinstance(settings, Settings)
    assert (settings.port, settings.log_format) == (81, LogFormat.CONSOLE)


def test_logs_are_for_people_on_a_terminal_unless_told_otherwise():
    assert loaded(on_terminal=True).log_format is LogFormat.CONSOLE
    assert loaded({"LOG_FORMAT": "json"}, on_terminal=True).log_format is LogFormat.JSON


@pytest.mark.parametrize(
    ("key", "key_id"), [(KEY, "api_4kW2mQz9"), ("api_4kW2mQz9", None), ("some.key", None), ("api_.x", None)]
)
def test_the_key_id_is_read_off_the_key(key, key_id):
    assert loaded({"CLOSE_API_KEY": key}).close_api_key_id == key_id


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://user:hunter2@redis.example:6380/1", "rediss://***@redis.example:6380/1"),
        ("redis://:hunter2@[::1]:6379", "redis://***@[::1]:6379"),
        ("unix:///run/redis.sock?db=1&password=hunter2", "unix:///run/redis.sock"),
        ("unix://:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
    ],
)
def test_a_redis_url_is_shown_without_its_password(url, shown):
    settings = loaded({"REDIS_URL": url})
    assert settings.redis_url is not None
    assert str(settings.redis_url) == shown
    assert settings.redis_url.reveal() == url
    assert "hunter2" not in repr(settings)


def test_no_secret_shows_in_reprs_or_copies():
    environ = {
        "CLOSE_API_KEY": KEY,
        "CLOSE_SIGNATURE_KEYS": SIGNATURE_KEY,
        "REDIS_URL": "redis://:hunter2@x",
    }
    settings = loaded(environ)
    shown = f"{settings!r} {settings} {dataclasses.asdict(settings)}"
    assert not [text for text in (KEY, SIGNATURE_KEY, "hunter2") if text in shown]
    assert (repr(Secret("x")), str(Secret("x")), f"{Secret('x')}") == ("Secret(***)", "***", "***")


def test_the_texts_to_keep_out_of_logs_are_the_secrets_in_every_form():
    environ = {
        "CLOSE_API_KEY": KEY,
        "CLOSE_SIGNATURE_KEYS": SIGNATURE_KEY,
        "REDIS_URL": "redis://u:hun%74er2@x/0?password=other",
    }
    assert loaded(environ).secret_texts() == (
        KEY,
        SIGNATURE_KEY,
        SIGNATURE_KEY.upper(),
        "hun%74er2",
        "hunter2",
        "other",
    )
    assert loaded({"REDIS_URL": "redis://x"}).secret_texts() == ()
    assert loaded().secret_texts() == ()


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("CLOSE_SIGNATURE_KEY", "no such setting; did you mean CLOSE_SIGNATURE_KEYS?"),
        ("CLOSE_API_KEYFILE", "no such setting; did you mean CLOSE_API_KEY_FILE?"),
        ("WORKERS_CONCURRENCY", "no such setting; did you mean WORKER_CONCURRENCY?"),
        ("LOGLEVEL", "no such setting; did you mean LOG_LEVEL?"),
        ("CLOSE_SUBSCRIPTION", "no such setting"),
    ],
)
def test_a_variable_that_looks_misspelt_is_a_warning_without_its_value(name, warning):
    assert loaded({name: "hunter2"}).warnings == (f"{name}: {warning}",)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOSTNAME",
        "REDIS_PORT",
        "CLOSE_ENRICH_SERVICE_HOST",
        "CLOSE_ENRICH_SERVICE_PORT_HTTP",
        "CLOSE_ENRICH_PORT",
        "CLOSE_ENRICH_PORT_8080_TCP_ADDR",
    ],
)
def test_a_variable_that_is_somebody_elses_is_no_warning(name):
    assert loaded({name: "x"}).warnings == ()


def test_a_misspelt_variable_is_named_beside_the_problem_it_causes():
    assert problems({"CLOSE_API_KEYS": KEY}, needs=["CLOSE_API_KEY"]) == [
        "CLOSE_API_KEY: not set. API key of the organization to enrich.",
        "CLOSE_API_KEYS: no such setting; did you mean CLOSE_API_KEY?",
    ]


def test_the_table_names_each_setting_once_with_a_sentence():
    assert list(SETTINGS) == [setting.name for setting in SETTINGS.values()]
    assert all(setting.help.endswith(".") for setting in SETTINGS.values())


def test_the_address_of_alerts_is_a_secret_of_which_only_the_host_is_shown():
    url = "https://hooks.example:8443/services/T0/B0/hush-hush?k=hush"
    settings = loaded({"ALERT_WEBHOOK_URL": url})
    assert settings.alert_webhook_url.reveal() == url
    assert str(settings.alert_webhook_url) == "https://hooks.example:8443/***"
    assert "hush" not in repr(settings)
    assert url in settings.secret_texts()
    assert loaded({"ALERT_WEBHOOK_URL": "http://localhost:9/x"}).alert_webhook_url is not None


@pytest.mark.parametrize(
    ("name", "attribute"), [("ADMIN_TOKEN", "admin_token"), ("METRICS_TOKEN", "metrics_token")]
)
def test_a_token_of_our_own_is_masked_wherever_it_turns_up(name, attribute):
    token = "a-token-of-some-length"
    settings = loaded({name: token})
    assert getattr(settings, attribute).reveal() == token
    assert token in settings.secret_texts()
    assert token not in repr(settings)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("localhost", True), ("10.0.0.1", False), ("enrich.example", False)],
)
def test_only_loopback_is_reached_from_this_machine_alone(host, here):
    assert is_this_machine(host) is here
