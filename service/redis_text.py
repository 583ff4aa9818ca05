"""Redis answers as text: redis-py types each as bytes or text, since a client can be told to decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def text(answer: object) -> str:
    """One answer as text.

    Raises:
        TypeError: the answer is neither bytes nor text.
    """
    if isinstance(answer, bytes):
        return answer.decode()
    if isinstance(answer, str):
        return answer
    raise TypeError(f"expected bytes or text from Redis, not {type(answer).__name__}")


def texts(answers: Iterable[object]) -> list[str]:
    """Several answers as text.

    Raises:
        TypeError: one of them is neither bytes nor text.
    """
    return [text(answer) for answer in answers]


def raw_hash(answer: Mapping[Any, Any]) -> Mapping[bytes, bytes]:
    """A hash of a client that does not decode, as ours never do."""
    return cast("Mapping[bytes, bytes]", answer)
