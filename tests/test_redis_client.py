"""Clients made from `REDIS_URL`: TLS, what a server refuses for now, and what is said of one that is away."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading

import pytest
import redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from reserved_port import reserved_port
from waiting import wait_until

from service.redis_client import blocking_redis_client, redis_client
from service.redis_connections import NotNowError, trouble

IN_CI = os.environ.get("CI") == "true"

# a certificate authority, another one, and a server's certificate of the first
OPENSSL = """
req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=throw-away
req -x509 -newkey rsa:2048 -nodes -days 2 -keyout other.key -out other.pem -subj /CN=another
req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost
x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem
"""


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A directory of certificates, and the port of a server that speaks TLS only."""
    missing = [one for one in ("openssl", "redis-server") if shutil.which(one) is None]
    if missing:
        # the wheel's Valkey is built without TLS
        reason = f"not installed: {', '.join(missing)}"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    directory = tmp_path_factory.mktemp("tls")
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for line in OPENSSL.strip().splitlines():
        subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True)
    with reserved_port() as port:
        process = subprocess.Popen(
            [
                "redis-server",
                *("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""),
                *(
                    "--tls-cert-file",
                    "server.pem",
                    "--tls-key-file",
                    "server.key",
                    "--tls-ca-cert-file",
                    "ca.pem",
                ),
                *("--tls-auth-clients", "no"),
            ],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: listens(port))
            yield directory, port
        finally:
            process.kill()
            process.wait(10)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def ping(url):
    client = redis_client(url)
    try:
        return await client.ping()
    finally:
        await client.aclose()


def both(url):
    """A ping by each kind of client; what they answered, or why they could not be used."""
    found = []
    for way in (lambda: asyncio.run(ping(url)), lambda: blocking_ping(url)):
        try:
            found.append(way())
        except redis.RedisError as error:
            found.append(trouble(error))
    return found


def blocking_ping(url):
    with blocking_redis_client(url) as client:
        return client.ping()


def test_a_server_with_tls_is_trusted_by_the_authority_named_in_the_url(tls):
    directory, port = tls
    assert both(f"rediss://localhost:{port}/0?ssl_ca_certs={directory}/ca.pem") == [True, True]
    assert both(f"rediss://127.0.0.1:{port}?ssl_ca_certs={directory}/ca.pem") == [True, True]
    assert both(f"rediss://localhost:{port}?ssl_cert_reqs=none") == [True, True]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rediss://localhost:{port}?ssl_ca_certs={directory}/other.pem", "its certificate is not trusted: "),
        ("rediss://localhost:{port}", "its certificate is not trusted: "),
        (
            "rediss://localhost:{port}?ssl_ca_certs={directory}/none.pem",
            "no such file: see the paths in the URL",
        ),
        (
            "rediss://localhost:{port}?ssl_ca_certs={directory}/names",
            "no TLS with it (NO_CERTIFICATE_OR_CRL_FOUND)",
        ),
    ],
)
def test_why_a_server_with_tls_is_not_trusted_is_said(tls, url, words):
    directory, port = tls
    found = both(url.format(directory=directory, port=port))
    assert [one.startswith(words) for one in found] == [True, True], found


def test_tls_to_a_server_without_it_is_said(redis_tcp_port):
    assert [one.partition(" (")[0] for one in both(f"rediss://127.0.0.1:{redis_tcp_port}")] == [
        "no TLS with it"
    ] * 2


@pytest.fixture
def redis_tcp_port():
    """A port that answers a TLS greeting as Redis does: not at all in TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    # all of it: what is left unread would end the connection before the answer is read
                    connection.recv(65536)
                    connection.sendall(b"-ERR Protocol error: too big inline request\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_refused_password_is_said_without_it(redis_url, blocking_redis):
    blocking_redis.config_set("requirepass", "hunter2")
    try:
        wrong = both(redis_url.replace("unix://", "unix://:hunter3@"))
        right = both(redis_url.replace("unix://", "unix://:hunter2@"))
    finally:
        blocking_redis.config_set("requirepass", "")
    assert right == [True, True]
    assert [one.startswith("it refuses our user or password") for one in wrong] == [True, True]
    assert "hunter" not in str(wrong)


@pytest.fixture
def refusing(redis_url, blocking_redis):
    """The address of a server that takes no writes for want of replicas."""
    blocking_redis.config_set("min-replicas-to-write", 1)
    yield redis_url
    blocking_redis.config_set("min-replicas-to-write", 0)


async def test_a_write_refused_for_want_of_replicas_is_tried_again_as_if_the_connection_were_lost(
    refusing, blocking_redis
):
    # the first try and one more are refused
    impatient = redis_client(refusing, retry=Retry(NoBackoff(), 1))
    with pytest.raises(NotNowError, match="NOREPLICAS"):
        await impatient.set("a", 1)
    async with impatient.pipeline() as pipeline:
        pipeline.set("a", 1)
        with pytest.raises(NotNowError, match="NOREPLICAS"):
            await pipeline.execute()
    assert await impatient.get("a") is None
    await impatient.aclose()

    patient = redis_client(refusing, retry=Retry(Allowing(blocking_redis), 3))
    assert await patient.set("a", 2)
    await patient.aclose()
    assert blocking_redis.get("a") == b"2"


class Allowing(NoBackoff):
    """No pause before another try, but the server has its replicas back by then."""

    def __init__(self, client):
        self.client = client

    def __deepcopy__(self, memo):
        return self

    def compute(self, failures):  # noqa: ARG002  redis-py's signature
        self.client.config_set("min-replicas-to-write", 0)
        return 0


def test_a_blocking_client_gives_a_refusing_server_up_too(refusing):
    with blocking_redis_client(refusing) as client:
        with pytest.raises(NotNowError, match="NOREPLICAS"):
            client.set("a", 1)
        assert client.get("a") is None


async def test_other_errors_are_told_as_they_are(redis_url):
    client = redis_client(redis_url)
    with pytest.raises(redis.ResponseError, match="unknown command"):
        await client.execute_command("NONSENSE")
    await client.aclose()
