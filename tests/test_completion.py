"""Shells complete our commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_of_its_own(cli, shell):
    result = cli("completion", shell)
    assert result.exit_code == 0
    assert f"_CLOSE_ENRICH_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_and_options(cli):
    program = Path(sys.executable).parent
    script = cli("completion", "bash").stdout
    asked = (
        f"{script}\nCOMP_WORDS=(close-enrich dead li) COMP_CWORD=2\n"
        '_close_enrich_completion close-enrich\necho "${COMPREPLY[@]}"'
    )
    shown = subprocess.run(
        ["bash", "-c", asked],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{program}:{os.environ['PATH']}"},
    )
    assert shown.stdout.split() == ["list"]
