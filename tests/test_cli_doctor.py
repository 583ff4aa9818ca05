"""`close-enrich doctor` on a running service, on one that is broken all over, and on what answers wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error

import pytest
from click.testing import CliRunner
from stack import running
from stack_parts import PROJECT

from service import keys
from service.cli.doctor import summary, together
from service.cli.doctor_bounded import bounded
from service.cli.doctor_delivery import deliver, try_address
from service.cli.main import main
from service.doctor import Finding, State

RULES = """
version: 1
defaults: {settle: 0s}
rules:
  - {name: Pitch, object: lead, field: Pitch}
  - {name: Seniority, object: contact, field: Seniority}
"""
PASSWORD = "hunter2hunter2"
KEY = "5ec4e7" * 11
OK, NOT_CHECKED = State.OK, State.NOT_CHECKED


def doctor(environ, *arguments, code, **settings):
    """Run the command to its end."""
    inherited = {"PATH": os.environ["PATH"], "COLUMNS": "120", "LOG_LEVEL": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli.main", "doctor", *arguments],
        env={**inherited, **environ, **settings},
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def found(environ, *, code, **settings):
    rows = json.loads(doctor(environ, "--json", code=code, **settings).stdout)
    assert all(list(row) == ["check", "state", "finding", "fix"] for row in rows)
    return {row["check"]: row for row in rows}


@pytest.mark.slow
def test_a_healthy_service_is_told_to_be_so_and_each_trouble_is_named(tmp_path):
    with running(tmp_path, rules=RULES) as stack:
        environ = {**stack.processes.environ, "LOG_LEVEL": "error", "PUBLIC_URL": stack.url}
        stack.ended(stack.add_lead()["id"], "Pitch")
        before = stack.counts()
        seen = found(environ, code=0)
        assert {check for check, row in seen.items() if row["state"] not in {"ok", "not checked"}} == set()
        assert {check for check, row in seen.items() if row["state"] == "not checked"} <= {"clock"}
        # what was sent to the receiver has left nothing behind
        assert stack.counts() == before
        assert (stack.redis.llen(keys.BACKLOG), stack.redis.xlen(keys.QUARANTINE)) == (0, 0)
        for_people = doctor(environ, code=0)
        assert "✓  public address" in for_people.stdout
        plain = doctor(environ, code=0, PYTHONIOENCODING="ascii")
        assert "ok  public address" in plain.stdout

        # a key of ours that web does not know, and none that it does
        stranger = found(environ, code=1, CLOSE_SIGNATURE_KEYS=KEY)
        assert "refuses a signature" in stranger["public address"]["finding"]
        elsewhere = found(environ, code=1, PUBLIC_URL=f"{stack.url}/other")
        assert "404" in elsewhere["public address"]["finding"]
        assert elsewhere["subscription"]["finding"] == "none delivers to PUBLIC_URL"

        (stack_rules := tmp_path / "rules.yaml").write_text(RULES.replace("lead", "leed"))
        stack.wait(lambda: stack.redis.hlen(keys.RULES) == 2)
        stack.in_sandbox(lambda world: next(iter(world.subscriptions.values())).pause("api"))
        stack.processes.kill("worker")
        stack.redis.delete("rq:workers")
        stack.redis.hset(keys.HALT, mapping={"reason": "402", "kind": "credits", "since_ms": 1})
        broken = found(environ, code=1)
        problems = {check for check, row in broken.items() if row["state"] == "problem"}
        assert {"rules file", "subscription", "workers", "halt"} <= problems
        assert all(row["fix"] for row in broken.values() if row["state"] in {"problem", "warning"})
        stack_rules.unlink()
        assert "No such file" in found(environ, code=1)["rules file"]["finding"]


@pytest.mark.slow
def test_nothing_there_is_told_in_one_go_without_a_secret(tmp_path):
    environ = {
        "CLOSE_API_KEY": f"api_{PASSWORD}.{PASSWORD}",
        "CLOSE_API_URL": "http://127.0.0.1:9",
        "CLOSE_SIGNATURE_KEYS": KEY,
        "REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:9",
        "PUBLIC_URL": "http://127.0.0.1:9",
        "RULES_FILE": str(tmp_path / "none.yaml"),
        "CLOSE_API_KEI": "x",
    }
    done = doctor(environ, code=1)
    for words in ("Close could not be asked", "does not answer at REDIS_URL", "cannot be reached from here"):
        assert words in done.stdout
    assert "did you mean CLOSE_API_KEY" in done.stdout
    assert "rules in force, workers, halt, waiting work" in done.stdout
    assert [secret for secret in (PASSWORD, KEY) if secret in done.stdout + done.stderr] == []

    nothing = found({}, code=1, RULES_FILE=environ["RULES_FILE"])
    problems = {check for check, row in nothing.items() if row["state"] == "problem"}
    assert problems == {"API key", "Redis", "rules file", "signature key"}


def test_wrong_settings_end_it_with_2():
    done = CliRunner().invoke(main, ["doctor"], env={"PORT": "x"})
    assert (done.exit_code, "PORT" in done.stderr) == (2, True)


def test_help_shows_an_example():
    done = CliRunner().invoke(main, ["doctor", "--help"])
    assert (done.exit_code, "Example:" in done.output, "--json" in done.output) == (0, True, True)


# how it is told


def finding(check, state, words="so"):
    return Finding(check=check, state=state, finding=words)


def test_checks_that_were_not_possible_for_one_reason_share_a_line():
    rows = [finding("a", NOT_CHECKED, "away"), finding("b", OK), finding("c", NOT_CHECKED, "away")]
    alone = finding("d", NOT_CHECKED, "late")
    assert together([*rows, alone]) == [rows[1], alone, finding("not checked", NOT_CHECKED, "a, c: away")]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["ok", "ok"], "All is well."),
        (["problem", "problem", "warning", "ok"], "2 problems, 1 warning."),
        (["not checked"], "1 not checked."),
    ],
)
def test_the_end_counts_what_is_not_in_order(states, words):
    assert summary([finding("a", State(state)) for state in states]) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        (ValueError("secret"), "internal error: ValueError"),
    ],
)
async def test_a_look_that_fails_is_not_checked_and_disturbs_no_other(error, words):
    async def look():
        raise error

    one, other = await bounded(look, "a", "b")
    assert (one.check, other.check) == ("a", "b")
    assert (one.state, words in one.finding, "secret" in one.finding) == (NOT_CHECKED, True, False)


async def test_a_look_that_takes_too_long_is_not_checked(monkeypatch):
    monkeypatch.setattr("service.cli.doctor_bounded.LOOK_SECONDS", 0.01)

    async def look():
        await asyncio.Event().wait()

    (one,) = await bounded(look, "a")
    assert (one.state, one.finding[:17]) == (NOT_CHECKED, "took longer than ")


# what stands at the public address


class Page(http.server.BaseHTTPRequestHandler):
    """What answers, as its server says."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@contextlib.contextmanager
def answering(status, body=b"", **headers):
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        server.answer = (status, headers, body)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/webhooks/close"
        finally:
            server.shutdown()
            thread.join()


def test_redirects_are_told_and_not_followed():
    with answering(200, b"never") as target, answering(302, location=target) as url:
        assert deliver(url, signature_key=KEY[:64]).status == 302


async def test_a_page_of_somebody_elses_is_no_receiver():
    with answering(200, b"<html>hello</html>") as url:
        (one,) = await try_address(url, ())
    assert (one.state, "not as close-enrich web does" in one.finding) == (State.PROBLEM, True)


@pytest.fixture
def silent():
    """Something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_one_that_never_answers_is_given_up(silent, monkeypatch):
    monkeypatch.setattr("service.cli.doctor_delivery.POST_SECONDS", 0.05)
    answer = deliver(f"http://127.0.0.1:{silent.getsockname()[1]}/", signature_key=KEY[:64])
    assert (answer.status, answer.failure) == (None, "no answer within 0 s")


@pytest.mark.parametrize(
    ("said", "failure"), [(b"", "RemoteDisconnected"), (b"nonsense\r\n\r\n", "BadStatusLine")]
)
def test_one_that_does_not_speak_http_is_named(silent, said, failure):
    def answer():
        connection, _ = silent.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(said)

    thread = threading.Thread(target=answer)
    thread.start()
    got = deliver(f"http://127.0.0.1:{silent.getsockname()[1]}/", signature_key=KEY[:64])
    thread.join()
    assert (got.status, got.untrusted, failure in got.failure or "reset" in got.failure) == (
        None,
        False,
        True,
    )


def test_a_certificate_that_is_not_trusted_is_told_apart(monkeypatch):
    def refuse(*_args, **_options):
        error = ssl.SSLCertVerificationError()
        error.verify_message = "certificate has expired"
        raise urllib.error.URLError(error)

    monkeypatch.setattr("service.cli.doctor_delivery.post", refuse)
    answer = deliver("https://enrich.example.com/", signature_key=KEY[:64])
    assert (answer.untrusted, answer.failure) == (True, "certificate has expired")
