"""`trigger`, `replay` and `listen`: events made up, sent again, and seen."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from receiver_box import KEY, ORGANIZATION, Receiver, captured_log, sample, sample_event, save_schemas, signed
from reserved_port import reserved_port
from sandbox_box import chance
from stack_parts import PROJECT, Processes
from waiting import wait_until

from service import keys
from service.cli.post import post
from service.event import Event, parse_event
from service.samples import SAMPLE_TYPES
from service.samples import sample_event as made_up
from service.sandbox.delivery import delivery_body

OTHER_KEY = "ab" * 32


@pytest.fixture
def receiver(redis_url):
    save_schemas(redis_url)
    # it runs in this process, where its log would stand among what the command prints
    with captured_log(), Receiver(redis_url) as receiver:
        yield receiver


@pytest.fixture
def send(cli, receiver):
    """Run `trigger` or `replay` against the receiver."""

    def run(*arguments, **settings):
        settings = {"CLOSE_SIGNATURE_KEYS": KEY, "PORT": str(receiver.port), **settings}
        return cli(*arguments, **settings)

    return run


@pytest.mark.parametrize("event_type", SAMPLE_TYPES)
def test_a_made_up_event_reads_like_one_of_close(event_type):
    raw = made_up(
        event_type,
        organization_id=ORGANIZATION,
        random=chance(1),
        now=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
    )
    captured = json.loads(sample("02"))["event"]
    assert raw.keys() == captured.keys()
    event = parse_event(delivery_body("whsub_1", raw))
    assert isinstance(event, Event)
    assert f"{event.object_type}.{event.action}" == event_type
    assert event.data()["id"] == event.object_id
    assert bool(event.changed_fields) == (event.action == "updated")


def test_a_triggered_event_is_planned_as_any_other(send, ask):
    result = send("trigger", "lead.created", "--set", "url=https://acme.example", "--object", "lead_acme")
    first, second, *rules = result.stdout.splitlines()
    assert (result.exit_code, first) == (0, "202 accepted")
    assert second.startswith("  lead.created ev_")
    assert second.endswith(" of lead_acme")
    assert [rule.split(",")[0] for rule in rules] == [
        "  Pitch: planned",
        "  Size: planned",
        "  Segment: skipped",
    ]
    assert len(ask(lambda box: box.ledger.entries_of("lead_acme"))) == 2


def test_what_is_set_is_in_the_record_and_is_what_has_changed(send):
    result = send("trigger", "contact.updated", "--set", "title=Chief of Staff", "--json")
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["answer"]["planned"][0]["rule"]) == (202, "Seniority")
    ignored = json.loads(send("trigger", "contact.updated", "--set", "phones=[]", "--json").stdout)
    assert ignored["answer"]["reason"] == "no rule for contact.updated with these changed fields"


def test_the_key_is_one_that_the_service_has_learned(send, blocking_redis):
    blocking_redis.hset(keys.SIGNATURE_KEYS, "whsub_1", KEY)
    assert send("trigger", "lead.created", CLOSE_SIGNATURE_KEYS="").exit_code == 0


def test_a_wrong_key_is_told_and_fails(send):
    result = send("trigger", "lead.created", CLOSE_SIGNATURE_KEYS=OTHER_KEY)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "401 the signature matches no key")


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "message"),
    [
        (
            ("trigger", "lead.created"),
            {"CLOSE_SIGNATURE_KEYS": ""},
            2,
            "no signature key is known: set CLOSE_",
        ),
        (
            ("trigger", "lead.created", "--object", "cont_1"),
            {},
            2,
            "--object cont_1: lead.created is about an",
        ),
        (("trigger", "lead.created", "--set", "url"), {}, 2, "--set url: expected NAME=VALUE, such as"),
        (("trigger", "lead.created", "--to", "ftp://x"), {}, 2, "--to ftp://x: expected an http:// or"),
        (
            ("trigger", "lead.created", "--to", "http://127.0.0.1:1/"),
            {},
            1,
            "http://127.0.0.1:1/ does not answer",
        ),
        (("replay", "nowhere.json"), {}, 2, "nowhere.json: cannot be read: No such file or directory"),
        (("replay", "ev_1"), {}, 2, "These settings need attention:\n  CLOSE_API_KEY: not set"),
    ],
)
def test_what_cannot_be_sent_is_explained(send, arguments, settings, code, message):
    result = send(*arguments, **settings)
    assert (result.exit_code, result.stderr[: len(message)]) == (code, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no event, but something that is not JSON"),
        ("[]", 'expected an event, or a delivery\'s body: {"event": …}'),
        ("{}", "this is no event: Object missing required field `id` - at `$.event`"),
    ],
)
def test_a_file_without_an_event_is_refused(send, tmp_path, text, message):
    path = tmp_path / "event.json"
    path.write_text(text)
    result = send("replay", str(path))
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("bare", [False, True], ids=["a delivery", "a bare event"])
def test_a_file_is_sent_again_and_planned_once(send, tmp_path, bare):
    envelope = json.loads(sample_event())
    path = tmp_path / "event.json"
    path.write_text(json.dumps(envelope["event"] if bare else envelope))
    assert [send("replay", str(path)).stdout.splitlines()[0] for _ in range(2)] == [
        "202 accepted",
        "202 duplicate",
    ]


def test_an_event_of_the_log_is_sent_again(send, close):
    close.add_lead(name="Acme")
    (entry,) = list(close.world.journal.newest_first())
    result = send("replay", entry.event["id"], "--json", **close.settings)
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["event"]) == (200, entry.event["id"])
    assert answer["answer"]["reason"] == "the event belongs to another organization"
    missing = send("replay", "ev_none", **close.settings)
    assert (missing.exit_code, missing.stderr) == (
        1,
        "ev_none: not in Close's event log, which goes back 30 days\n",
    )


def test_a_file_that_is_called_like_an_event_is_a_file(send, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ev_1.json").write_bytes(sample("02"))
    assert send("replay", "ev_1.json").stdout.startswith("202 accepted")


@pytest.mark.parametrize(
    "command", [["listen", "--port", "0"], ["trigger", "lead.created"], ["replay", "ev_1.json"]], ids=" ".join
)
def test_a_redis_that_is_away_is_not_taken_for_a_missing_key(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ev_1.json").write_bytes(sample("02"))
    result = cli(*command, REDIS_URL=f"unix://{tmp_path}/none.sock")
    assert result.exit_code == 1
    assert result.stderr.startswith("Redis does not answer at REDIS_URL (")


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path, {"CLOSE_SIGNATURE_KEYS": KEY, "PYTHONUNBUFFERED": "1"})
    yield processes
    processes.close()


@pytest.fixture
def listening(processes):
    """`listen` in a process of its own: its address, and what it has printed."""
    with reserved_port() as port:

        def start(*arguments):
            processes.start("listen", "listen", "--port", str(port), *arguments)
            wait_until(lambda: "Listens at" in processes.log("listen") and _answers(port), seconds=30)
            return f"http://127.0.0.1:{port}/any/path"

        yield start, lambda: processes.log("listen")


def _answers(port):
    try:
        return post(f"http://127.0.0.1:{port}/", body=b"", headers={}).status == 401
    except OSError:
        return False


def test_listen_prints_what_is_signed_and_keeps_it(listening, tmp_path):
    start, log = listening
    url = start("--save", str(tmp_path / "events"))
    body = sample("02")
    assert post(url, body=body, headers=signed(body)).status == 200
    assert post(url, body=body, headers=signed(body, key=OTHER_KEY)).status == 401
    unreadable = b'{"event": 1}'
    assert post(url, body=unreadable, headers=signed(unreadable)).status == 200
    event = json.loads(body)["event"]
    text = wait_until(lambda: log() if "unreadable, 12 bytes" in log() else None)
    assert f"lead.created  {event['object_id']}  {event['id']}" in text
    assert "refused: the signature matches no key" in text
    assert event["data"]["display_name"] not in text
    assert post(url, body=b"[]", headers=signed(b"[]")).status == 200
    wait_until(lambda: "unreadable, 2 bytes" in log())
    kept = {one.name: one for one in (tmp_path / "events").iterdir()}
    assert {name: one.read_bytes() for name, one in kept.items()} == {
        f"{event['id']}.json": body,
        "unreadable-1.json": unreadable,
        "unreadable-2.json": b"[]",
    }
    assert {one.stat().st_mode & 0o777 for one in kept.values()} == {0o600}


def test_listen_prints_json_in_full_where_asked(listening):
    start, log = listening
    url = start("--json", "--full")
    body = sample("05")
    post(url, body=body, headers=signed(body))
    line = wait_until(lambda: next((one for one in log().splitlines() if one.startswith("{")), None))
    facts = json.loads(line)
    assert (facts["type"], facts["body"]) == ("lead.updated", json.loads(body))
    assert facts["changed_fields"]


def test_listen_ends_well_on_ctrl_c(listening, processes):
    start, log = listening
    start()
    processes.send("listen", signal.SIGINT)
    assert processes.wait("listen") == 0
    assert "Aborted" not in log()


def test_listen_names_a_port_that_is_taken(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("listen", "--port", str(port), CLOSE_SIGNATURE_KEYS=KEY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_listen_ends_with_whoever_reads_what_it_prints(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    told = tmp_path / "told"
    with reserved_port() as port, told.open("w") as stderr:
        with os.fdopen(writer, "w") as pipe:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli.main", "listen", "--port", str(port)],
                env={"PATH": os.environ["PATH"], "CLOSE_SIGNATURE_KEYS": KEY},
                cwd=PROJECT,
                stdout=pipe,
                stderr=stderr,
            )
        with process:
            wait_until(lambda: _answers(port), seconds=30)
            body = sample("02")
            assert post(f"http://127.0.0.1:{port}/", body=body, headers=signed(body)).status == 503
            assert process.wait(timeout=30) == 1
    assert "Traceback" not in told.read_text()


class _Redirecting(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(307)
        self.send_header("location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_redirect_is_told_and_not_followed():
    with http.server.HTTPServer(("127.0.0.1", 0), _Redirecting) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert post(f"http://127.0.0.1:{server.server_port}/", body=b"{}", headers={}).status == 307
        thread.join()
