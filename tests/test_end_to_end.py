"""A signed event fills a field: through web, Redis and worker processes, with the sandbox as Close."""

from __future__ import annotations

from datetime import date

import pytest
from stack import lively_world, running

from service import jobs, keys
from service.enrichment import ACTIVE_STATES, State
from service.rules import ObjectType, in_sample

BURST = 200
BURST_LATENCY_SECONDS = 0.2


def rules(*lines, settle="0s"):
    head = ["version: 1", f"defaults: {{settle: {settle}, timeout: 20s}}", "rules:"]
    return "\n".join([*head, *(f"  - {{{line}}}" for line in lines)])


INDUSTRY = "name: Industry, object: lead, field: Industry"
EMPLOYEES = "name: Employees, object: lead, field: Employee count"
PITCH = "name: Pitch, object: lead, field: Pitch"

EVERY_TYPE = rules(
    INDUSTRY,
    EMPLOYEES,
    PITCH,
    "name: Founded, object: lead, field: Founded on",
    "name: Markets, object: lead, field: Markets",
    "name: Source, object: lead, field: Source",
    "name: Seniority, object: contact, field: Seniority",
    "name: Language, object: contact, field: Language",
)


def test_a_created_lead_and_its_contact_get_fields_of_every_type(tmp_path):
    with running(tmp_path, rules=EVERY_TYPE, workers=0) as stack:
        # one that starts beside web may have to wait for Close's fields, and put its first jobs off
        stack.start_worker()
        stack.wait_ready("worker")
        lead = stack.add_lead(contacts=[{"name": "Ines Tarnow", "title": "Founder"}])
        (contact_id,) = lead["contact_ids"]
        of_lead = stack.ended(lead["id"], "Industry", "Employees", "Pitch", "Founded", "Markets", "Source")
        of_contact = stack.ended(contact_id, "Seniority", "Language")

        assert {entry.state for entry in (*of_lead.values(), *of_contact.values())} == {State.FILLED}
        assert of_lead["Industry"].value in stack.world.field_named("Industry").choices
        assert isinstance(of_lead["Employees"].value, int)
        assert isinstance(of_lead["Pitch"].value, str)
        assert date.fromisoformat(of_lead["Founded"].value)
        assert set(of_lead["Markets"].value) <= set(stack.world.field_named("Markets").choices)
        for object_id, found in ((lead["id"], of_lead), (contact_id, of_contact)):
            for entry in found.values():
                assert stack.value(object_id, entry.field_name) == entry.value
                assert (entry.confidence, entry.calls, entry.attempts) == ("high", 1, 1)
                assert entry.reasoning
        assert len(stack.calls()) == 8
        assert [fact["state"] for fact in stack.ask(lambda ledger: ledger.story(of_lead["Pitch"].id))] == [
            "calling",
            "filled",
        ]


@pytest.mark.slow
def test_a_burst_of_events_fills_every_field_with_one_call_each_and_leaves_nothing_in_rq(tmp_path):
    world = lively_world(latency_min_seconds=BURST_LATENCY_SECONDS, latency_max_seconds=BURST_LATENCY_SECONDS)
    with running(
        tmp_path, rules=rules(INDUSTRY, EMPLOYEES, PITCH), world=world, workers=2, LOG_LEVEL="warning"
    ) as stack:
        for _ in range(BURST):
            stack.add_lead()

        assert stack.all_ended(total=3 * BURST) == {"filled": 3 * BURST}
        assert (world.calls.requests, world.calls.most_runs_of_a_field) == (3 * BURST, 1)
        assert world.credits == world.options.credits - 3 * BURST
        stack.wait(lambda: not stack.rq_leftovers())
        assert stack.redis.zcard("enrich:active") == 0


SETTLING = rules(
    f"{INDUSTRY}, when: lead.url != ''",
    EMPLOYEES,
    PITCH,
    settle="1s",
)


@pytest.fixture(scope="module")
def settling(tmp_path_factory):
    with running(tmp_path_factory.mktemp("settling"), rules=SETTLING) as stack:
        yield stack


def test_a_web_address_typed_in_after_the_event_is_seen(settling):
    lead = settling.add_lead(url=None)
    settling.entry_when(lead["id"], "Industry", lambda entry: entry.state is State.WAITING)
    settling.change("lead", lead["id"], url="https://late.example")

    assert settling.ended(lead["id"], "Industry")["Industry"].state is State.FILLED


def test_a_condition_that_is_false_after_settling_skips_with_the_reason_and_without_a_call(settling):
    lead = settling.add_lead(url=None)
    entry = settling.ended(lead["id"], "Industry")["Industry"]

    assert entry.state is State.SKIPPED
    assert entry.reason == "the condition is not met"
    assert (entry.calls, settling.calls(lead["id"], "Industry")) == (0, [])


def test_a_field_filled_meanwhile_is_kept_without_a_call(settling):
    pitch = settling.world.field_named("Pitch")
    lead = settling.add_lead(**{pitch.key: "written by a person"})
    entry = settling.ended(lead["id"], "Pitch")["Pitch"]

    assert (entry.state, entry.calls) == (State.KEPT, 0)
    assert settling.calls(lead["id"], "Pitch") == []
    assert settling.value(lead["id"], "Pitch") == "written by a person"


def test_a_record_deleted_meanwhile_is_gone(settling):
    lead = settling.add_lead()
    settling.entry_when(lead["id"], "Pitch", lambda entry: entry.state is State.WAITING)
    settling.in_sandbox(lambda world: world.leads.pop(lead["id"]))

    found = settling.ended(lead["id"], "Industry", "Employees", "Pitch")
    assert {entry.state for entry in found.values()} == {State.GONE}
    assert settling.calls(lead["id"]) == []


def test_the_enrichments_of_a_record_share_one_read(settling):
    # what other tests have begun is over
    settling.wait(lambda: not any(state in settling.counts() for state in ACTIVE_STATES))
    before = settling.world.tally.requests
    lead = settling.add_lead()
    settling.ended(lead["id"], "Industry", "Employees", "Pitch")

    assert settling.world.tally.requests - before == 3 + 1


SEGMENT_AFTER_INDUSTRY = "name: Segment, object: lead, field: Segment, after: [Industry]"
SEGMENT = "name: Segment, object: lead, field: Segment, after: [Industry, Employees]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "industry"),
    [
        pytest.param("", State.FILLED, id="both filled"),
        pytest.param(", when: lead.name == 'nobody'", State.SKIPPED, id="one skipped by the worker"),
    ],
)
def test_a_rule_runs_only_after_the_rules_it_names_have_ended(tmp_path, condition, industry):
    world = lively_world(latency_min_seconds=0.3, latency_max_seconds=0.3)
    with running(
        tmp_path, rules=rules(SEGMENT, INDUSTRY + condition, EMPLOYEES, settle="100ms"), world=world
    ) as stack:
        lead = stack.add_lead()
        found = stack.ended(lead["id"], "Industry", "Employees", "Segment")

        assert {rule: entry.state for rule, entry in found.items()} == {
            "Industry": industry,
            "Employees": State.FILLED,
            "Segment": State.FILLED,
        }
        (segment,) = stack.calls(lead["id"], "Segment")
        earlier = [call for call in stack.calls(lead["id"]) if call is not segment]
        assert max(call.ended_at for call in earlier) <= segment.started_at
        assert found["Segment"].calls == 1


@pytest.mark.slow
def test_a_sample_takes_the_same_records_every_time_and_a_preview_saves_nothing(tmp_path):
    sampled = f"{PITCH}, mode: preview, sample: 40%, on: [created, updated(name)]"
    events = (("lead", "created"), ("lead", "updated"))
    with running(tmp_path, rules=rules(sampled), events=events) as stack:
        leads = [stack.add_lead()["id"] for _ in range(30)]
        chosen = {one for one in leads if in_sample(rule_name="Pitch", object_id=one, share=0.4)}
        assert 0 < len(chosen) < len(leads)
        for one in chosen:
            entry = stack.ended(one, "Pitch")["Pitch"]
            assert (entry.state, stack.value(one, "Pitch")) == (State.PREVIEWED, None)
            assert entry.value
        for one in leads:
            stack.change("lead", one, name="Renamed")
        stack.wait(lambda: len(stack.calls()) == 2 * len(chosen))
        stack.wait(lambda: stack.world.tally.deliveries_succeeded == 2 * len(leads))

        assert {call.object_id for call in stack.calls()} == chosen
        assert {one for one in leads if stack.entries(one)} == chosen


@pytest.mark.slow
def test_an_overwriting_rule_runs_again_when_the_field_it_watches_changes(tmp_path):
    rule = (
        "name: Seniority, object: contact, field: Seniority, on: [created, updated(title)],"
        " mode: overwrite, when: has(contact.title)"
    )
    events = (("contact", "created"), ("contact", "updated"))
    with running(tmp_path, rules=rules(rule), events=events) as stack:
        lead = stack.add_lead(contacts=[{"name": "Ines Tarnow", "title": "Assistant"}])
        (contact_id,) = lead["contact_ids"]
        first = stack.ended(contact_id, "Seniority")["Seniority"]
        other = next(one for one in stack.world.field_named("Seniority").choices if one != first.value)
        key = stack.world.field_named("Seniority").key
        stack.change("contact", contact_id, **{key: other})
        stack.change("contact", contact_id, title="Founder")
        second = stack.entry_when(
            contact_id, "Seniority", lambda entry: entry.state is State.FILLED and entry.calls == 2
        )

        assert stack.value(contact_id, "Seniority") == second.value == first.value
        assert len(stack.calls(contact_id)) == 2


@pytest.mark.slow
def test_high_priority_is_asked_first_and_low_priority_waits_in_the_bulk_queue(tmp_path):
    text = rules(
        f"{PITCH}, priority: low",
        f"{INDUSTRY}, priority: normal",
        f"{EMPLOYEES}, priority: high",
    )
    with running(tmp_path, rules=text, workers=0) as stack:
        # nobody has read the fields yet: without a worker, web reads them itself
        leads = [stack.add_lead()["id"] for _ in range(4)]
        stack.wait(lambda: sum(len(stack.entries(one)) for one in leads) == 12)
        queued = [stack.redis.llen(jobs.queue_key(queue)) for queue in jobs.QUEUES]
        stack.start_worker(WORKER_CONCURRENCY=1)
        stack.all_ended(total=12)

        assert queued == [8, 4]
        asked = [stack.world.fields[call.field_id].name for call in stack.calls()]
        assert asked == ["Employee count"] * 4 + ["Industry"] * 4 + ["Pitch"] * 4


@pytest.mark.slow
def test_a_worker_that_does_not_know_closes_fields_yet_judges_no_condition(tmp_path):
    text = rules(f"{INDUSTRY}, when: lead.url != '', settle: 100ms", SEGMENT_AFTER_INDUSTRY)
    with running(tmp_path, rules=text, workers=0) as stack:
        lead = stack.add_lead()
        stack.wait(lambda: len(stack.entries(lead["id"])) == 2)
        # another process is asking Close for them just now
        stack.redis.delete(keys.schema(ObjectType.LEAD))
        stack.redis.set(keys.schema_asker(ObjectType.LEAD), "1", ex=1)
        stack.start_worker()
        found = stack.ended(lead["id"], "Industry", "Segment")

        assert {entry.state for entry in found.values()} == {State.FILLED}
        (industry,), (segment,) = stack.calls(lead["id"], "Industry"), stack.calls(lead["id"], "Segment")
        assert industry.ended_at <= segment.started_at
