"""What `doctor` makes of what it has looked at: one finding for each check, with what to do about it. Pure.

What Close says is judged in `workers.doctor`, what the public address answers in `service.doctor_address`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.alerts import Observation
    from service.rules_file import LoadedRules

OLDEST_SECONDS = 300
SILENT_SECONDS = 45
"""A worker's heartbeat reaches RQ every 15 seconds."""

_WHOLE_RATE = 10
"""From so many calls a second on, tenths tell nothing."""


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        state: whether somebody has to do something.
        finding: what is so, in a line without secrets.
        fix: what to do about it; "" where there is nothing to do.
    """

    check: str
    state: State
    finding: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker that RQ believes alive.

    Attributes:
        name: as `rq info` lists it.
        host: where it runs; "" if it does not say.
        silent_seconds: since its last heartbeat; None if that cannot be read.
    """

    name: str
    host: str
    silent_seconds: float | None


def settings_finding(warnings: Sequence[str]) -> Finding:
    """Settings that can be read; those that look misspelt are named."""
    check = "settings"
    if warnings:
        return Finding(
            check=check, state=State.WARNING, finding="; ".join(warnings), fix="correct the name, or unset it"
        )
    return Finding(check=check, state=State.OK, finding="all can be read")


def redis_finding(
    *, name: str, version: str, problems: Sequence[str], notes: Sequence[str], readable: bool
) -> Finding:
    """What a look at Redis's health found; see `service.redis_health`."""
    what = f"{name} {version}".strip()
    if problems:
        return Finding(
            check="Redis",
            state=State.PROBLEM,
            finding=f"{what}: {'; '.join(problems)}",
            fix="what Redis forgets, nobody remembers: see Settings in the README",
        )
    state = State.OK if readable else State.WARNING
    return Finding(
        check="Redis",
        state=state,
        finding=f"{what}: {'; '.join(notes) or 'keeps what it is given'}",
        fix="" if readable else "let our user run INFO and CONFIG GET, or ask whoever runs it",
    )


def rules_file_finding(loaded: LoadedRules | str) -> Finding:
    """The rules file by itself.

    Args:
        loaded: what it says, or why it cannot be read.
    """
    check, fix = "rules file", "close-enrich rules check shows each place"
    if isinstance(loaded, str):
        return Finding(check=check, state=State.PROBLEM, finding=loaded, fix="set RULES_FILE to its path")
    if loaded.rulebook is None:
        lines = [one.render().partition("\n")[0] for one in loaded.problems]
        return Finding(check=check, state=State.PROBLEM, finding=_first(lines), fix=fix)
    if not loaded.rulebook.enabled:
        return Finding(
            check=check,
            state=State.PROBLEM,
            finding="no rule is enabled, so no event would lead to anything",
            fix="add a rule, or enable one",
        )
    if loaded.warnings:
        lines = [one.render().partition("\n")[0] for one in loaded.warnings]
        return Finding(check=check, state=State.WARNING, finding=_first(lines), fix=fix)
    total, enabled = len(loaded.rulebook.rules), len(loaded.rulebook.enabled)
    return Finding(check=check, state=State.OK, finding=f"{enabled} of {total} rules enabled, no mistakes")


def in_force_finding(
    *, processes: int, problem: str, difference: str, digests: Sequence[str], here: str | None
) -> Finding:
    """Which rules the running processes work by.

    Args:
        processes: how many have said so.
        problem: who cannot use its rules file, and why; "" for nobody.
        difference: who runs other rules than the rest; "" for nobody.
        digests: the versions that are in force.
        here: the version of the rules file here; None where it cannot be used.
    """
    check = "rules in force"
    if problem:
        return Finding(
            check=check, state=State.PROBLEM, finding=problem, fix="mend the file: it is read by itself"
        )
    if not processes:
        return Finding(
            check=check,
            state=State.NOT_CHECKED,
            finding="no running process says which rules it works by",
            fix="start close-enrich web and close-enrich worker",
        )
    if difference:
        fix = "give them the same rules file; each reads it by itself within seconds"
        return Finding(check=check, state=State.WARNING, finding=difference, fix=fix)
    if here is not None and here not in digests:
        return Finding(
            check=check,
            state=State.WARNING,
            finding="the running processes work by other rules than the file here",
            fix="see that RULES_FILE names the same file for all",
        )
    return Finding(
        check=check,
        state=State.OK,
        finding=f"the same for all of {_count(processes, 'process', 'processes')}",
    )


def workers_finding(seen: Sequence[WorkerSeen]) -> Finding:
    """Whether anybody works."""
    if not seen:
        return Finding(
            check="workers",
            state=State.PROBLEM,
            finding="none is alive: what is accepted waits",
            fix="start close-enrich worker",
        )
    silent = [one for one in seen if (one.silent_seconds or 0) > SILENT_SECONDS]
    if silent:
        names = ", ".join(f"{one.name} on {one.host or 'an unknown host'}" for one in silent)
        longest = span(max(one.silent_seconds or 0 for one in silent))
        return Finding(
            check="workers",
            state=State.WARNING,
            finding=f"{len(silent)} of {len(seen)} silent for up to {longest}: {names}",
            fix="look at its log; if it is gone, another one takes over what it had in hand",
        )
    heard = [one.silent_seconds for one in seen if one.silent_seconds is not None]
    last = f", last heard {max(0, round(min(heard)))} s ago" if heard else ""
    hosts = sorted({one.host for one in seen if one.host})
    where = f" on {', '.join(hosts)}" if hosts else ""
    return Finding(check="workers", state=State.OK, finding=f"{len(seen)} alive{where}{last}")


def work_findings(seen: Observation) -> list[Finding]:
    """What keeps work from being done, and what waits for a person."""
    fields = ", ".join(one.field_name for one in seen.broken)
    used_up = "; ".join(one.words for one in seen.used_up)
    return [
        _halt(seen),
        _oldest(seen),
        _waits_for_person(
            "budgets", f"used up: {used_up}" if seen.used_up else "", "credits are left", "close-enrich cost"
        ),
        _waits_for_person(
            "burst guard",
            f"holds {_count(seen.held, 'enrichment')}, at most as many credits" if seen.held else "",
            "holds nothing",
            "close-enrich release shows the price and asks",
        ),
        _waits_for_person(
            "timeouts",
            f"not called, because calls keep timing out: {fields}" if seen.broken else "",
            "no field keeps timing out",
            "simplify the field's guidance in Close",
        ),
        _waits_for_person(
            "dead letters",
            f"{_count(seen.dead_letters, 'enrichment')} ended without an answer" if seen.dead_letters else "",
            "none",
            "close-enrich dead list",
        ),
        _waits_for_person(
            "quarantine",
            f"{_count(seen.quarantined, 'delivery', 'deliveries')} could not be read"
            if seen.quarantined
            else "",
            "empty",
            "close-enrich quarantine list",
        ),
    ]


def pace_finding(*, rate_per_second: float | None, limit: float | None, parked_seconds: float) -> Finding:
    """How fast Close lets us call.

    Args:
        rate_per_second: as learned; None where nothing is known yet.
        limit: the most calls that Close lets go at once, by its own word; None where it is not known.
        parked_seconds: how long no call leaves, because Close said so.
    """
    parked = f"; no call for {parked_seconds:.0f} s more, Close said so" if parked_seconds > 0 else ""
    if rate_per_second is None:
        return Finding(check="pace", state=State.OK, finding=f"nothing learned from Close yet{parked}")
    rate = f"{rate_per_second:.0f}" if rate_per_second >= _WHOLE_RATE else f"{rate_per_second:.1f}"
    most = "" if limit is None else f" (its limit: {limit:g})"
    return Finding(check="pace", state=State.OK, finding=f"about {rate} calls a second{most}{parked}")


def _halt(seen: Observation) -> Finding:
    if seen.halt is None:
        return Finding(check="halt", state=State.OK, finding="calls may leave")
    since = span((seen.now_ms - seen.halt.since_ms) / 1000)
    whose = "a person" if seen.halt.by_person else "itself"
    return Finding(
        check="halt",
        state=State.WARNING if seen.halt.by_person else State.PROBLEM,
        finding=f"all calls are halted by {whose} for {since}: {seen.halt.reason}",
        fix="close-enrich resume" if seen.halt.by_person else "mend the cause, then close-enrich resume",
    )


def _oldest(seen: Observation) -> Finding:
    check = "waiting work"
    if seen.oldest_due_ms is None:
        return Finding(check=check, state=State.OK, finding="nothing waits that could run")
    seconds = (seen.now_ms - seen.oldest_due_ms) / 1000
    words = f"the oldest could have run {span(seconds)} ago"
    if seconds <= OLDEST_SECONDS:
        return Finding(check=check, state=State.OK, finding=words)
    return Finding(
        check=check, state=State.WARNING, finding=words, fix="start more workers, or look at Close's pace"
    )


def _waits_for_person(check: str, what: str, nothing: str, fix: str) -> Finding:
    if what:
        return Finding(check=check, state=State.WARNING, finding=what, fix=fix)
    return Finding(check=check, state=State.OK, finding=nothing)


def span(seconds: float) -> str:
    """A length of time as people say it: `40 s`, `12 min`, `3 h`, `5 days`."""
    whole = max(0, round(seconds))
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def _first(lines: Sequence[str]) -> str:
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
