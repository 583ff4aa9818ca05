"""`close-enrich web` as a process: it serves until it is told to stop, and ends without a traceback."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys

import pytest
from receiver_box import KEY, RULES
from reserved_port import reserved_port
from waiting import wait_until

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
        with web(tmp_path, taken.getsockname()[1]) as process:
            _, told = process.communicate(timeout=30)
        assert process.returncode not in {0, None}
    assert "address already in use" in told
    assert "Traceback" not in told
