"""Asking a person before something is done that cannot be undone or that costs."""

from __future__ import annotations

import sys

import click

from service.cli.start import give_up

EXIT_DECLINED = 1


def agree_or_exit(question: str, *, otherwise: str) -> None:
    """Go on only if a person says yes; exit 1 after a no, 2 where there is no terminal to ask at.

    Args:
        question: what is asked, with what it costs.
        otherwise: what to do without a terminal: `add --yes`.
    """
    if not at_terminal():
        give_up(f"{question} There is no terminal to ask at: {otherwise}")
    if not click.confirm(question, err=True):
        give_up("Nothing was changed.", code=EXIT_DECLINED)


def at_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def number(count: int, one: str, many: str | None = None) -> str:
    """A number and its noun: `1 credit`, `2 credits`."""
    return f"{count} {noun(count, one, many)}"


def noun(count: int, one: str, many: str | None = None) -> str:
    """The noun alone, where the number is shown in a style of its own."""
    return one if count == 1 else many or one + "s"
