"""Child processes of `demo` and `up`: started together, watched, and stopped in order."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.05

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses on this machine, which no proxy of the environment's can reach."""


class ChildEndedError(Exception):
    """A child process ended, or did not start to serve; the message says which and where its log is."""


@dataclass(slots=True)
class Children:
    """Commands of ours in processes of their own. They are stopped in the order in which they were started.

    Each runs in a session of its own, so that Ctrl-C in a terminal reaches only the parent, which then stops
    one after the other and lets calls in flight finish.

    Attributes:
        log_dir: where each child's output goes, as `<name>.log`; None lets them write to our terminal.
    """

    log_dir: Path | None = None
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _files: ExitStack = field(default_factory=ExitStack)

    def start(self, name: str, *arguments: str, environ: Mapping[str, str]) -> None:
        """Start `close-enrich <arguments>`."""
        output = None
        if self.log_dir is not None:
            output = self._files.enter_context((self.log_dir / f"{name}.log").open("ab"))
        self._running[name] = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-m", "service.cli.main", *arguments],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def pid(self, name: str) -> int:
        """The process id of a child that was started."""
        return self._running[name].pid

    def check(self) -> None:
        """See that all are alive.

        Raises:
            ChildEndedError: one is not.
        """
        for name, process in self._running.items():
            code = process.poll()
            if code is not None:
                raise ChildEndedError(f"{name} ended with exit code {code}{self._where(name)}")

    def wait_for(self, name: str, url: str) -> None:
        """Wait until a child answers HTTP requests.

        Raises:
            ChildEndedError: it ended, or did not answer within half a minute.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            self.check()
            try:
                request_json("GET", url)
            except OSError:
                time.sleep(POLL_SECONDS)
            else:
                return
        raise ChildEndedError(f"{name} did not answer at {url}{self._where(name)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to each of them that still runs."""
        for process in self._running.values():
            process.send_signal(number)

    def stop(self) -> None:
        """Stop them all, one after the other."""
        for process in self._running.values():
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        self._files.close()

    def _where(self, name: str) -> str:
        if self.log_dir is None:
            return ""
        path = self.log_dir / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines()[-5:] if path.exists() else []
        return "\n".join([f"; the end of {path}:", *lines])


def free_port() -> int:
    """A TCP port that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def request_json(method: str, url: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Any:
    """One small local request.

    Raises:
        OSError: nobody answered, or the answer was not a success (`urllib.error.HTTPError`).
    """
    request = urllib.request.Request(  # noqa: S310  only ever http://127.0.0.1
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", **(headers or {})},
    )
    with _DIRECT.open(request, timeout=10) as answer:
        return json.load(answer)
