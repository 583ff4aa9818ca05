"""The engine that judges conditions, without the command line that its package loads along with it.

`import cel` also imports `cel.cli`, and with it prompt_toolkit and typer: ten times as long as the engine
takes to load, and memory that every process here would keep. The engine itself is one extension module.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["cel"]

_EXTENSION = "cel.cel"


def _engine() -> ModuleType:
    """The extension module; the whole package where a release keeps it elsewhere.

    It can be loaded once in a process, so it is put where `import cel` looks for it, and taken from there.
    """
    if _EXTENSION in sys.modules:
        return sys.modules[_EXTENSION]
    package = find_spec("cel")
    found = package and PathFinder.find_spec(_EXTENSION, package.submodule_search_locations)
    if not found or found.loader is None:
        return importlib.import_module("cel")
    engine = sys.modules[_EXTENSION] = module_from_spec(found)
    found.loader.exec_module(engine)
    return engine


if TYPE_CHECKING:
    import cel
else:
    cel = _engine()
