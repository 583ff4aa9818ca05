"""Several processes at one port: what keeps their number up, and where they listen."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from click.testing import CliRunner
from receiver_box import captured_log, rulebook
from starlette.requests import Request
from waiting import wait_until

from service.cli import crew
from service.cli.crew import Lifeline, pause_after
from service.cli.listening import open_port
from service.cli.main import main
from service.cli.serve_many import serve_web_many
from service.dashboard.access import Access, Visitor
from service.settings import MOST_WEB_WORKERS, load_settings

LOCAL = "127.0.0.1"


@pytest.mark.parametrize(
    ("soon_ended", "seconds"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (6, 16), (7, 30), (1_000_000, 30)]
)
def test_what_ends_soon_again_and_again_is_replaced_after_growing_pauses(soon_ended, seconds):
    assert pause_after(soon_ended) == seconds


# the line between a child and its supervisor


async def test_a_child_tells_that_it_lives_until_its_supervisor_is_gone(monkeypatch):
    monkeypatch.setattr(crew, "BEAT_EVERY_SECONDS", 0.01)
    near, far = socket.socketpair()
    near.settimeout(0)
    lost = []
    with far:
        with near:
            holding = asyncio.create_task(Lifeline(far).hold(lost=lambda: lost.append(True)))
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(near, 1) == b"."
            assert await loop.sock_recv(near, 1) == b"."
            assert lost == []
        await asyncio.wait_for(holding, 10)
    assert lost == [True]


async def test_a_supervisor_that_does_not_listen_holds_up_no_child(monkeypatch):
    monkeypatch.setattr(crew, "BEAT_EVERY_SECONDS", 0.001)
    near, far = socket.socketpair()
    far.settimeout(0)
    with near, far:
        with contextlib.suppress(BlockingIOError):
            while True:
                far.send(b"." * 4096)
        lost = []
        holding = asyncio.create_task(Lifeline(far).hold(lost=lambda: lost.append(True)))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not holding.done()
        near.close()
        await asyncio.wait_for(holding, 10)
    assert lost == [True]


# where they listen


@pytest.mark.parametrize("spread", [True, False])
def test_each_process_gets_sockets_at_the_same_port(spread):
    with open_port(LOCAL, 0, spread=spread) as port:
        (name,) = port.names
        made = [*port.sockets(), *port.sockets()]
        assert [one.getsockname() for one in made] == [(LOCAL, int(name.rpartition(":")[2]))] * 2
        with contextlib.ExitStack() as ends:
            for one in made:
                ends.enter_context(one)
            ends.enter_context(socket.create_connection(made[0].getsockname(), timeout=5))


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("theirs", [True, False])
def test_a_port_that_is_taken_is_told_though_whoever_has_it_would_share(spread, theirs):
    with open_port(LOCAL, 0, spread=theirs) as taken, contextlib.ExitStack() as ends:
        for one in taken.sockets():
            ends.enter_context(one)
        number = int(taken.names[0].rpartition(":")[2])
        with pytest.raises(OSError, match="Address already in use"):
            open_port(LOCAL, number, spread=spread)


def test_an_address_of_another_machine_cannot_be_listened_on():
    with pytest.raises(OSError, match="no such address on this machine"):
        open_port("192.0.2.1", 0)


def test_an_address_that_is_no_ipv4_one_reads_as_in_a_url():
    try:
        port = open_port("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with port:
        assert port.names[0].startswith("[::1]:")


# the supervisor, with children that do nothing but live

SCRIPT = """
import asyncio, os, signal, sys, time
import structlog
from service.cli import crew
from service.cli.listening import open_port

def say(*words):
    # in one piece: print would mix what two of them say
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def beat(start):
    start.lifeline._line.send(b".")

def first():
    "Whether this is the first child to ask."
    try:
        os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

async def live(start):
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: say("heard", os.getpid()))
    beating = asyncio.create_task(start.lifeline.hold(lost=ended.set))
    say("lives", os.getpid(), start.stands_in)
    await ended.wait()
    say("leaves", os.getpid())

def work(start):
    {work}

crew.BEAT_EVERY_SECONDS, crew.STOP_SECONDS, crew.SILENT_SECONDS = 0.05, {stop_seconds}, {silent_seconds}
render = structlog.processors.JSONRenderer()
log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=[render])
with open_port("127.0.0.1", 0) as port:
    sys.exit(crew.Crew(count=2, port=port, work=work, log=log).run())
"""
LIVE = "asyncio.run(live(start))"


@contextlib.contextmanager
def supervised(tmp_path, work, *, silent_seconds=60, stop_seconds=15):
    """A supervisor, and a function that tells what its children have said."""
    script = SCRIPT.replace("{work}", textwrap.indent(work, "    ").strip())
    script = script.replace("{silent_seconds}", str(silent_seconds))
    script = script.replace("{stop_seconds}", str(stop_seconds))
    script = script.replace("{mark!r}", repr(str(tmp_path / "mark")))
    said, told = tmp_path / "said", tmp_path / "told"
    with said.open("wb") as out, told.open("wb") as err:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=out, stderr=err)

    def lines(word):
        # one that is just being written is not there yet
        return [
            line.split()[1:]
            for line in said.read_text().splitlines(keepends=True)
            if line.startswith(word) and line.endswith("\n")
        ]

    try:
        yield process, lines, told
    finally:
        process.kill()
        process.wait()


def living(lines):
    gone = {pid for pid, *_ in lines("leaves")}
    return [pid for pid, _ in lines("lives") if pid not in gone]


def test_all_live_hear_of_a_hangup_and_leave_when_the_supervisor_is_told_to_end(tmp_path):
    with supervised(tmp_path, LIVE) as (supervisor, lines, told):
        wait_until(lambda: len(living(lines)) == 2, seconds=30)
        pids = {pid for pid, _ in lines("lives")}
        assert {stands_in for _, stands_in in lines("lives")} == {"False"}
        supervisor.send_signal(signal.SIGHUP)
        wait_until(lambda: {pid for (pid,) in lines("heard")} == pids)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0
        assert {pid for (pid,) in lines("leaves")} == pids
    assert "Traceback" not in told.read_text()


def test_when_the_supervisor_is_killed_its_children_leave(tmp_path):
    with supervised(tmp_path, LIVE) as (supervisor, lines, _):
        wait_until(lambda: len(living(lines)) == 2, seconds=30)
        supervisor.kill()
        wait_until(lambda: len(lines("leaves")) == 2)
        assert living(lines) == []


STANDS_STILL = """
if first():
    beat(start)
    time.sleep(60)
asyncio.run(live(start))
"""


@pytest.mark.slow
def test_one_that_stands_still_is_killed_and_replaced(tmp_path):
    with supervised(tmp_path, STANDS_STILL, silent_seconds=2) as (supervisor, lines, told):
        wait_until(lambda: "True" in {stands_in for _, stands_in in lines("lives")})
        assert "does not answer and is killed" in told.read_text()
        assert supervisor.poll() is None


DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("lives", os.getpid(), start.stands_in)
while True:
    beat(start)
    time.sleep(0.1)
"""


@pytest.mark.slow
def test_one_that_does_not_end_is_killed_at_the_end(tmp_path):
    with supervised(tmp_path, DEAF, stop_seconds=1) as (supervisor, lines, told):
        wait_until(lambda: len(lines("lives")) == 2)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0
        assert "did not end in time and is killed" in told.read_text()


def test_what_cannot_start_ends_it_all_with_its_exit_status(tmp_path):
    with supervised(tmp_path, "sys.exit(7)") as (supervisor, _, told):
        assert supervisor.wait(60) == 7
    assert "a process ended before it worked" in told.read_text()


ENDS_AGAIN_AND_AGAIN = """
if first() or start.stands_in:
    beat(start)
    time.sleep(0.2)
    sys.exit(1)
asyncio.run(live(start))
"""


@pytest.mark.slow
def test_what_ends_again_and_again_is_replaced_without_hurry(tmp_path):
    with supervised(tmp_path, ENDS_AGAIN_AND_AGAIN) as (supervisor, _, told):

        def ends():
            lines = told.read_text().splitlines(keepends=True)
            return [json.loads(line) for line in lines if "is replaced" in line and line.endswith("\n")]

        # more may follow before anybody looks
        wait_until(lambda: len(ends()) >= 3)
        assert [one["pause_seconds"] for one in ends()][:3] == [0.0, 1.0, 2.0]
        assert {one["exit_code"] for one in ends()} == {1}
        assert supervisor.poll() is None


# the command


def settings(**environ):
    return load_settings(
        {"REDIS_URL": "redis://127.0.0.1:1", "CLOSE_SIGNATURE_KEYS": "ab" * 16, **environ}, needs=()
    )


def test_a_port_that_is_taken_ends_the_command_with_a_word(capsys):
    with socket.create_server((LOCAL, 0)) as taken, captured_log():
        number = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            serve_web_many(settings(PORT=str(number)), rulebook(), count=2)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told == f"cannot listen on HOST 127.0.0.1, PORT {number}: Address already in use\n"


@pytest.mark.parametrize("count", ["0", str(MOST_WEB_WORKERS + 1)])
def test_a_number_of_processes_out_of_range_is_refused(count):
    answer = CliRunner().invoke(main, ["web", "--workers", count])
    assert answer.exit_code == 2
    assert f"is not in the range 1<=x<={MOST_WEB_WORKERS}" in answer.output


# forms of a dashboard that is open to this machine


def asked(cookie=""):
    headers = [
        (b"host", b"localhost:8080"),
        *([(b"cookie", f"close-enrich={cookie}".encode())] if cookie else []),
    ]
    return Request(
        {"type": "http", "scheme": "http", "path": "/", "query_string": b"", "headers": headers}
        | {"client": (LOCAL, 4711), "server": ("localhost", 8080), "method": "GET"}
    )


@pytest.mark.parametrize(("other_key", "taken"), [(b"of all processes", True), (b"of another", False)])
async def test_a_form_that_one_process_has_shown_may_be_sent_to_any_other(async_redis, other_key, taken):
    def access(key):
        return Access(async_redis, admin_token=None, clock=lambda: 0.0, form_key=key)

    shown = await access(b"of all processes").who(asked())
    assert isinstance(shown, Visitor)
    other = access(other_key)
    visitor = await other.who(asked(shown.cookie))
    assert isinstance(visitor, Visitor)
    assert other.may_act(asked(shown.cookie), visitor, shown.csrf) is taken
