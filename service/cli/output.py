"""Standard output that cannot be written to: a full disk is named, a closed pipe is the reader's affair."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_NOT_WRITTEN = 1


class OutputError(Exception):
    """Output could not be written. No `OSError`: those are taken for a Redis that does not answer."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or type(error).__name__)
        self.pipe_closed = error.errno == errno.EPIPE


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """What goes wrong in here is about the output.

    Raises:
        OutputError: an `OSError` was raised inside.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error


class _Output:
    """A stream whose errors say that they are about the output; all else is as the stream has it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with writing():
            return self._stream.write(text)

    def flush(self) -> None:
        with writing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Run a command. Where its output cannot be written, say so unless its reader has gone, and exit 1."""
    stdout: TextIO | None = sys.stdout
    if stdout is None:  # closed before we began
        yield
        return
    sys.stdout = cast("TextIO", _Output(stdout))
    try:
        try:
            yield
        finally:
            # else the interpreter does it at its very end, in words of its own
            with writing():
                if not stdout.closed:
                    stdout.flush()
    except OutputError as error:
        _let_go(stdout)
        if not error.pipe_closed:
            click.echo(f"cannot write the output: {error}", err=True)
        sys.exit(EXIT_NOT_WRITTEN)
    finally:
        sys.stdout = stdout


def _let_go(stdout: TextIO) -> None:
    """Have what is left in the stream's buffer go nowhere, or the interpreter would try it once more."""
    # a stream without a file, such as a test's, has nothing to let go of
    with contextlib.suppress(OSError, ValueError):
        number = stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
