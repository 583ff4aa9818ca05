"""What the tests of `deploy/` share: its files, read, and the tools that look at them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parent.parent
DEPLOY = PROJECT / "deploy"
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PYPROJECT["project"]["version"]
AFTER_GRACE_SECONDS = 15
"""What a worker may need after SHUTDOWN_GRACE, see `workers.worker.PUT_BACK_SECONDS`, and some more."""


def read(path):
    return (DEPLOY / path).read_text(encoding="utf-8")


def documents(path):
    """The documents of a YAML file."""
    return [one for one in yaml.safe_load_all(read(path)) if one is not None]


def run_tool(name, *arguments, by_ci=True, **options):
    """Run a linter; skipped where it is not installed, which in CI none may be that `.ci/run` installs."""
    if shutil.which(name) is None:
        if by_ci and os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not on the PATH, although .ci/run installs it")
        pytest.skip(f"{name} is not installed; see deploy/linters.txt")
    return subprocess.run(
        [name, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def kustomized(directory):
    """The documents that kustomize makes of a directory of ours."""
    result = run_tool("kubectl", "kustomize", DEPLOY / "kubernetes" / directory)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout)), result.stdout


def seconds(text):
    """A duration such as `40s`, or a number of seconds."""
    return float(str(text).removesuffix("s"))
