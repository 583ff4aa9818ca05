"""The rules file while a process runs: what counts as a new version; a broken one changes nothing."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import structlog
from stack_parts import PROJECT
from waiting import eventually, wait_until

from service.rules_file import load_rules
from service.rules_reload import RulesChange, RulesReload, rules_change
from service.tasks import cancel_all

RULES = "{version: 1, rules: [{name: Pitch, object: lead, field: Pitch}]}"
MORE = f"{RULES[:-2]}, {{name: Size, object: lead, field: Size}}]}}"
WARNED = "{version: 1, rules: []}"
BROKEN = "{version: 1, rules: [{name: Pitch, object: leed, field: Pitch}, {nam: Size}]}"
STARTED_MS, LATER_MS = 1_791_970_212_000, 1_791_970_272_000


def book(text=RULES):
    loaded = load_rules(text, source="rules.yaml")
    assert loaded.rulebook is not None
    return loaded.rulebook


class Box:
    """A rules file, what follows it, and all that this has done."""

    def __init__(self, path):
        self.path = path
        self.path.write_text(RULES)
        self.log = structlog.testing.CapturingLogger()
        self.adopted = []
        self.now_ms = STARTED_MS
        self.while_settling = []
        self.reload = RulesReload(
            path,
            book(),
            adopt=self.adopted.append,
            now_ms=lambda: self.now_ms,
            log=self.log,
            pause=self.settle,
        )
        self.now_ms = LATER_MS

    async def settle(self, seconds):
        assert seconds > 0
        if self.while_settling:
            self.while_settling.pop(0)()

    async def write(self, text):
        self.path.write_text(text)
        await self.reload.look()

    @property
    def state(self):
        return self.reload.state()

    def told(self, level):
        return [call for call in self.log.calls if call.method_name == level]


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path / "rules.yaml")


async def test_a_file_that_stays_as_it_is_changes_nothing(box):
    await box.reload.look()
    os.utime(box.path, (1, 1))
    await box.reload.look()
    assert (box.adopted, box.log.calls) == ([], [])
    assert (box.state.digest, box.state.read_at_ms, box.state.problem) == (book().digest, STARTED_MS, "")


async def test_a_new_version_takes_effect_and_is_told_once_with_what_differs(box):
    await box.write(MORE)
    await box.reload.look()

    assert box.adopted == [book(MORE)]
    assert (box.state.digest, box.state.read_at_ms) == (book(MORE).digest, LATER_MS)
    (told,) = box.told("info")
    assert (told.kwargs["added"], told.kwargs["removed"], told.kwargs["changed"]) == (["Size"], [], [])


async def test_what_should_be_looked_at_in_a_new_version_is_told_and_does_not_stop_it(box):
    await box.write(WARNED)
    assert box.adopted == [book(WARNED)]
    (told,) = box.told("warning")
    assert "is empty" in told.kwargs["warning"]


async def test_a_broken_file_keeps_the_rules_and_is_told_once_with_all_problems(box):
    await box.write(BROKEN)
    await box.reload.look()

    assert box.adopted == []
    assert box.state.digest == book().digest
    (told,) = box.told("error")
    assert len(told.kwargs["problems"]) == len(box.state.problems) > 2
    first = "rules.yaml:1:44: rules[0].object: 'leed' is not one of lead, contact; did you mean 'lead'?"
    assert box.state.problems[0] == first
    more = len(box.state.problems) - 1
    assert box.state.problem == (
        f"the rules of 2026-10-14 09:30:12 UTC stay in force: {first} (and {more} more)"
    )
    assert str(box.path.parent) not in box.state.problem


async def test_a_file_broken_in_another_way_is_told_again(box):
    await box.write(BROKEN)
    await box.write("{")
    assert len(box.told("error")) == 2


@pytest.mark.parametrize(("repaired", "adopted"), [(RULES, 0), (MORE, 1)])
async def test_a_repaired_file_clears_the_problem(box, repaired, adopted):
    await box.write(BROKEN)
    await box.write(repaired)
    assert (box.state.problems, box.state.digest) == ((), book(repaired).digest)
    assert len(box.adopted) == adopted
    assert len(box.told("info")) == 1


async def test_a_file_that_is_gone_is_a_problem_until_it_is_there_again(box):
    box.path.unlink()
    await box.reload.look()
    assert box.state.problems == ("rules.yaml: cannot be read: No such file or directory",)
    await box.write(RULES)
    assert box.state.problem == ""


@pytest.mark.parametrize("half", ["", RULES[:30], BROKEN, WARNED])
async def test_what_is_still_being_written_does_not_count(box, half):
    box.while_settling.append(lambda: box.path.write_text(MORE))
    await box.write(half)
    assert (box.adopted, box.log.calls, box.state.problems) == ([], [], ())
    await box.reload.look()
    assert box.adopted == [book(MORE)]


async def test_a_swapped_symbolic_link_is_a_new_version(tmp_path):
    """As Kubernetes replaces what a ConfigMap holds: the file's directory is a link to the newest."""
    for name, text in (("old", RULES), ("new", MORE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("old")
    box = Box(tmp_path / "..data" / "rules.yaml")
    (tmp_path / "..next").symlink_to("new")
    (tmp_path / "..next").rename(tmp_path / "..data")
    await box.reload.look()
    assert box.adopted == [book(MORE)]


async def test_rules_that_cannot_be_put_to_work_leave_it_as_it_was(box):
    def fail(_rulebook):
        raise RuntimeError

    box.reload._adopt = fail
    task = asyncio.create_task(box.reload.run())
    box.path.write_text(MORE)
    await eventually(lambda: box_told(box, "exception"))
    assert not task.done()
    assert box.state.digest == book().digest
    await cancel_all([task])


async def box_told(box, level):
    return box.told(level)


async def test_it_looks_at_once_when_told_to(box, monkeypatch):
    monkeypatch.setattr("service.rules_reload.LOOK_EVERY_SECONDS", 600.0)
    task = asyncio.create_task(box.reload.run())
    await eventually(lambda: seen(box))
    box.path.write_text(MORE)
    box.reload.soon()
    await eventually(lambda: adopted(box))
    assert box.told("info")[0].args == ("looks at the rules file, as it was told to",)
    await cancel_all([task])


async def seen(box):
    return box.reload._seen is not None


async def adopted(box):
    return box.adopted


def test_what_differs_is_named_wherever_the_rules_stand():
    (pitch,) = book().rules
    old = replace(book(), rules=(pitch, replace(pitch, name="Old"), replace(pitch, name="Same", line=5)))
    new = replace(
        book(),
        rules=(replace(pitch, name="Same", line=9), replace(pitch, attempts=9), replace(pitch, name="New")),
    )
    assert rules_change(old, new) == RulesChange(added=("New",), removed=("Old",), changed=("Pitch",))


WAITS_FOR_HANGUP = """
import fcntl, signal, sys, termios, threading
from service.hangup import hangup_handler
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
reloaded = threading.Event()
handler = hangup_handler(lambda: open(sys.argv[1], "a").write("reloaded "))
signal.signal(signal.SIGHUP, lambda *_: handler())
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "a").write("stopped"), sys.exit(0)))
open(sys.argv[1], "a").write("started ")
while True:
    reloaded.wait(0.1)
"""


def test_hangup_reloads_and_the_end_of_the_terminal_stops(tmp_path):
    told = tmp_path / "told"
    told.touch()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_HANGUP, str(told)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=PROJECT,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            wait_until(lambda: told.read_text() == "started ", seconds=30)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: told.read_text() == "started reloaded ")
            os.close(ours)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert told.read_text() == "started reloaded stopped"
