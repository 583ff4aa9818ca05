"""What is under `deploy/` fits the service: settings, commands, times and versions."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib

import click
import pytest
import yaml
from deploy_box import AFTER_GRACE_SECONDS, DEPLOY, PROJECT, PYPROJECT, VERSION, documents, read, seconds
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.cli.main import main
from service.redis_address import parse_redis_address
from service.rules_file import load_rules
from service.settings import SETTINGS, Settings, load_settings
from workers.worker import PUT_BACK_SECONDS

COMPOSE = documents("compose.yaml")[0]
RENDER = documents("render.yaml")[0]
FLY = tomllib.loads(read("fly.toml"))
DOCKERFILE = read("Dockerfile")
UNITS = sorted((DEPLOY / "systemd").iterdir())
YAML_FILES = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])
NOT_OURS = {"FORWARDED_ALLOW_IPS", "PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def unit(path):
    """A systemd unit's service section; keys that come several times as lists."""

    class Several(dict):
        def __setitem__(self, key, value):
            if key in self and isinstance(value, list):
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(dict_type=Several, strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read_string(path.read_text(encoding="utf-8"))
    return {key: value.split("\n") for key, value in parser["Service"].items()}


def unit_environment(path):
    pairs = [pair for line in unit(path).get("Environment", []) for pair in line.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def environments():
    """Every environment that a file under deploy/ sets, by where."""
    yield (
        "Dockerfile",
        dict(re.findall(r"(?:^ENV | {4})([A-Z_]+)=(\S+)", DOCKERFILE.split("\nFROM ")[-1], re.MULTILINE)),
    )
    for name in ("web", "worker"):
        yield f"compose {name}", COMPOSE["services"][name]["environment"]
    yield "kubernetes", documents("kubernetes/base/settings.yaml")[0]["data"]
    yield "fly", FLY["env"]
    for one in [*RENDER["services"], *RENDER["envVarGroups"]]:
        pairs = one.get("envVars", [])
        yield f"render {one['name']}", {pair["key"]: pair.get("value") for pair in pairs if "key" in pair}
    for path in UNITS:
        yield path.name, unit_environment(path)


ENVIRONMENTS = dict(environments())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_yaml_file_can_be_read(path) -> None:
    assert list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_only_settings_that_exist_are_set(where) -> None:
    known = {form for name in SETTINGS for form in (name, f"{name}_FILE")}
    assert ENVIRONMENTS[where].keys() - NOT_OURS - known == set()


WORKER_UNIT = "close-enrich-worker@.service"
WORKER_POD = documents("kubernetes/base/worker.yaml")[0]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("stop_seconds", "environment"),
    [
        (COMPOSE["services"]["worker"]["stop_grace_period"], "compose worker"),
        (FLY["kill_timeout"], "fly"),
        (RENDER["services"][1]["maxShutdownDelaySeconds"], "render close-enrich"),
        (unit(DEPLOY / "systemd" / WORKER_UNIT)["TimeoutStopSec"][0], WORKER_UNIT),
        (WORKER_POD["terminationGracePeriodSeconds"], "kubernetes"),
    ],
)
def test_a_stopping_worker_is_left_the_time_it_needs(stop_seconds, environment) -> None:
    grace = seconds(ENVIRONMENTS[environment]["SHUTDOWN_GRACE"])
    assert AFTER_GRACE_SECONDS >= 2 * PUT_BACK_SECONDS
    assert seconds(stop_seconds) == grace + AFTER_GRACE_SECONDS


def test_a_worker_of_the_procfile_ends_within_the_half_minute_that_heroku_leaves() -> None:
    grace = re.search(r"SHUTDOWN_GRACE:-(\d+)s", PROCFILE)
    assert int(grace[1]) + PUT_BACK_SECONDS < 30


PROCFILE = (PROJECT / "Procfile").read_text(encoding="utf-8")
BELIEVED = {
    "fly": FLY["env"]["FORWARDED_ALLOW_IPS"],
    "render": ENVIRONMENTS["render close-enrich-web"]["FORWARDED_ALLOW_IPS"],
    "Procfile": re.search(r"\$\{FORWARDED_ALLOW_IPS:-(\S+)\}", PROCFILE)[1],
}


async def seen_behind(believed, *, peer, headers):
    """What pages see of a request: its scheme, and the address that it comes from."""
    seen = {}

    async def app(scope, _receive, _send):
        seen.update(scope)

    scope = {"type": "http", "scheme": "http", "client": (peer, 4711), "headers": headers}
    await ProxyHeadersMiddleware(app, trusted_hosts=believed)(scope, None, None)
    return seen["scheme"], seen["client"][0]


@pytest.mark.parametrize("peer", ["10.1.2.3", "172.16.4.5", "100.64.0.9", "fdaa::3"])
@pytest.mark.parametrize("where", BELIEVED)
async def test_a_platform_s_proxy_is_believed_and_not_what_a_visitor_makes_up(where, peer) -> None:
    headers = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"192.0.2.66, 203.0.113.5, 10.9.9.9")]
    assert await seen_behind(BELIEVED[where], peer=peer, headers=headers) == ("https", "203.0.113.5")


@pytest.mark.parametrize("where", BELIEVED)
async def test_whoever_else_reaches_the_port_is_believed_nothing(where) -> None:
    headers = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"192.0.2.66")]
    assert await seen_behind(BELIEVED[where], peer="203.0.113.5", headers=headers) == ("http", "203.0.113.5")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("rediss://:pw@ec2.example:6380", "rediss://:pw@ec2.example:6380?ssl_cert_reqs=none"),
        ("rediss://h:1/0?db=1", "rediss://h:1/0?db=1&ssl_cert_reqs=none"),
        ("rediss://h:1?ssl_ca_certs=/ca.pem", "rediss://h:1?ssl_ca_certs=/ca.pem"),
        ("rediss://h:1?db=1&ssl_cert_reqs=required", "rediss://h:1?db=1&ssl_cert_reqs=required"),
        ("redis://:pw@h:1", "redis://:pw@h:1"),
        ("", ""),
    ],
)
def test_the_certificate_of_heroku_s_redis_is_not_looked_at_and_others_are(given, used) -> None:
    done = subprocess.run(
        [shutil.which("bash"), "-euc", '. "$1"; printf %s "${REDIS_URL:-}"', "-", DEPLOY / "heroku.profile"],
        env={"REDIS_URL": given} if given else {},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == used
    assert not used or parse_redis_address(used).url == used


def test_only_commands_that_exist_are_started() -> None:
    started = re.findall(r"service\.cli\.main (\S+)", PROCFILE)
    started += [
        command
        for path in UNITS
        for command in re.findall(r"/close-enrich (\S+)", unit(path)["ExecStart"][0])
    ]
    started += [COMPOSE["services"][name]["command"][0] for name in ("web", "worker")]
    started += FLY["processes"].values()
    started += [one["dockerCommand"] for one in RENDER["services"] if "dockerCommand" in one]
    assert set(started) == {"web", "worker"} <= main.commands.keys()
    check = json.loads(re.search(r"HEALTHCHECK .* CMD (\[.*\])", DOCKERFILE)[1])
    assert check == ["close-enrich", "health"]
    assert isinstance(main.commands["health"], click.Command)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("compose web", "ADMIN_TOKEN_FILE"),
        ("kubernetes", "ADMIN_TOKEN_FILE"),
        ("render close-enrich-web", "ADMIN_TOKEN"),
    ],
)
def test_the_dashboard_can_be_opened(where, name) -> None:
    assert name in ENVIRONMENTS[where]


@pytest.mark.parametrize("section", ["Compose", "Kubernetes", "systemd", "Fly.io", "Render", "Heroku"])
def test_the_readme_says_how_the_dashboard_is_opened_there(section) -> None:
    text = read("README.md").split(f"\n## {section}\n")[1].split("\n## ")[0]
    assert re.search("admin_token", text, re.IGNORECASE)


def test_the_steps_for_systemd_leave_what_its_units_name_and_let_nobody_else_read_secrets(tmp_path) -> None:
    steps = read("README.md").split("\n## systemd\n")[1].split("\n## ")[0]
    named = {
        line.split("=", 1)[1]
        for path in UNITS
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("Documentation=")
    }
    assert named == {"file:/opt/close-enrich/README.md"}
    assert re.search(r"\bcp README\.md /opt/close-enrich/$", steps, re.MULTILINE)
    made = re.search(r"^    (printf .*?)\n    \S", steps + "\n", re.MULTILINE | re.DOTALL)[1]
    made = made.replace("/etc/close-enrich/environment", str(tmp_path / "environment"))
    subprocess.run([shutil.which("bash"), "-ec", f"umask 022; {made}"], check=True)
    assert (tmp_path / "environment").stat().st_mode & 0o777 == 0o600
    environment = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert isinstance(load_settings(environment, needs=(), on_terminal=False), Settings)
    assert environment.keys() == {"PUBLIC_URL", "ADMIN_TOKEN"}


def test_the_version_is_the_packages_everywhere() -> None:
    assert set(re.findall(r"^ARG VERSION=(\S+)", DOCKERFILE, re.MULTILINE)) == {VERSION}
    images = [COMPOSE["services"][name]["image"] for name in ("web", "worker")]
    for name in ("web", "worker"):
        pod = documents(f"kubernetes/base/{name}.yaml")[0]["spec"]["template"]["spec"]
        images.append(pod["containers"][0]["image"])
    assert set(images) == {f"close-enrich:{VERSION}"}
    assert documents("kubernetes/example/kustomization.yaml")[0]["images"][0]["newTag"] == VERSION


def test_the_image_s_labels_say_what_it_is_and_an_unknown_revision_is_left_empty() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', DOCKERFILE))
    assert labels.keys() == {"title", "description", "licenses", "version", "revision"}
    assert labels["licenses"] == PYPROJECT["project"]["license"]
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE.split("\nFROM ")[-1], re.MULTILINE))
    assert arguments == {"VERSION": VERSION, "REVISION": ""}


def test_the_lock_is_made_for_the_python_of_the_image() -> None:
    locked = re.search(r"^python=(\S+)", read("lock.sh"), re.MULTILINE)[1]
    assert set(re.findall(r"^FROM python:(\S+)-slim", DOCKERFILE, re.MULTILINE)) == {locked}


CONTAINER_TOOLS = ("buildah", "podman", "runc", "conmon", "debootstrap", "ip", "curl", "redis-server")


@pytest.mark.parametrize("missing", [None, *CONTAINER_TOOLS])
def test_the_image_s_test_says_beforehand_which_of_its_tools_is_missing(missing, tmp_path) -> None:
    for name in CONTAINER_TOOLS:
        if name != missing:
            (tmp_path / name).symlink_to("/bin/true")
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "id").chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash"), DEPLOY / "container_test.sh", "--check"],
        env={"PATH": str(tmp_path), "CONTAINER_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "" if missing is None else f"needs root, and: {missing} (see the head of this script)\n"
    assert (done.returncode, done.stderr) == (2 if missing else 0, said)
    assert not (tmp_path / "store").exists()


def test_the_image_gets_what_it_copies_and_nothing_else() -> None:
    let_in = {
        line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {path for line in copied for path in line.split()} == let_in


def test_every_data_file_of_the_package_is_installed() -> None:
    installed = set()
    for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        installed |= {path for pattern in patterns for path in (PROJECT / package).glob(pattern)}
    there = {
        path
        for package in ("service", "workers")
        for path in (PROJECT / package).rglob("*")
        if path.is_file()
    }
    assert {path for path in there if path.suffix not in {".py", ".pyc"}} <= installed


def test_the_rules_that_come_along_are_right() -> None:
    for path in ("kubernetes/example/rules.yaml", "rules.example.yaml"):
        result = load_rules((DEPLOY / path).read_bytes(), source=path)
        assert result.rulebook is not None, [problem.render() for problem in result.problems]
