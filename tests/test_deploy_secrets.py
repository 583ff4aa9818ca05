"""The secrets that `deploy/secrets.sh` makes, and the Redis that compose.yaml starts with them."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest
import redis
from deploy_box import DEPLOY, documents
from waiting import wait_until

from service.embedded_redis import server_binary

COMPOSE = documents("compose.yaml")[0]


def make_secrets(directory):
    return subprocess.run(
        [directory / "secrets.sh"],
        env={"PATH": "/usr/bin:/bin", "CLOSE_API_KEY": "api_7secret.x"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def secrets(tmp_path):
    shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    make_secrets(tmp_path)
    return tmp_path / "secrets"


def test_every_secret_of_compose_is_made_and_only_its_owner_gets_at_it(secrets) -> None:
    assert {path.name for path in secrets.iterdir()} == COMPOSE["secrets"].keys()
    assert secrets.stat().st_mode & 0o777 == 0o700
    # users of other numbers read them in their containers
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}


def test_what_is_there_stays_and_nothing_is_printed(secrets) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    (secrets / "metrics_token").unlink()
    printed = make_secrets(secrets.parent)
    after = {path.name: path.read_text() for path in secrets.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"metrics_token"}
    assert [text for text in after.values() if text in printed] == []


def listens(path):
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def test_the_redis_of_compose_keeps_everything_and_wants_the_password(secrets, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ours = {
        "valkey-server": server_binary(),
        "/run/secrets/redis_conf": secrets / "redis_conf",
        "/data": data,
    }
    command = [str(ours.get(word, word)) for word in COMPOSE["services"]["redis"]["command"]]
    path = tmp_path / "redis.sock"
    server = subprocess.Popen([*command, "--port", "0", "--unixsocket", path], stdout=subprocess.DEVNULL)
    try:
        # the file is there a moment before anybody listens
        wait_until(lambda: listens(path), seconds=15)
        with redis.Redis(unix_socket_path=str(path)) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
        password = (secrets / "redis_url").read_text().split(":")[2].partition("@")[0]
        with redis.Redis(unix_socket_path=str(path), password=password, decode_responses=True) as client:
            found = {
                name: client.config_get(name)[name]
                for name in ("appendonly", "appendfsync", "maxmemory-policy")
            }
        assert found == {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    finally:
        server.terminate()
        server.wait(15)
