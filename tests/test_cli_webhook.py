"""`close-enrich webhook …`: what each says and does, how it exits, and that it never shows a key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import redis
from click.testing import CliRunner
from sandbox_box import make_world
from stack_parts import PROJECT, Background

from service import keys
from service.cli.main import main
from service.sandbox.options import DEMO_API_KEY
from service.sandbox.server import serve_sandbox
from service.settings import SETTINGS

pytestmark = pytest.mark.slow

# nobody listens there
PUBLIC_URL = "http://127.0.0.1:9"
HERE = f"{PUBLIC_URL}/webhooks/close"
RULES = """
version: 1
rules:
  - {name: Pitch, object: lead, field: Pitch}
  - {name: Seniority, object: contact, field: Seniority}
"""
DISABLED = "{version: 1, rules: [{name: Pitch, object: lead, field: Pitch, enabled: false}]}"


class Box:
    """A sandbox, an empty Redis, and commands that speak to both."""

    def __init__(self, world, background, environ, redis_url):
        self.world = world
        self.background = background
        self.environ = environ
        self.redis = redis.Redis.from_url(redis_url)
        self.said = ""

    def run(self, *arguments, code=0, **settings):
        environ = {**self.environ, **settings}
        done = CliRunner().invoke(main, ["webhook", *arguments], env=environ, prog_name="close-enrich")
        self.said += done.stdout + done.stderr
        assert done.exit_code == code, done.stdout + done.stderr
        assert isinstance(done.exception, SystemExit | None)
        return done

    def run_as_process(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "service.cli.main", "webhook", *arguments],
            env={"PATH": os.environ["PATH"], **self.environ},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments, **options):
        return json.loads(self.run(*arguments, "--json", **options).stdout)

    def only(self):
        (one,) = self.world.subscriptions.values()
        return one

    def delivered(self, of_id):
        self.background.call(lambda: self.world.subscriptions[of_id].counters.update({"first_success": 1}))


@pytest.fixture
def without_settings(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.fixture
def box(redis_url, tmp_path, without_settings, untouched_logging):  # noqa: ARG001  what they do is wanted
    world = make_world()
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    with Background() as background, background.entered(serve_sandbox(world)) as url:
        environ = {
            "NO_COLOR": "1",
            "COLUMNS": "160",
            "CLOSE_API_URL": f"{url}/api/v1",
            "CLOSE_API_KEY": DEMO_API_KEY,
            "REDIS_URL": redis_url,
            "RULES_FILE": str(rules),
            "PUBLIC_URL": PUBLIC_URL,
        }
        made = Box(world, background, environ, redis_url)
        yield made
        learned = [key.decode() for key in made.redis.hvals(keys.SIGNATURE_KEYS)]
        at_close = [one.signature_key for one in world.subscriptions.values()]
        made.redis.close()
        assert [key for key in (*learned, *at_close, DEMO_API_KEY) if key in made.said] == []


def test_ensure_subscribes_once_and_list_shows_it_without_its_key(box):
    assert "no webhook subscription" in box.run("list").stdout
    made = box.run_as_process("ensure")
    of_id = box.only().id
    assert f"Subscribed: {of_id} delivers contact.created, lead.created." in made.stdout
    assert box.only().url == HERE

    assert "nothing had to be changed" in box.run("ensure").stdout
    described = {
        "id": of_id,
        "status": "active",
        "events": ["contact.created", "lead.created"],
        "url": HERE,
        "here": True,
        "failing": False,
        "key_known": True,
    }
    assert box.json("ensure") == {
        "changed": False,
        "subscription": described,
        "problem": None,
        "filtered": [],
    }
    assert box.json("list") == {"subscriptions": [described]}
    table = box.run_as_process("list").stdout
    first, to, events = table.splitlines()[:3]
    assert first == f"{of_id} *  active, key known"
    assert to == f"  to {HERE}"
    assert events == "  contact.created, lead.created"
    elsewhere = box.run("list", PUBLIC_URL="").stdout
    assert " *" not in elsewhere


def test_pause_resume_and_delete(box):
    box.run("ensure")
    of_id = box.only().id
    assert "is paused until" in box.run("pause").stdout
    assert box.only().status == "paused"
    left = box.run("ensure")
    assert "paused by a person" in left.stderr
    assert box.json("resume", of_id, PUBLIC_URL="") == {"id": of_id, "status": "active"}
    assert box.redis.exists(keys.RECONCILE_NOW)

    assert "--yes" in box.run("delete", of_id, code=2).stderr
    assert "is deleted" in box.run("delete", of_id, "--yes").stdout
    again = box.run("delete", of_id, "--yes", code=1)
    assert (again.stdout, again.stderr) == ("", f"Close has no {of_id}; a key kept for it is forgotten\n")
    assert json.loads(box.run("delete", of_id, "--yes", "--json", code=1).stdout) == {"deleted": None}
    box.run("ensure")
    other = box.only().id
    assert box.json("delete", other, "--yes") == {"deleted": other}
    assert box.world.subscriptions == {}


def test_rotate_has_two_deliver_until_the_new_one_has(box):
    assert "webhook ensure" in box.run("rotate", code=1).stderr
    assert "no rotation is under way" in box.run("rotate", "--finish", code=1).stderr
    box.run("ensure")
    old = box.only().id
    begun = box.run("rotate", CLOSE_SIGNATURE_KEYS="ab" * 32)
    assert "both keys are accepted" in begun.stdout
    assert "CLOSE_SIGNATURE_KEYS stays in force" in begun.stderr
    (new,) = set(box.world.subscriptions) - {old}
    assert "has not delivered yet" in box.run("rotate", "--finish", code=1).stderr

    box.delivered(new)
    assert box.json("rotate", "--finish") == {"new": new, "old": [], "deleted": [old]}
    assert set(box.world.subscriptions) == {new}


def test_what_ensure_mends_is_named(box):
    box.run("ensure")
    box.background.call(lambda: box.only().pause("backlog"))
    mended = box.run("ensure")
    assert "it is paused" in mended.stdout
    assert "was paused and is active again" in mended.stderr


def test_a_filter_that_holds_back_what_a_rule_needs_is_named_and_stays(box):
    box.run("ensure")
    one = box.only()
    some = {"type": "field_accessor", "field": "user_id", "filter": {"type": "non_null"}}
    narrow = tuple(replace(event, extra_filter=some) for event in one.events)
    box.background.call(lambda: setattr(one, "events", narrow))
    done = box.run("ensure")
    assert "holds back some of contact.created, lead.created" in done.stderr
    assert one.events == narrow


def test_what_cannot_be_done_is_said_and_exits_1(box, tmp_path):
    assert "no subscription delivers" in box.run("pause", code=1).stderr
    assert "404" in box.run("pause", "whsub_none", code=1).stderr
    assert "could not be asked" in box.run("list", code=1, CLOSE_API_URL="http://127.0.0.1:9").stderr
    assert "could not be asked" in box.run("pause", code=1, CLOSE_API_URL="http://127.0.0.1:9").stderr
    away = box.run("ensure", code=1, REDIS_URL=f"unix://{tmp_path}/none.sock")
    assert "Redis does not answer" in away.stderr
    disabled = tmp_path / "disabled.yaml"
    disabled.write_text(DISABLED)
    assert "no rule is enabled" in box.run("ensure", code=1, RULES_FILE=str(disabled)).stderr


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["list"], ["CLOSE_API_KEY", "REDIS_URL"]),
        (["ensure"], ["CLOSE_API_KEY", "REDIS_URL", "PUBLIC_URL"]),
        (["pause"], ["CLOSE_API_KEY", "REDIS_URL", "PUBLIC_URL"]),
        (["resume", "whsub_a"], ["CLOSE_API_KEY", "REDIS_URL"]),
        (["delete", "whsub_a"], ["CLOSE_API_KEY", "REDIS_URL"]),
        (["rotate"], ["CLOSE_API_KEY", "REDIS_URL", "PUBLIC_URL"]),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("without_settings")
def test_every_missing_setting_is_named_at_once(command, named):
    done = CliRunner().invoke(main, ["webhook", *command])

    assert done.exit_code == 2
    lines = [line.strip().partition(":")[0] for line in done.output.splitlines() if line.startswith("  ")]
    assert sorted(lines) == sorted(named)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["list", "ensure", "pause", "resume", "delete", "rotate", "PUBLIC_URL"]),
        (["list"], ["--json"]),
        (["ensure"], ["--json"]),
        (["pause"], ["[ID]", "--json"]),
        (["resume"], ["[ID]", "--json"]),
        (["delete"], ["ID", "--yes", "--json"]),
        (["rotate"], ["--finish", "--json"]),
    ],
)
def test_help_names_what_a_command_takes(command, words):
    done = CliRunner().invoke(main, ["webhook", *command, "--help"])

    assert done.exit_code == 0
    assert [word for word in words if word not in done.stdout] == []
