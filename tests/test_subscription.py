"""What to do about subscriptions: one step that leads to what is wanted, whatever Close lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiver_box import rulebook

from workers.subscription import (
    Change,
    Create,
    Failed,
    Interest,
    Keep,
    Nothing,
    Rotation,
    Subscription,
    Wanted,
    decide,
    filtered,
    needed_events,
    rotated,
    rotation,
    rotation_of,
    same_receiver,
    subscription_of,
)
from workers.webhook_reply import named_in, read_key, read_subscription

RESPONSES = Path(__file__).parent / "responses"
URL = "https://enrich.example/webhooks/close"
ELSEWHERE = "https://other.example/webhooks/close"
LEAD = Interest(object_type="lead", action="created")
CONTACT = Interest(object_type="contact", action="created")
UPDATED = Interest(object_type="lead", action="updated")
NARROW = replace(LEAD, extra_filter={"type": "field_accessor"})
WANTED = Wanted(url=URL, events=(CONTACT, LEAD))


def sub(name="a", **more):
    return Subscription(id=f"whsub_{name}", **{"url": URL, "events": (LEAD, CONTACT), **more})


PAUSED = sub(status="paused")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        pytest.param([], Create(url=URL, events=(CONTACT, LEAD)), id="none yet"),
        pytest.param([sub(url=ELSEWHERE)], Create(url=URL, events=(CONTACT, LEAD)), id="only others'"),
        pytest.param([sub()], Keep(subscription=sub()), id="as it should be"),
        pytest.param(
            [sub("b", url=ELSEWHERE), sub()], Keep(subscription=sub()), id="as it should be, beside another"
        ),
        pytest.param(
            [sub(events=(LEAD, UPDATED, CONTACT))],
            Keep(subscription=sub(events=(LEAD, UPDATED, CONTACT))),
            id="more than is needed",
        ),
        pytest.param(
            [sub(events=(NARROW, CONTACT))], Keep(subscription=sub(events=(NARROW, CONTACT))), id="filtered"
        ),
        pytest.param([sub(failing_buckets=3)], Keep(subscription=sub(failing_buckets=3)), id="failing"),
        pytest.param(
            [sub(events=(NARROW,))],
            Change(
                subscription=sub(events=(NARROW,)),
                changes={"events": [NARROW.wire(), CONTACT.wire()]},
                why=("it does not deliver contact.created",),
                reactivates=False,
            ),
            id="too little",
        ),
        pytest.param(
            [PAUSED],
            Change(
                subscription=PAUSED, changes={"status": "active"}, why=("it is paused",), reactivates=True
            ),
            id="paused",
        ),
        pytest.param(
            [sub(status="asleep", events=())],
            Change(
                subscription=sub(status="asleep", events=()),
                changes={"events": [CONTACT.wire(), LEAD.wire()], "status": "active"},
                why=("it does not deliver contact.created, lead.created", "it is paused"),
                reactivates=True,
            ),
            id="in a state Close has invented since, and empty",
        ),
        pytest.param([PAUSED, sub("b")], Keep(subscription=sub("b")), id="a paused one beside an active one"),
        pytest.param(
            [sub("a", events=(LEAD,)), sub("b")], Keep(subscription=sub("b")), id="the one that brings more"
        ),
        pytest.param(
            [sub("b", created="2026-01-01T00:00:00"), sub("a", created="2026-01-02T00:00:00")],
            Keep(subscription=sub("a", created="2026-01-02T00:00:00")),
            id="the newer one",
        ),
        pytest.param(
            [sub(), sub("b", url=rotated(URL, 2)), sub("c", url=rotated(URL, 1))],
            Keep(subscription=sub("b", url=rotated(URL, 2))),
            id="the one of the newest rotation",
        ),
    ],
)
def test_one_step_leads_to_what_is_wanted(listed, expected):
    assert decide(listed, WANTED) == expected
    assert decide(listed[::-1], WANTED) == expected


def test_our_own_subscription_follows_the_receiver_to_a_new_address():
    wanted = replace(WANTED, ours=frozenset({"whsub_a"}))
    old = sub(url=rotated(ELSEWHERE, 3))
    step = decide([old, sub("b", url=ELSEWHERE)], wanted)

    assert isinstance(step, Change)
    assert step.subscription == old
    assert step.changes == {"url": rotated(URL, 3)}
    assert step.why == ("it delivers to another address",)


def test_what_a_person_has_paused_stays_paused():
    wanted = replace(WANTED, left_paused={"whsub_a"})

    assert decide([PAUSED], wanted) == Keep(subscription=PAUSED, left_paused=True)
    assert decide([sub()], wanted) == Keep(subscription=sub())


def test_without_rules_there_is_nothing_to_subscribe_to():
    assert decide([sub()], replace(WANTED, events=())) == Nothing()


def test_the_events_are_those_of_enabled_rules_each_once():
    rules = rulebook(
        """
        version: 1
        rules:
          - {name: A, object: lead, field: A, on: [created, merged, updated(url)]}
          - {name: B, object: lead, field: B, on: [created]}
          - {name: C, object: contact, field: C}
          - {name: D, object: contact, field: D, on: [updated(title)], enabled: false}
        """
    )
    names = [one.name for one in needed_events(rules)]
    assert names == ["contact.created", "lead.created", "lead.merged", "lead.updated"]


# reading what Close shows


def test_recorded_subscriptions_are_read():
    made = json.loads((RESPONSES / "webhook.create.json").read_text())
    (listed,) = json.loads((RESPONSES / "webhook.list.json").read_text())["data"]

    assert read_subscription(made) == Subscription(
        id="whsub_Iq5EjgdHbwzMUCTTH3gXHR",
        url="https://enrich.example/hooks/close",
        events=(LEAD,),
        created="2026-10-14T09:12:09.590432",
    )
    read = read_subscription(listed)
    assert read.delivered == 2
    assert read.failed == Failed(at="2026-10-14T09:30:13.029833+00:00", how="503")
    assert read.succeeded_at == "2026-10-14T09:31:14.252986+00:00"
    assert read_key(made).key.hex() == made["signature_key"]
    assert read_key(listed) is None
    assert made["signature_key"] not in repr((read_subscription(made), read_key(made)))


@pytest.mark.parametrize("text", ["", "xyz", 5, None])
def test_what_is_no_key_is_none(text):
    assert read_key({"signature_key": text}) is None


@pytest.mark.parametrize(
    "shown", [None, [], "whsub_a", {}, {"id": "whsub_a"}, {"id": 5, "url": URL}, {"id": "x/../y", "url": URL}]
)
def test_what_is_no_subscription_is_none(shown):
    assert read_subscription(shown) is None


def test_attributes_of_another_type_or_name_are_tolerated():
    shown = {
        "id": "whsub_a",
        "url": URL,
        "events": [None, {"object_type": 1}, {**LEAD.wire(), "extra_filter": "odd", "new": 1}],
        "counters": [],
        "status": None,
        "date_created": 7,
        "recent_consecutive_fail_buckets_cnt": "many",
        "event_filter": {},
        "history": {"errors": [7, {"datetime": None}], "successes": {}},
    }
    read = read_subscription(shown)
    assert read == Subscription(id="whsub_a", url=URL, status="None", events=(LEAD,))
    assert not read.active
    assert read_subscription({**shown, "events": {}}).events == ()


@pytest.mark.parametrize(
    ("attempt", "how"),
    [
        ({"response_status_code": 404, "error": "HTTPError"}, "404"),
        ({"response_status_code": None, "error": "ConnectTimeout"}, "ConnectTimeout"),
        ({}, "no answer"),
    ],
)
def test_the_newest_failure_counts_whatever_their_order(attempt, how):
    older = {"datetime": "2026-10-14T09:30:13+00:00", "response_status_code": 500}
    newer = {"datetime": "2026-10-14T10:00:00+00:00", **attempt}
    for errors in ([older, newer], [newer, older]):
        read = read_subscription({"id": "whsub_a", "url": URL, "history": {"errors": errors}})
        assert read.failed == Failed(at=newer["datetime"], how=how)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
attributes = st.sampled_from(
    ["id", "url", "status", "events", "counters", "date_created", "recent_consecutive_fail_buckets_cnt"]
)


@given(st.dictionaries(attributes, json_values | st.just("whsub_a")))
def test_nothing_that_close_might_show_is_raised(shown):
    read = read_subscription(shown)
    assert read is None or decide([read], WANTED) is not None


subscriptions = st.lists(
    st.builds(
        Subscription,
        id=st.from_regex(r"whsub_[a-z]{1,3}", fullmatch=True),
        url=st.sampled_from([URL, ELSEWHERE, rotated(URL, 1), rotated(ELSEWHERE, 2)]),
        status=st.sampled_from(["active", "paused", "odd"]),
        events=st.lists(st.sampled_from([LEAD, CONTACT, UPDATED, NARROW]), max_size=4).map(tuple),
    ),
    max_size=5,
    unique_by=lambda one: one.id,
)


@given(subscriptions, st.sets(st.sampled_from([LEAD, CONTACT, UPDATED]), min_size=1), st.booleans())
def test_after_the_step_nothing_is_left_to_do(listed, events, known):
    wanted = Wanted(url=URL, events=tuple(events), ours={one.id for one in listed if known})
    step = decide(listed, wanted)
    if isinstance(step, Create):
        after = [*listed, sub("new", url=step.url, events=step.events)]
    elif isinstance(step, Change):
        was = step.subscription
        events_now = tuple(Interest(**one) for one in step.changes.get("events", ())) or was.events
        now = replace(
            was,
            url=step.changes.get("url", was.url),
            events=events_now,
            status=step.changes.get("status", was.status),
        )
        assert all(one in now.events for one in was.events)
        after = [one for one in listed if one != was] + [now]
    else:
        after = listed
    done = decide(after, wanted)
    assert isinstance(done, Keep)
    assert done.subscription.active
    assert {one.name for one in wanted.events} <= {one.name for one in done.subscription.events}


# addresses


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (URL, URL, True),
        (URL, "https://ENRICH.example:443/webhooks/close", True),
        (URL, rotated(URL, 4), True),
        (URL, URL + "/", False),
        (URL, URL + "?x=1", False),
        (URL, URL.replace("https", "http"), False),
        (URL, "https://enrich.example:99999/webhooks/close", False),
        ("https://[", "https://[", True),
    ],
)
def test_a_receiver_is_known_by_its_address_whatever_the_rotation(one, other, same):
    assert same_receiver(one, other) is same


@pytest.mark.parametrize(
    ("url", "number"),
    [
        (URL, 0),
        (rotated(URL, 0), 0),
        (rotated(URL, 12), 12),
        (URL + "?rotation=x", 0),
        (URL + "?rotation=1&rotation=2", 2),
        ("https://[", 0),
    ],
)
def test_the_rotation_is_read_off_the_address(url, number):
    assert rotation_of(url) == number


def test_a_receivers_subscription_is_found():
    assert subscription_of([sub(url=ELSEWHERE)], url=URL) is None
    assert subscription_of([sub(url=ELSEWHERE)], url=URL, ours={"whsub_a"}) == sub(url=ELSEWHERE)


# rotation


NEW = sub("new", url=rotated(URL, 1))


@pytest.mark.parametrize(
    ("new", "ready"),
    [
        pytest.param(replace(NEW, delivered=1), True, id="delivered"),
        pytest.param(NEW, False, id="nothing delivered yet"),
        pytest.param(replace(NEW, delivered=1, status="paused"), False, id="paused"),
        pytest.param(replace(NEW, delivered=1, events=(LEAD,)), False, id="brings less"),
    ],
)
def test_the_old_one_can_go_once_the_new_one_has_delivered_as_much(new, ready):
    under_way = rotation([sub(), new, sub("x", url=ELSEWHERE)], url=URL)

    assert under_way == Rotation(new=new, old=(sub(),))
    assert under_way.ready is ready


@pytest.mark.parametrize("listed", [[], [sub()], [sub(), sub("b")], [NEW], [sub(url=ELSEWHERE)]])
def test_without_a_newer_rotation_none_is_under_way(listed):
    assert rotation(listed, url=URL) is None


def test_an_event_that_only_comes_filtered_is_named():
    assert filtered(sub(events=(NARROW, CONTACT)), WANTED.events) == ("lead.created",)
    assert filtered(sub(events=(NARROW, LEAD, CONTACT)), WANTED.events) == ()


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        (["Duplicate active subscription: whsub_Iq5EjgdHbwzMUCTTH3gXHR."], "whsub_Iq5EjgdHbwzMUCTTH3gXHR"),
        (["other", "events: same as 'whsub_x'"], "whsub_x"),
        (["You have reached the limit of 40 webhook subscriptions."], None),
        ([], None),
    ],
)
def test_the_subscription_that_an_error_names_is_found(messages, named):
    assert named_in(messages) == named
