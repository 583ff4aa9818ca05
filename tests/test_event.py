"""Close's deliveries become events, or a reason; no bytes make the parser raise."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.event import Event, Unparseable, parse_any_event, parse_event, parse_log_event

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())

REQUIRED = {
    "id": "ev_1",
    "organization_id": "orga_1",
    "object_type": "lead",
    "object_id": "lead_1",
    "action": "created",
}
KEY_RULE = "must have 1 to 200 characters without spaces or control characters"


def body_of(event) -> bytes:
    return json.dumps({"subscription_id": "whsub_1", "event": event}).encode()


def parsed(**changes) -> Event:
    event = parse_event(body_of({**REQUIRED, **changes}))
    assert isinstance(event, Event), event
    return event


def with_data(data: bytes) -> bytes:
    return body_of({**REQUIRED, "data": "HERE"}).replace(b'"HERE"', data)


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_every_sample_is_read_as_what_it_is(name):
    body = (SAMPLES / name).read_bytes()
    wire = json.loads(body)
    event = parse_event(body)
    assert isinstance(event, Event)
    assert event.id == MANIFEST["files"][name]["event_id"]
    assert f"{event.object_type}.{event.action}" == MANIFEST["files"][name]["type"]
    assert event.subscription_id == wire["subscription_id"]
    assert (event.organization_id, event.object_id, event.lead_id) == (
        wire["event"]["organization_id"],
        wire["event"]["object_id"],
        wire["event"]["lead_id"],
    )
    assert list(event.changed_fields) == wire["event"]["changed_fields"]
    assert (event.date_created, event.date_updated) == (
        wire["event"]["date_created"],
        wire["event"]["date_updated"],
    )
    assert event.request_path == wire["event"]["meta"]["request_path"]
    assert event.data() == (wire["event"]["data"] or {})


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_a_log_event_is_the_delivered_one_without_its_subscription(name):
    body = (SAMPLES / name).read_bytes()
    delivered = parse_event(body)
    logged = parse_log_event(json.dumps(json.loads(body)["event"]).encode())
    assert isinstance(delivered, Event)
    assert isinstance(logged, Event)
    assert logged.data() == delivered.data()
    assert structs.replace(logged, subscription_id=delivered.subscription_id, data_json=None) == (
        structs.replace(delivered, data_json=None)
    )


def test_what_names_the_event_is_enough():
    assert parse_log_event(json.dumps(REQUIRED).encode()) == Event(
        **REQUIRED, lead_id=None, date_created="", date_updated=""
    )


def test_null_and_unknown_keys_are_as_good_as_absent_ones():
    optional = ("lead_id", "date_created", "date_updated", "changed_fields", "api_key_id", "meta", "data")
    event = dict.fromkeys(optional) | REQUIRED | {"brand_new": [{"deep": 1}]}
    body = json.dumps({"subscription_id": None, "event": event, "more": 1}).encode()
    assert parse_event(body) == parse_log_event(json.dumps(REQUIRED).encode())


def test_keys_of_meta_may_be_absent_or_unknown():
    assert parsed(meta={"bulk_action_id": 7}).request_path is None


@pytest.mark.parametrize("key", REQUIRED)
def test_an_event_without_what_names_it_is_unparseable(key):
    event = {name: value for name, value in REQUIRED.items() if name != key}
    assert parse_event(body_of(event)) == Unparseable(f"Object missing required field `{key}` - at `$.event`")


@pytest.mark.parametrize("key", [*REQUIRED, "lead_id"])
@pytest.mark.parametrize("value", ["a b", "a\nb", "a\x00", "\x7f", "\u2028", "\u00a0", "x" * 201], ids=ascii)
def test_what_cannot_stand_in_a_key_is_unparseable_and_not_repeated(key, value):
    assert parse_event(body_of({**REQUIRED, key: value})) == Unparseable(f"`{key}` {KEY_RULE}")


@pytest.mark.parametrize("key", REQUIRED)
def test_an_empty_name_is_unparseable(key):
    assert parse_event(body_of({**REQUIRED, key: ""})) == Unparseable(f"`{key}` {KEY_RULE}")


def test_an_empty_lead_id_is_no_lead_id():
    assert parsed(lead_id="").lead_id is None


def test_the_longest_name_is_accepted():
    assert parsed(object_id="x" * 200).object_id == "x" * 200


@pytest.mark.parametrize(
    ("changes", "object_id"),
    [
        ({"lead_id": "lead_b", "meta": {"merge_destination_lead_id": "lead_c"}}, "lead_c"),
        ({"lead_id": "lead_b", "meta": {"request_path": "/"}}, "lead_b"),
        ({"lead_id": "lead_b", "meta": None}, "lead_b"),
        ({"lead_id": None, "meta": {"merge_destination_lead_id": ""}}, "lead_1"),
    ],
)
def test_a_merge_is_about_the_lead_that_survives(changes, object_id):
    event = parsed(action="merged", **changes)
    assert (event.object_id, event.lead_id) == (object_id, object_id)


@pytest.mark.parametrize(("object_type", "action"), [("lead", "deleted"), ("contact", "merged")])
def test_only_a_lead_merged_event_is_about_the_destination(object_type, action):
    meta = {"merge_destination_lead_id": "lead_c"}
    assert parsed(object_type=object_type, action=action, meta=meta).object_id == "lead_1"


def test_a_merge_destination_that_cannot_stand_in_a_key_is_unparseable():
    event = REQUIRED | {"action": "merged", "meta": {"merge_destination_lead_id": "a b"}}
    assert parse_event(body_of(event)) == Unparseable(f"`object_id` {KEY_RULE}")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "Object missing required field `event`"),
        (b'{"event": null}', "Expected `object`, got `null` - at `$.event`"),
        (b'{"event": 5}', "Expected `object`, got `int` - at `$.event`"),
        (body_of(REQUIRED) + b" x", "JSON is malformed"),
        (body_of(REQUIRED).replace(b"ev_1", b"\xff"), "a string is not UTF-8"),
        (body_of(REQUIRED | {"id": "\ud800"}), "JSON is malformed"),
        (body_of(REQUIRED | {"id": 5}), "Expected `str`, got `int` - at `$.event.id`"),
        (
            body_of(REQUIRED | {"id": 0}).replace(b"0", b"9" * 5000),
            "Number out of range - at `$.event.id`",
        ),
        (with_data(b'["\\ud800"]'), "Input data was truncated"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"x": ' + b"[" * 100_000, "nested too deep"),
        (with_data(b"[" * 100_000 + b"]" * 100_000), "nested too deep"),
    ],
    ids=range(15),
)
def test_a_body_that_is_no_event_is_unparseable_with_a_reason(body, reason):
    event = parse_event(body)
    assert isinstance(event, Unparseable)
    assert event.reason.startswith(reason)


def test_a_log_event_that_is_none_is_unparseable_with_a_reason():
    assert parse_log_event(b"[]") == Unparseable("Expected `object`, got `array`")


def test_the_last_of_two_equal_keys_counts():
    body = body_of(REQUIRED).replace(b'"id": "ev_1"', b'"id": "ev_1", "id": "ev_2"')
    event = parse_event(body)
    assert isinstance(event, Event)
    assert event.id == "ev_2"


def test_reasons_repeat_no_value():
    body = b'{"event": {"id": "secret-name \\q", "object_id": ["secret-name"]}}'
    event = parse_event(body)
    assert isinstance(event, Unparseable)
    assert "secret" not in event.reason


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b" null ",
        b"[1]",
        b'"text"',
        b"5",
        b"9" * 400,
        b'{"a": 1e999}',
        b'{"a": "\xff"}',
    ],
)
def test_data_that_is_no_readable_object_is_empty(data):
    event = parse_event(with_data(data))
    assert isinstance(event, Event)
    assert event.data() == {}


def test_data_is_decoded_when_asked_for():
    event = parse_event(with_data(b'{"name": "Caf\\u00e9", "custom.cf_1": [1, 2.5, null]}'))
    assert isinstance(event, Event)
    assert event.data() == {"name": "Café", "custom.cf_1": [1, 2.5, None]}


def test_data_nested_too_deep_to_decode_is_empty():
    depth = sys.getrecursionlimit() + 100
    event = structs.replace(parsed(), data_json=b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
    assert event.data() == {}


def test_data_never_shows_in_a_repr():
    assert "Ada" not in repr(parsed(data={"name": "Ada"}))


@pytest.mark.parametrize(
    ("api_key_id", "request_path", "own"),
    [
        ("api_ours", "/api/v1/lead/", True),
        ("api_theirs", "/api/v1/enrich_field/", True),
        (None, "/api/v1/enrich_field/", True),
        ("api_theirs", "/api/v1/lead/", False),
        ("api_theirs", None, False),
        (None, "/api/v1/enrich_field/more", False),
    ],
)
def test_our_own_writes_are_known_by_key_or_path(api_key_id, request_path, own):
    event = parsed(api_key_id=api_key_id, meta={"request_path": request_path})
    assert event.own_write("api_ours") is own


def test_an_event_without_a_key_is_not_ours_just_because_our_key_is_unknown():
    assert parsed(api_key_id=None).own_write(None) is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=12,
)
NEARLY_AN_EVENT = st.fixed_dictionaries(
    {key: st.just(value) | JSON for key, value in REQUIRED.items()},
    optional=dict.fromkeys(
        ("lead_id", "date_created", "changed_fields", "api_key_id", "meta", "data", "previous_data"), JSON
    ),
)


@given(st.binary())
def test_any_bytes_are_an_event_or_a_reason(body):
    assert isinstance(parse_event(body), Event | Unparseable)
    assert isinstance(parse_log_event(body), Event | Unparseable)


@given(JSON | st.fixed_dictionaries({"event": JSON | NEARLY_AN_EVENT, "subscription_id": JSON}))
def test_any_json_is_an_event_or_a_reason(document):
    event = parse_event(json.dumps(document).encode())
    if isinstance(event, Event):
        assert isinstance(event.data(), dict)
    else:
        assert event.reason


def test_what_people_paste_is_a_delivery_or_an_event_by_itself():
    event = {"id": "ev_1", "organization_id": "orga_1", "object_type": "lead", "object_id": "lead_1"}
    event |= {
        "action": "created",
        "date_created": "2026-10-14T09:30:12",
        "date_updated": "2026-10-14T09:30:12",
    }
    bare, delivery = json.dumps(event).encode(), json.dumps({"event": event}).encode()
    assert parse_any_event(bare) == parse_log_event(bare)
    assert parse_any_event(delivery) == parse_event(delivery)
    assert isinstance(parse_any_event(bare), Event)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON; expected a webhook's body"),
        (b"[1]", "not an event of Close: "),
        (b'{"event": 1}', "not an event of Close: "),
    ],
)
def test_what_people_paste_otherwise_is_told_in_a_sentence(body, reason):
    found = parse_any_event(body)
    assert isinstance(found, Unparseable)
    assert found.reason.startswith(reason)
