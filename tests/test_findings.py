"""What is wrong between ledger, indexes and RQ, told from plain facts."""

from __future__ import annotations

import pytest

from service.enrichment import ACTIVE_STATES, ENTRY_VERSION, FINAL_STATES, RETENTION_SECONDS, State
from service.findings import (
    KIND_MEANINGS,
    MOST_EXAMPLES,
    EntryFacts,
    JobFacts,
    Kind,
    Report,
    entry_problem,
    job_problem,
    wrong_counts,
)

NOW_MS = 1_791_970_212_000
LATER = NOW_MS + 1000
EARLIER = NOW_MS - 1000
JOB = "a" * 20 + "-" + "0" * 10


def facts(state, **changes):
    return EntryFacts(state=state, now_ms=NOW_MS, **changes)


@pytest.mark.parametrize("state", sorted(ACTIVE_STATES))
@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"active_ms": LATER}, None),
        ({"active_ms": EARLIER}, None),
        ({"active_ms": LATER, "has_job": False}, Kind.NO_JOB),
        ({"active_ms": LATER, "has_job": False, "holder": "w"}, None),
        ({"active_ms": EARLIER, "holder": "w"}, Kind.WORKER_LOST),
        ({"active_ms": NOW_MS, "holder": "w", "has_job": False}, Kind.WORKER_LOST),
        ({}, Kind.UNWATCHED),
        ({"holder": "w"}, Kind.UNWATCHED),
        ({"held_ms": EARLIER, "has_job": False}, None),
        ({"active_ms": LATER, "attention_ms": EARLIER}, Kind.MISINDEXED),
        ({"active_ms": LATER, "has_job": False, "version": ENTRY_VERSION + 1}, None),
    ],
)
def test_an_unfinished_entry_needs_a_job_or_a_live_worker_or_a_person(state, changes, kind):
    assert entry_problem(facts(state, **changes)) is kind


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
@pytest.mark.parametrize("index", ["active_ms", "held_ms"])
def test_a_finished_entry_is_in_no_index_of_unfinished_ones(state, index):
    listed = EARLIER if state in {"dead", "held", "rejected"} else None
    assert entry_problem(facts(state, ended_ms=EARLIER, attention_ms=listed)) is None
    assert entry_problem(facts(state, ended_ms=EARLIER, attention_ms=listed, **{index: 1})) is Kind.MISINDEXED


@pytest.mark.parametrize(
    ("state", "dropped_ms", "listed", "right"),
    [
        (State.DEAD, None, True, True),
        (State.DEAD, None, False, False),
        (State.HELD, NOW_MS, False, True),
        (State.HELD, NOW_MS, True, False),
        (State.REJECTED, EARLIER - 1, True, True),
        (State.FILLED, None, True, False),
        (State.FILLED, None, False, True),
    ],
)
def test_dead_letters_are_listed_until_they_are_dropped(state, dropped_ms, listed, right):
    found = entry_problem(
        facts(state, ended_ms=EARLIER, dropped_ms=dropped_ms, attention_ms=EARLIER if listed else None)
    )
    assert found is (None if right else Kind.MISINDEXED)


def test_a_dead_letter_that_never_ended_is_not_listed():
    assert entry_problem(facts(State.DEAD)) is None


def test_an_unheard_of_state_is_for_a_person():
    assert entry_problem(facts("sleeping")) is Kind.UNREADABLE


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"active_ms": LATER}, Kind.ORPHAN),
        ({"held_ms": EARLIER}, Kind.ORPHAN),
        ({"attention_ms": EARLIER}, Kind.ORPHAN),
        ({"attention_ms": NOW_MS - RETENTION_SECONDS * 1000}, None),
        ({}, None),
    ],
)
def test_an_id_without_an_entry_is_an_orphan_unless_the_entry_has_just_expired(changes, kind):
    assert entry_problem(facts(None, **changes)) is kind


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"entry_state": "waiting", "entry_job": JOB}, None),
        ({"entry_state": "waiting", "entry_job": "another"}, Kind.JOB_STALE),
        ({"entry_state": "filled", "entry_job": JOB}, Kind.JOB_STALE),
        ({}, Kind.JOB_WITHOUT_ENTRY),
        ({"present": False}, None),
        ({"job_id": "6b1b2c9e-3c5b-4c0e"}, Kind.JOB_FOREIGN),
    ],
)
def test_a_job_delivers_an_entry_that_waits_for_it(changes, kind):
    assert job_problem(JobFacts(**{"job_id": JOB, **changes})) is kind


@pytest.mark.parametrize(
    ("counted", "actual", "changes", "missing"),
    [
        ({"planned": 3}, {"planned": 3}, 0, {}),
        ({"planned": 3}, {"planned": 2}, 0, {"planned": -1}),
        ({"waiting": -1}, {}, 0, {"waiting": 1}),
        ({"planned": 3}, {"planned": 1}, 1, {}),
        ({"planned": 4}, {"planned": 1}, 1, {"planned": -3}),
        ({"filled": 9}, {"filled": 2}, 0, {}),
        ({"filled": 1}, {"filled": 2}, 0, {"filled": 1}),
        ({}, {"sleeping": 5}, 0, {}),
    ],
)
def test_a_count_is_wrong_only_where_nothing_else_explains_it(counted, actual, changes, missing):
    assert wrong_counts(counted=counted, actual=actual, changes=changes) == missing


def test_a_report_counts_all_and_names_a_few():
    report = Report()
    for number in range(MOST_EXAMPLES + 5):
        report.note(Kind.ORPHAN, str(number), repaired=number % 2 == 0)
    assert (report.found[Kind.ORPHAN], report.repaired[Kind.ORPHAN], report.left) == (15, 8, 7)
    assert report.examples == {Kind.ORPHAN: [str(number) for number in range(MOST_EXAMPLES)]}


def test_every_kind_has_words():
    assert set(KIND_MEANINGS) == set(Kind)
