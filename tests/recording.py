"""A terminal recording for the README: a real shell in a real terminal, against the sandbox.

`python -m tests.recording` types what a new user would and writes what the screen shows into README.md,
between the two marks; `tests/test_recording.py` says whether it is still true.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent))

from sandbox_box import Close
from stack_parts import Background

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- recording: python -m tests.recording -->\n", "<!-- end of the recording -->\n"
COLUMNS, LINES = 118, 120
SHOWN_PORT = "8090"
SECONDS = 90.0
DOWN = "\x1b[B"


COMMANDS = (
    "set -a && . ./.env && set +a",
    "close-enrich rules check",
    "sed -i 's/field: Industry /field: Industy /' rules.yaml",
    "close-enrich rules check",
)
"""What is typed after `init`."""

PICKS = f" {DOWN} {DOWN}{DOWN} "
PICKED = 3


class Terminal:
    """A shell in a pseudo-terminal whose screen can be read."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._screen.write_process_input = lambda data: os.write(self._ours, data.encode())
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=directory,
            env={**environ, "TERM": "xterm", "PS1": "$ ", "COLUMNS": str(COLUMNS), "LINES": str(LINES)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until_prompt(self, number: int) -> None:
        """Wait until the shell prompts for the so-manieth time and nothing is typed yet."""
        self.until(lambda lines: lines[-1] == "$" and sum(line.startswith("$") for line in lines) >= number)

    def until(self, seen: Callable[[list[str]], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not seen(self.lines()):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._ours], [], [], left)[0]:
                raise TimeoutError("\n".join(self.lines()))
            self._stream.feed(os.read(self._ours, 65536))

    def lines(self) -> list[str]:
        """The screen, without what is empty at its end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def record() -> str:
    """What the screen shows after the session."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        close = stack.enter_context(Close.served(stack.enter_context(Background())))
        environ = {
            **close.settings,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": directory,
            "LANG": "C.UTF-8",
        }
        terminal = Terminal(Path(directory), environ)
        try:
            terminal.until_prompt(1)
            terminal.type("close-enrich init\r")
            terminal.until(lambda lines: any("shall be filled?" in line for line in lines))
            terminal.type(PICKS)
            terminal.until(lambda lines: sum("\N{BLACK CIRCLE}" in line for line in lines) == PICKED)
            picking = terminal.lines()[1:]
            terminal.type("\r")
            for number, command in enumerate(COMMANDS, start=2):
                terminal.until_prompt(number)
                terminal.type(f"{command}\r")
            terminal.until_prompt(len(COMMANDS) + 2)
            first, *rest = terminal.lines()[:-1]
            shown = "\n".join([first, *picking, *rest])
        finally:
            terminal.close()
        port = re.escape(close.url.rpartition(":")[2])
        return re.sub(rf"(?<=:){port}\b", SHOWN_PORT, shown)


def block(shown: str) -> str:
    """The README's part."""
    return "\n".join(["", *(f"    {line}".rstrip() for line in shown.splitlines()), "", ""])


def written() -> str:
    """What the README shows now."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + block(record()) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
