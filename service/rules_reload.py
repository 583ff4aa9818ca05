"""The rules file while a process runs: a good new version takes effect, a broken one changes nothing.

The file is read every two seconds, and at once on SIGHUP. Its content is compared, which finds every way to
replace it, also the swapped symbolic links of a Kubernetes ConfigMap. What is still being written is left
alone: a new content counts when two readings in a row agree on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from service.rules_file import load_rules
from service.rules_in_force import RulesState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from service.rules import Rule, RuleBook

LOOK_EVERY_SECONDS = 2.0
SETTLE_SECONDS = 0.2
"""Between the two readings; an editor or a copy writes for less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesChange:
    """The names of the rules that differ between two versions of the file."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class RulesReload:
    """Keeps one process's rules as its rules file has them.

    Args:
        path: the rules file.
        rulebook: the rules that the process has started with.
        adopt: puts new rules to work.
        now_ms: Unix milliseconds.
        log: told of each new version, and of each broken one once.
        pause: waits for so many seconds between two readings.
    """

    def __init__(
        self,
        path: Path,
        rulebook: RuleBook,
        *,
        adopt: Callable[[RuleBook], None],
        now_ms: Callable[[], int],
        log: FilteringBoundLogger,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._rulebook = rulebook
        self._adopt = adopt
        self._now_ms = now_ms
        self._log = log
        self._pause = pause
        self._state = RulesState(digest=rulebook.digest, read_at_ms=now_ms())
        self._seen: bytes | str | None = None
        self._wanted = asyncio.Event()

    def state(self) -> RulesState:
        """The rules in force, and what is wrong with the file."""
        return self._state

    def soon(self) -> None:
        """Have `run` look at once, for whoever asked for it on SIGHUP."""
        self._wanted.set()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001  nobody would look any more if this ended
                self._log.exception("looking at the rules file went wrong and goes on")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_SECONDS):
                    await self._wanted.wait()
                self._wanted.clear()
                self._log.info("looks at the rules file, as it was told to")

    async def look(self) -> None:
        """Look once; rules change here or not at all."""
        found = await asyncio.to_thread(self._read)
        if found == self._seen:
            return
        await self._pause(SETTLE_SECONDS)
        if await asyncio.to_thread(self._read) != found:
            return
        self._seen = found
        if isinstance(found, str):
            self._keep((found,))
            return
        # the name without its directory: anybody who reaches /readyz may read it
        loaded = await asyncio.to_thread(load_rules, found, source=self._path.name)
        if loaded.rulebook is None:
            self._keep(tuple(one.render().partition("\n")[0] for one in loaded.problems))
            return
        if loaded.rulebook.digest != self._rulebook.digest:
            for warning in loaded.warnings:
                self._log.warning("the rules file", warning=warning.render().partition("\n")[0])
            self._take(loaded.rulebook)
        elif self._state.problems:
            self._log.info("the rules file is as the rules in force again", digest=self._rulebook.digest)
        self._state = replace(self._state, problems=())

    def _read(self) -> bytes | str:
        """The file's content, or why there is none."""
        try:
            return self._path.read_bytes()
        except OSError as error:
            return f"{self._path.name}: cannot be read: {error.strerror}"

    def _keep(self, problems: tuple[str, ...]) -> None:
        self._state = replace(self._state, problems=problems)
        self._log.error(
            "the rules file cannot be used; the rules in force stay",
            problems=list(problems),
            digest=self._rulebook.digest,
        )

    def _take(self, rulebook: RuleBook) -> None:
        difference = rules_change(self._rulebook, rulebook)
        self._adopt(rulebook)
        self._rulebook = rulebook
        self._state = RulesState(digest=rulebook.digest, read_at_ms=self._now_ms())
        self._log.info(
            "new rules are in force",
            digest=rulebook.digest,
            enabled=len(rulebook.enabled),
            added=list(difference.added),
            removed=list(difference.removed),
            changed=list(difference.changed),
        )


def rules_change(old: RuleBook, new: RuleBook) -> RulesChange:
    """What a new version adds, removes and changes, wherever in the file the rules stand."""
    before, after = _by_name(old), _by_name(new)
    return RulesChange(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name, rule in after.items() if name in before and before[name] != rule),
    )


def _by_name(rulebook: RuleBook) -> dict[str, Rule]:
    return {rule.name: replace(rule, line=0) for rule in rulebook.rules}
