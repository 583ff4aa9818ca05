"""`web` as several processes: all of them take events, and whatever ends, nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading

import pytest
from receiver_box import KEY, RULES, sample_event, save_schemas, signed
from stack_parts import HeldPort, Processes
from waiting import wait_until

from service import keys
from service.embedded_redis import EmbeddedRedis
from service.redis_client import blocking_redis_client
from service.settings_values import WEBHOOK_PATH

pytestmark = pytest.mark.slow

COUNT = 2


class Web:
    """The command, its Redis, and a sender that tries again like Close."""

    def __init__(self, directory, redis_url):
        self.redis_url = redis_url
        self.held_port = HeldPort()
        self.port = self.held_port.number
        self.rules = directory / "rules.yaml"
        self.rules.write_text(RULES)
        self.processes = Processes(
            directory,
            {
                "REDIS_URL": redis_url,
                "CLOSE_SIGNATURE_KEYS": KEY,
                "RULES_FILE": str(self.rules),
                "PORT": str(self.port),
                "LOG_FORMAT": "json",
            },
        )
        self.processes.start("web", "web", "--workers", str(COUNT))
        self.acknowledged = []

    def pids(self):
        """The processes that have ever worked."""
        started = self.logged("Application startup complete.")
        return {line["pid"] for line in started} & set(self.processes.left())

    def logged(self, event):
        return self.processes.logged("web", event)

    def takers(self):
        """The processes that have taken an event."""
        return {line["pid"] for line in self.logged("accepted")}

    def send(self, number):
        """Deliver a new lead's event over a connection of its own until it is acknowledged."""
        lead_id = f"lead_{number:043}"
        body = sample_event("02", id=f"ev_{number:022}", object_id=lead_id, lead_id=lead_id)
        wait_until(lambda: self._delivered(body))
        self.acknowledged.append(lead_id)

    def _delivered(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", WEBHOOK_PATH, body, signed(body))
            return connection.getresponse().status == 202
        return False

    def refuses_connections(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=20).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    @contextlib.contextmanager
    def sending(self):
        """One event after the other, meanwhile; it ends with all of them acknowledged."""
        enough = threading.Event()

        def send_on():
            number = 0
            while not enough.is_set():
                self.send(number)
                number += 1

        sender = threading.Thread(target=send_on)
        sender.start()
        try:
            yield
        finally:
            enough.set()
            sender.join(120)
        assert not sender.is_alive()


@pytest.fixture
def web(tmp_path):
    with EmbeddedRedis(tmp_path, fsync="no") as server:
        save_schemas(server.url)
        started = Web(tmp_path, server.url)
        try:
            wait_until(lambda: started.processes.check() or len(started.pids()) == COUNT)
            yield started
        finally:
            started.processes.close()
            started.held_port.close()


def test_one_that_is_killed_is_replaced_while_all_take_events_and_none_is_lost(web):
    before = web.pids()
    with web.sending():
        wait_until(lambda: web.takers() == before)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: web.takers() - before)
    (ended,) = web.logged("a process ended and is replaced")
    assert (ended["process"], ended["exit_code"]) == (killed, -signal.SIGKILL)
    assert len(web.pids()) == COUNT
    with contextlib.closing(blocking_redis_client(web.redis_url)) as redis:
        lost = [one for one in web.acknowledged if not redis.exists(keys.object_entries(one))]
    assert (len(web.acknowledged) > COUNT, lost) == (True, [])


def test_a_hangup_reaches_all_and_sigterm_ends_all_once_they_have_answered(web):
    web.rules.write_text(RULES.replace("name: Pitch", "name: Elevator pitch"))
    web.processes.send("web", signal.SIGHUP)
    for event in ("looks at the rules file, as it was told to", "new rules are in force"):
        wait_until(lambda event=event: {line["pid"] for line in web.logged(event)} == web.pids())

    body = sample_event("02")
    head = [
        f"POST {WEBHOOK_PATH} HTTP/1.1",
        "host: here",
        f"content-length: {len(body)}",
        "expect: 100-continue",
    ]
    head += [f"{name}: {value}" for name, value in signed(body).items()]
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        answers = connection.makefile("rb")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        connection.sendall(body[:100])
        web.processes.send("web", signal.SIGTERM)
        wait_until(lambda: len(web.logged("Shutting down")) == COUNT)
        # they say so a moment before they close what they listen on
        wait_until(web.refuses_connections)
        connection.sendall(body[100:])
        answer = answers.read()
    assert b"HTTP/1.1 202 " in answer
    assert b"Elevator pitch" in answer
    assert web.processes.wait("web") == 0
    assert web.processes.left() == []
    assert "Traceback" not in web.processes.log("web")


def test_a_supervisor_that_is_killed_leaves_nobody_and_its_port(web):
    web.processes.send("web", signal.SIGKILL)
    wait_until(lambda: not web.processes.left())
    with socket.create_server(("127.0.0.1", web.port)):
        pass
    assert "Traceback" not in web.processes.log("web")
