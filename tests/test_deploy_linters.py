"""Each kind of file under `deploy/` passes the linter of its kind; `deploy/linters.txt` installs them."""

from __future__ import annotations

import pytest
from deploy_box import DEPLOY, run_tool

pytestmark = pytest.mark.slow

SCRIPTS = sorted(DEPLOY.glob("*.sh"))
SHELL = [*SCRIPTS, DEPLOY / "heroku.profile"]
UNITS = sorted((DEPLOY / "systemd").iterdir())
MOST_EXPOSED = 15
"""Of 100, as `systemd-analyze security` counts: a service without any hardening has 96."""


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path) -> None:
    result = run_tool("shellcheck", path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_how_it_is_used(path) -> None:
    head = path.read_text(encoding="utf-8").split("\nset -euo pipefail\n")[0]
    assert f"deploy/{path.name}" in head
    assert path.stat().st_mode & 0o111


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    result = run_tool("hadolint", DEPLOY / "Dockerfile")
    assert result.returncode == 0, result.stdout


def test_compose_knows_every_key_of_its_file() -> None:
    result = run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_its_units(path, tmp_path) -> None:
    unit = tmp_path / path.name.replace("@.", "@1.")
    text = path.read_text(encoding="utf-8")
    # it looks whether the program is there
    unit.write_text(text.replace("/opt/close-enrich/bin/close-enrich", "/bin/true"))
    result = run_tool("systemd-analyze", "verify", "--man=no", unit, by_ci=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    result = run_tool(
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={MOST_EXPOSED}",
        "--no-pager",
        unit,
        by_ci=False,
    )
    assert result.returncode == 0, result.stdout


def test_prometheus_understands_its_configuration() -> None:
    path = DEPLOY / "prometheus/prometheus.yml"
    result = run_tool("promtool", "check", "config", "--syntax-only", path)
    assert result.returncode == 0, result.stdout + result.stderr
