"""The Lua scripts, read from their files. Each states its KEYS, ARGV and answer at its top."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def script_text(name: str, *, package: str = "service") -> str:
    """The text of `<package>/lua/<name>.lua`, with what all scripts share put before it.

    Raises:
        FileNotFoundError: there is no such script.
    """
    shared = (files("service") / "lua" / "entry.lua").read_text(encoding="utf-8")
    return shared + "\n" + (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
