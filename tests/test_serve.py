"""`close-enrich web` as a process: it serves until it is told to stop, and ends without a traceback."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys

import pytest
import uvicorn
from receiver_box import KEY, RULES
from reserved_port import reserved_port
from starlette.applications import Starlette
from waiting import wait_until

from service.cli.serving import run_server

COMMAND = [sys.executable, "-c", "from service.cli.main import main; main()", "web"]


@contextlib.contextmanager
def web(tmp_path, port):
    """The process, without any Redis: it need not be there at start."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "REDIS_URL": f"unix://{tmp_path}/none.sock",
        "CLOSE_SIGNATURE_KEYS": KEY,
        "RULES_FILE": str(rules),
        "PORT": str(port),
    }
    with subprocess.Popen(COMMAND, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def is_alive(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_good_order_when_told_to(tmp_path, how):
    with reserved_port() as port, web(tmp_path, port) as process:
        wait_until(lambda: is_alive(port), seconds=30)
        process.send_signal(how)
        _, told = process.communicate(timeout=20)
    assert process.returncode in {0, -how}
    assert "Traceback" not in told


def test_a_port_that_is_taken_ends_it_with_a_word_and_no_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_port = taken.getsockname()[1]
        with web(tmp_path, taken_port) as process:
            _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert told == f"cannot listen on HOST 127.0.0.1, PORT {taken_port}: Address already in use\n"


@pytest.fixture
def sigterm_left_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm_left_as_it_was")
def test_a_server_that_does_not_start_exits_as_a_command_that_failed():
    @contextlib.asynccontextmanager
    async def lifespan(_app):
        raise RuntimeError
        yield

    config = uvicorn.Config(Starlette(lifespan=lifespan), port=0, log_config=None)
    with pytest.raises(SystemExit) as ended:
        run_server(uvicorn.Server(config))
    assert ended.value.code == 1
