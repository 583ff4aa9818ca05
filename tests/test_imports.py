"""What each command loads before it does its work: a start takes as long as its imports.

The packages looked for are those that take long, and so are the parts of ours. A command that comes to load
one more of them starts later for everybody: it is imported where it is needed, or has its place in the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

HEAVY = frozenset(
    {
        "asyncio", "cel.cel", "httpx", "jinja2", "logging", "msgspec", "prometheus_client", "prompt_toolkit",
        "pydantic", "questionary", "redis", "rich", "rq", "starlette", "structlog", "typer", "uvicorn",
        "uvloop", "yaml",
        "service.dashboard.contents", "service.sandbox.server", "workers.runtime",
    }
)  # fmt: skip

RULES = frozenset({"cel.cel", "logging", "msgspec", "pydantic", "yaml"})
"""Reading a rules file: the engine that judges conditions logs through `logging`."""

LOGS = frozenset({"asyncio", "logging", "rich", "structlog"})
"""structlog loads rich where it is installed, for tracebacks that we do not print."""

REDIS = frozenset({"asyncio", "logging", "msgspec", "redis"})
LEDGER = LOGS | REDIS | {"rq"}
WEB = LEDGER | RULES | {"httpx", "prometheus_client", "starlette", "uvicorn"}

NO_SERVER = "import uvicorn; uvicorn.Server.run = lambda *_: None"
NO_LOOP = "import uvloop; uvloop.run = lambda work: work.close()"

# imports of a package that is already loaded cost nothing, so it is asked at the very end
RUN = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sorted(set(sys.argv[1].split()) & set(sys.modules))))
{before}
from service.cli.main import main
main(sys.argv[2:])
"""


def run(*command, before="", **settings):
    """Run a command up to where it would serve or talk to Redis, and return what it has loaded of `HEAVY`."""
    environ = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(before=before), " ".join(HEAVY), *command],
        env={**environ, "RULES_FILE": "deploy/rules.example.yaml", **settings},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    *_, last = done.stdout.splitlines()
    assert last.startswith("loaded:"), done.stdout + done.stderr
    return set(last.split()[1:])


# nothing listens at port 1, so commands that need Redis end there
NO_REDIS = {"REDIS_URL": "redis://127.0.0.1:1"}
RECEIVER = {**NO_REDIS, "CLOSE_SIGNATURE_KEYS": "ab" * 32}


@pytest.mark.parametrize(
    ("command", "settings", "before", "loads"),
    [
        pytest.param(["--help"], {}, "", set(), id="help"),
        pytest.param(["health", "web"], {"PORT": "1"}, "", {"msgspec"}, id="health web"),
        pytest.param(["rules", "check"], {}, "", RULES, id="rules check"),
        pytest.param(["show", "lead_x"], NO_REDIS, "", LEDGER, id="show"),
        pytest.param(["status"], NO_REDIS, "", LEDGER | RULES, id="status"),
        pytest.param(["web"], RECEIVER, NO_SERVER, WEB, id="web"),
        pytest.param(
            ["web"],
            {**RECEIVER, "ADMIN_TOKEN": "t" * 16},
            NO_SERVER,
            WEB | {"jinja2", "service.dashboard.contents"},
            id="web with a dashboard",
        ),
        pytest.param(
            ["worker"],
            {**NO_REDIS, "CLOSE_API_KEY": "api_x.y"},
            NO_LOOP,
            LEDGER | RULES | {"httpx", "uvloop", "workers.runtime"},
            id="worker",
        ),
    ],
)
def test_a_command_loads_what_it_needs_and_nothing_else_that_takes_long(command, settings, before, loads):
    loaded = run(*command, before=before, **settings)
    assert sorted(loaded - loads) == [], "these are new: import them where they are needed"
    assert sorted(loads - loaded) == [], "these are no longer loaded: the table says they are"


def test_the_engine_is_the_one_that_its_package_gives():
    code = "import cel; from service.cel_engine import cel as ours; print(ours.compile is cel.compile)"
    other = "from service.cel_engine import cel as ours; import cel; print(ours.compile is cel.compile)"
    for one in (code, other):
        done = subprocess.run(
            [sys.executable, "-c", one], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout == "True\n"
