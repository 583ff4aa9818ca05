"""An enrichment's identity, its states, and its ledger entry as Redis holds it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from entries import make_entry
from hypothesis import given
from hypothesis import strategies as st
from rq.job import Job

import service
from service.enrichment import (
    ACTIVE_STATES,
    ALLOWED,
    ENTRY_ID_LENGTH,
    FINAL_STATES,
    NEEDS_A_PERSON,
    STATE_MEANINGS,
    State,
    decode_entry,
    entry_id,
    entry_of_job,
    job_version,
    new_job_id,
)

IDS = {"organization_id": "orga_1", "object_id": "lead_1", "field_id": "cf_1"}
RAW = {
    b"v": b"1",
    b"org": b"orga_1",
    b"type": b"contact",
    b"object": b"cont_1",
    b"lead": b"lead_1",
    b"field": b"cf_1",
    b"name": "Größe".encode(),
    b"rule": b"Size",
    b"mode": b"overwrite",
    b"queue": b"enrich-bulk",
    b"event": b"ev_1",
    b"action": b"updated",
    b"state": b"filled",
    b"reason": b"because",
    b"job": b"abc-1",
    b"fence": b"7",
    b"holder": b"worker-1",
    b"attempts": b"2",
    b"calls": b"3",
    b"failures": b"4",
    b"judged": b"1",
    b"ambiguous": b"1",
    b"blocked": b"1",
    b"before": b'"small"',
    b"planned_ms": b"1",
    b"due_ms": b"2",
    b"changed_ms": b"3",
    b"called_ms": b"4",
    b"ended_ms": b"5",
    b"unreachable_ms": b"6",
    b"retried_ms": b"7",
    b"lost_ms": b"8",
    b"value": b'{"a":[1,null]}',
    b"confidence": b"high",
    b"reasoning": b"it says so",
    b"trace": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


def test_the_same_three_ids_always_name_the_same_entry():
    # the literal guards against a change of the scheme, after which everything would be paid for again
    assert entry_id(**IDS) == entry_id(**IDS) == "adtwxa5ilu6boqscacrx"


@given(st.text(), st.text(), st.text())
def test_an_entry_id_is_twenty_letters_and_digits_whatever_the_ids_are(organization, record, field):
    found = entry_id(organization_id=organization, object_id=record, field_id=field)
    assert re.fullmatch(f"[a-z2-7]{{{ENTRY_ID_LENGTH}}}", found)


@pytest.mark.parametrize("changed", IDS)
def test_another_organization_object_or_field_is_another_entry(changed):
    assert entry_id(**IDS | {changed: "x"}) != entry_id(**IDS)


def test_ids_are_not_run_together():
    one = entry_id(organization_id="a", object_id="bc", field_id="d")
    assert one != entry_id(organization_id="ab", object_id="c", field_id="d")


def test_a_job_id_is_fresh_accepted_by_rq_and_leads_back_to_its_entry(blocking_redis):
    entry = entry_id(**IDS)
    first, second = new_job_id(entry, version=2), new_job_id(entry, version=2)
    assert first != second
    assert entry_of_job(first) == entry_of_job(second) == entry
    assert Job.create("workers.job.run", id=first, connection=blocking_redis).id == first


FORKING = """
import os
from service.enrichment import new_job_id

for _ in range(3):
    child = os.fork()
    if not child:
        print(new_job_id("a" * 20, version=2), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_processes_forked_from_one_make_different_job_ids():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 3


@pytest.mark.parametrize("version", [1, 2, 10, 999_999])
def test_a_job_id_tells_the_version_of_its_entry(version):
    assert job_version(new_job_id(entry_id(**IDS), version=version)) == version


@pytest.mark.parametrize(
    "job_id",
    [
        f"{'a' * 20}-0123456789",
        f"{'a' * 20}-same",
        f"{'a' * 19}-3-01234567",
        f"{'a' * 20}-1234567-01234567",
        f"{'a' * 20}-٣-01234567",
        "5b2f8c1e-0000-4000-8000-000000000000",
        "",
    ],
)
def test_an_id_that_tells_no_version_is_older_than_any(job_id):
    assert job_version(job_id) == 0


def test_every_state_is_active_or_final_has_a_meaning_and_may_go_somewhere():
    assert ACTIVE_STATES | FINAL_STATES == set(State) == set(STATE_MEANINGS) == set(ALLOWED)
    assert not ACTIVE_STATES & FINAL_STATES
    assert all(ALLOWED[state] <= set(State) for state in State)
    assert [state for state in State if state.final] == [state for state in State if state in FINAL_STATES]


def test_every_active_state_can_end_in_any_way_and_a_final_one_only_be_planned_anew():
    assert all(ALLOWED[state] >= FINAL_STATES for state in ACTIVE_STATES)
    assert all(ALLOWED[state] == {State.PLANNED, State.WAITING} for state in FINAL_STATES)


@pytest.mark.parametrize(("name", "states"), [("FINAL", FINAL_STATES), ("NEEDS_A_PERSON", NEEDS_A_PERSON)])
def test_the_scripts_in_redis_know_the_same_states(name, states):
    lua = (Path(service.__file__).parent / "lua" / "entry.lua").read_text()
    table = re.search(rf"local {name} = \{{(.*?)\}}", lua, re.DOTALL)
    assert table is not None
    assert set(re.findall(r"(\w+) = true", table[1])) == {state.value for state in states}


def test_a_full_hash_is_read_whole():
    assert decode_entry("abc", RAW) == make_entry(
        id="abc",
        object_type="contact",
        object_id="cont_1",
        field_name="Größe",
        rule="Size",
        mode="overwrite",
        queue="enrich-bulk",
        action="updated",
        state=State.FILLED,
        reason="because",
        job_id="abc-1",
        fence=7,
        attempts=2,
        calls=3,
        failures=4,
        judged=True,
        ambiguous=True,
        blocked=True,
        value_before='"small"',
        planned_ms=1,
        due_ms=2,
        changed_ms=3,
        called_ms=4,
        ended_ms=5,
        unreachable_ms=6,
        retried_ms=7,
        lost_ms=8,
        value={"a": [1, None]},
        confidence="high",
        reasoning="it says so",
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def test_what_has_not_happened_is_none_zero_or_empty():
    entry = decode_entry("abc", {b"state": b"planned"})
    assert entry is not None
    told = entry.describe()
    assert {name for name, value in told.items() if value is None} == {
        *("lead_id", "value_before", "due_ms", "called_ms", "ended_ms", "unreachable_ms"),
        *("retried_ms", "lost_ms"),
        *("value", "confidence", "reasoning", "trace"),
    }
    assert (entry.fence, entry.attempts, entry.calls, entry.failures, entry.version) == (0, 0, 0, 0, 0)
    assert (entry.judged, entry.ambiguous, entry.blocked) == (False, False, False)


USUAL = {
    b"v": b"2",
    b"object": b"lead_1",
    b"field": b"cf_1",
    b"name": b"Size",
    b"rule": b"Size",
    b"event": b"ev_1",
    b"state": b"planned",
    b"job": b"abc-1",
    b"planned_ms": b"5",
}


@pytest.mark.parametrize(
    ("raw", "facts"),
    [
        ({}, {"organization_id": "orga_1", "object_type": "lead", "lead_id": "lead_1", "action": "created"}),
        ({}, {"mode": "fill", "queue": "enrich", "attempts": 0, "reason": "", "due_ms": 5, "changed_ms": 5}),
        ({b"state": b"waiting"}, {"reason": "lets the record settle", "due_ms": 5}),
        ({b"state": b"waiting", b"reason": b""}, {"reason": ""}),
        ({b"state": b"filled"}, {"reason": "", "due_ms": None}),
        ({b"org": b"orga_2"}, {"organization_id": "orga_2"}),
        ({b"type": b"contact"}, {"object_type": "contact", "lead_id": None}),
        ({b"lead": b"lead_2"}, {"lead_id": "lead_2"}),
        ({b"type": b"lead", b"lead": b""}, {"lead_id": None}),  # as version 1 wrote it
    ],
)
def test_what_a_hash_leaves_out_is_as_usual(raw, facts):
    entry = decode_entry("abc", USUAL | raw, organization_id="orga_1")
    assert entry is not None
    assert {name: getattr(entry, name) for name in facts} == facts


@pytest.mark.parametrize("raw", [{}, {b"fence": b"3"}])
def test_a_hash_without_a_state_is_no_entry(raw):
    assert decode_entry("abc", raw) is None


@pytest.mark.parametrize("value", [b"0", b"false", b'""', b"[]"])
def test_a_value_that_counts_as_false_is_still_a_value(value):
    entry = decode_entry("abc", RAW | {b"value": value})
    assert entry is not None
    assert entry.value is not None


@pytest.mark.parametrize(
    ("name", "garbage", "problem"),
    [
        (b"state", b"lost", "not a valid State"),
        (b"fence", b"many", "invalid literal for int"),
        (b"called_ms", b"1.7e12", "invalid literal for int"),
        (b"name", b"\xff", "invalid start byte"),
        (b"value", b"{", "truncated"),
        (b"value", b"\xff", "malformed"),
        (b"value", b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
    ],
)
def test_a_hash_that_cannot_be_read_is_an_error(name, garbage, problem):
    with pytest.raises(ValueError, match=problem):
        decode_entry("abc", RAW | {name: garbage})


@given(
    st.dictionaries(st.sampled_from(sorted(RAW)), st.binary() | st.integers().map(lambda n: str(n).encode()))
)
def test_any_hash_is_read_or_refused_with_a_value_error(raw):
    try:
        entry = decode_entry("abc", raw)
    except ValueError:
        return
    assert entry is None or entry.state in State


def test_description_tells_every_attribute():
    entry = make_entry(value="Software")
    assert entry.describe() == {name: getattr(entry, name) for name in type(entry).__slots__}


@pytest.mark.parametrize(
    ("action", "event_id", "cause"),
    [("created", "ev_1", "created event ev_1"), ("backfill", "backfill-2026-11", "backfill 2026-11")],
)
def test_what_planned_an_enrichment_is_told_in_words(action, event_id, cause):
    assert make_entry(action=action, event_id=event_id).cause == cause
