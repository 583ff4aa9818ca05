"""The lock: all that the image installs, by version and hash, and nothing that nobody asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parent.parent
LOCKS = {
    name: (PROJECT / "deploy" / name).read_text(encoding="utf-8")
    for name in ("requirements.lock", "build.lock")
}
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
ROOT = "close-enrich (pyproject.toml)"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
VIA = re.compile(r"^    # (?:via )?(?:  )?(\S.*)$")


def pins(text):
    """Version, number of hashes and what asks for it, by name."""
    found = {}
    for line in text.splitlines():
        if pin := PIN.match(line):
            name = canonicalize_name(pin[1])
            found[name] = {"version": Version(pin[2]), "hashes": 0, "via": set()}
        elif HASH.match(line):
            found[name]["hashes"] += 1
        elif (via := VIA.match(line)) and via[1] != "via":
            found[name]["via"].add(via[1] if via[1] == ROOT else canonicalize_name(via[1]))
    return found


def reached(found):
    """The names that the project asks for, by whatever ways."""
    names = {name for name, one in found.items() if ROOT in one["via"]}
    while more := {name for name, one in found.items() if one["via"] & names} - names:
        names |= more
    return names


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_pins_a_version_by_hash(name) -> None:
    lines = [line for line in LOCKS[name].splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    assert [one for one, pin in pins(LOCKS[name]).items() if not pin["hashes"]] == []


@pytest.mark.parametrize("name", LOCKS)
def test_no_address_of_an_index_is_in_it(name) -> None:
    assert "://" not in LOCKS[name]
    assert "index" not in LOCKS[name]


def test_all_that_the_project_asks_for_is_pinned_to_a_version_that_fits() -> None:
    found = pins(LOCKS["requirements.lock"])
    wanted = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    unfit = [
        str(one)
        for one in wanted
        if (pin := found.get(canonicalize_name(one.name))) is None or pin["version"] not in one.specifier
    ]
    assert not unfit, "run deploy/lock.sh"


def test_nothing_is_pinned_that_nothing_asks_for() -> None:
    found = pins(LOCKS["requirements.lock"])
    asked_directly = {name for name, one in found.items() if ROOT in one["via"]}
    wanted = {canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["dependencies"]}
    assert asked_directly == wanted, "run deploy/lock.sh"
    assert reached(found) == set(found), "run deploy/lock.sh"


def test_what_builds_the_wheel_is_pinned() -> None:
    found = pins(LOCKS["build.lock"])
    wanted = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    assert {canonicalize_name(one.name) for one in wanted} <= set(found), "run deploy/lock.sh"
    assert all(found[canonicalize_name(one.name)]["version"] in one.specifier for one in wanted)


def test_the_licence_of_all_that_is_pinned_is_listed() -> None:
    table = (PROJECT / "deploy/LICENSES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) +\| (\S.*?) +\|$", table, re.MULTILINE)
    listed = {canonicalize_name(name) for name, _ in rows[1:] if not name.startswith("-")}
    only_on_windows = {"colorama"}
    found = pins(LOCKS["requirements.lock"]).keys() - only_on_windows
    assert listed == found, "run deploy/supply_chain.sh licenses"
    assert not [row for row in rows if "UNKNOWN" in row[1]]
