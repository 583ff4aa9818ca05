"""The receiver's answers: every kind of delivery gets the status and the words its type demands."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis.asyncio
from receiver_box import (
    KEY,
    MANIFEST,
    ORGANIZATION,
    OWN_API_KEY_ID,
    SAMPLES,
    TIMESTAMP,
    Receiver,
    captured_log,
    forget,
    rulebook,
    sample,
    sample_event,
    save_schemas,
    signed,
)

from service import jobs, keys
from service.enrichment import entry_id
from service.quarantine import list_quarantined

OTHER_KEY, THIRD_KEY = "ab" * 32, "cd" * 32


@pytest.fixture(scope="module")
def shared_receiver(redis_server):
    save_schemas(redis_server.url)
    with Receiver(redis_server.url) as running:
        yield running


@pytest.fixture
def receiver(shared_receiver, redis_server):
    """A receiver that knows Close's fields and has taken nothing yet."""
    forget(redis_server.url)
    return shared_receiver


@pytest.fixture
def store(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def kept(store) -> set[bytes]:
    """What Redis has, without what every receiver counts and alerts of in its own time."""
    of_itself = (keys.METRICS, keys.minute(0).removesuffix("0"), keys.ALERTER, keys.ALERTS)
    return {key for key in store.scan_iter() if not key.startswith(tuple(map(str.encode, of_itself)))}


def manifest_headers(name: str) -> dict[str, str]:
    """The headers of a sample, with the hash as it was published and not as we compute it."""
    facts = MANIFEST["files"][name]
    return {
        "Content-Type": "application/json",
        "Close-Sig-Hash": facts["close_sig_hash"],
        "Close-Sig-Timestamp": facts["close_sig_timestamp"],
    }


NOT_WON = [{"rule": "Segment", "reason": "the condition is not met"}]

ANSWERS = {
    "01_lead.created.bare.json": (202, ["Pitch", "Size"], NOT_WON),
    "02_lead.created.full.json": (202, ["Pitch", "Size"], NOT_WON),
    "04_contact.created.json": (202, ["Seniority"], []),
    "05_lead.updated.changed_fields.json": (202, ["Pitch"], []),
    "06_lead.updated.contact-added.json": (200, "no rule for lead.updated with these changed fields", None),
    "07_lead.updated.self-enrichment.json": (200, "the update is our own write", None),
    "08_lead.merged.json": (202, ["Pitch"], []),
    "10_lead.deleted.json": (200, "no rule for lead.deleted: what is deleted has no fields to fill", None),
    "11a_lead.created.unicode.escaped.json": (202, ["Pitch", "Size"], NOT_WON),
    "12_lead.created.large-200k.json": (202, ["Pitch", "Size"], NOT_WON),
}


def test_the_table_has_every_sample():
    assert set(ANSWERS) == set(MANIFEST["files"])


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_every_sample_is_answered_as_its_type_demands(receiver, name):
    status, outcome, skipped = ANSWERS[name]
    facts = MANIFEST["files"][name]
    answer = receiver.post((SAMPLES / name).read_bytes(), manifest_headers(name))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    named = {"event": facts["event_id"], "type": facts["type"]}
    if status == 200:
        assert answer.body == {**named, "status": "ignored", "reason": outcome}
        return
    event = json.loads((SAMPLES / name).read_bytes())["event"]
    planned = [
        {
            "rule": rule,
            "enrichment": entry_id(
                organization_id=ORGANIZATION, object_id=event["object_id"], field_id=f"cf_{rule.lower()}"
            ),
            "result": "planned",
        }
        for rule in outcome
    ]
    assert answer.body == {**named, "status": "accepted", "planned": planned, "skipped": skipped}


def flipped(text: bytes, bit: int) -> bytes:
    changed = bytearray(text)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def forgeries(name):
    """A sample with one bit wrong: in the body, in the hash, in the timestamp."""
    body, headers = (SAMPLES / name).read_bytes(), manifest_headers(name)
    yield flipped(body, len(body) * 4), headers
    for header in ("Close-Sig-Hash", "Close-Sig-Timestamp"):
        # the lowest bit turns one digit into another one
        yield body, headers | {header: flipped(headers[header].encode(), 0).decode()}


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_one_flipped_bit_is_a_401_that_leaves_nothing_behind(receiver, store, name):
    before = kept(store)
    refused = [receiver.post(body, headers) for body, headers in forgeries(name)]
    assert [answer.status for answer in refused] == [401, 401, 401]
    assert all(answer.body["error"] for answer in refused)
    assert kept(store) == before


@pytest.mark.parametrize("left_out", ["close-sig-hash", "close-sig-timestamp"])
def test_a_delivery_without_a_signature_is_a_401(receiver, left_out):
    headers = signed(sample("02"))
    del headers[left_out]
    answer = receiver.post(sample("02"), headers)
    assert (answer.status, answer.body) == (401, {"error": f"{left_out} is missing"})


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title, str.swapcase])
def test_header_names_count_in_any_case(receiver, spelling):
    headers = {spelling(name): value for name, value in signed(sample("02")).items()}
    assert receiver.post(sample("02"), headers).status == 202


def test_any_of_several_keys_may_have_signed(redis_server):
    save_schemas(redis_server.url)
    with Receiver(redis_server.url, signature_keys=f"{OTHER_KEY},{KEY}") as receiver:
        body = sample("02")
        statuses = [receiver.post(body, signed(body, key=key)).status for key in (KEY, OTHER_KEY, THIRD_KEY)]
    assert statuses == [202, 202, 401]


def test_an_old_signature_is_refused_only_where_an_age_is_set(redis_server, receiver):
    body = sample("02")
    assert receiver.post(body, signed(body, timestamp="1000000000")).status == 202
    with Receiver(redis_server.url, SIGNATURE_MAX_AGE="5m") as strict:
        answer = strict.post(body, signed(body, timestamp="1000000000"))
    assert (answer.status, answer.body) == (401, {"error": "close-sig-timestamp is too old"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_a_405_that_names_the_right_one(receiver, method):
    answer = receiver.get("/webhooks/close", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or answer.body == {"error": "Method Not Allowed"}


@pytest.mark.parametrize("path", ["/", "/webhooks", "/webhooks/close/", "/livez/", "/%ff%00", "//"])
def test_an_unknown_path_is_a_404_and_never_a_redirect(receiver, path):
    answer = receiver.get(path)
    assert (answer.status, answer.body) == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("Application/JSON ; charset=utf-8", 202),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
        ("\xff", 415),
        (None, 415),
    ],
)
def test_anything_but_json_is_a_415(receiver, content_type, status):
    headers = signed(sample("02"))
    del headers["content-type"]
    if content_type is not None:
        headers["content-type"] = content_type
    assert receiver.post(sample("02"), headers).status == status


def read_quarantine(redis_url):
    async def read():
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await list_quarantined(client)

    return asyncio.run(read())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff",
        b"not json",
        b"[]",
        b'{"event": null}',
        b'{"event": {"id": "ev_1"}}',
        b"[" * 100_000,
        sample_event(id=""),
        sample_event(object_id="lead 1\n"),
        sample("02").replace(b'"action": "created"', b'"action": "\xe9"'),
    ],
    ids=range(10),
)
def test_what_is_signed_but_cannot_be_read_is_accepted_and_kept_for_a_person(receiver, redis_server, body):
    answer = receiver.post(body)
    assert (answer.status, answer.body["status"]) == (202, "quarantined")
    (kept,) = read_quarantine(redis_server.url)
    assert (kept.id, kept.reason) == (answer.body["id"], answer.body["reason"])
    assert (kept.body, kept.size_bytes) == (body[: 64 * 1024], len(body))


def test_an_event_of_another_organization_is_ignored(receiver, store):
    before = kept(store)
    answer = receiver.post(sample_event(organization_id="orga_other"))
    assert answer.status == 200
    assert answer.body["reason"] == "the event belongs to another organization"
    assert kept(store) == before


@pytest.mark.parametrize(
    ("api_key_id", "path", "status"),
    [
        (OWN_API_KEY_ID, "/api/v1/lead/lead_1/", 200),
        (None, "/api/v1/enrich_field/", 200),
        ("api_somebody", "/api/v1/lead/lead_1/", 202),
        (None, None, 202),
    ],
)
def test_an_update_that_we_caused_is_ignored(receiver, api_key_id, path, status):
    answer = receiver.post(
        sample_event("05", api_key_id=api_key_id, meta=None if path is None else {"request_path": path})
    )
    assert answer.status == status


@pytest.mark.parametrize("kind", ["opportunity", "activity.call", "custom_fields.lead", "not_yet_invented"])
def test_an_event_of_a_type_nobody_asked_for_is_ignored(receiver, kind):
    answer = receiver.post(sample_event(object_type=kind))
    assert answer.status == 200
    assert answer.body["reason"] == f"no rule for {kind}.created"


def test_an_event_that_every_rule_skips_is_ignored_with_the_reason_of_each(redis_server):
    save_schemas(redis_server.url)
    rules = rulebook(
        """
        version: 1
        rules:
          - {name: Won, object: lead, field: Segment, settle: 0s, when: lead.status_label == "Won"}
          - {name: Misspelt, object: lead, field: Sgment}
        """
    )
    with Receiver(redis_server.url, rules=rules) as receiver:
        answer = receiver.post(sample("02"))
    assert answer.status == 200
    assert answer.body["reason"] == "no rule wants it"
    assert answer.body["skipped"] == [
        {"rule": "Won", "reason": "the condition is not met"},
        {
            "rule": "Misspelt",
            "reason": "'Sgment' is no custom field of leads in Close; did you mean 'Segment'?",
        },
    ]


@pytest.mark.parametrize("times", [1, 49])
def test_a_repeated_delivery_is_a_duplicate(receiver, times):
    assert receiver.post(sample("02")).body["status"] == "accepted"
    for _ in range(times):
        answer = receiver.post(sample("02"))
        assert (answer.status, answer.body["status"]) == (202, "duplicate")
        assert {one["result"] for one in answer.body["planned"]} == {"duplicate"}


def test_the_same_event_delivered_fifty_times_at_once_gives_one_set_of_enrichments(receiver, store):
    body = sample("02")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: receiver.post(body), range(50)))
    assert {answer.status for answer in answers} == {202}
    results = [one["result"] for answer in answers for one in answer.body["planned"]]
    assert (results.count("planned"), results.count("duplicate")) == (2, 98)
    queue = jobs.rq_queue(jobs.LIVE_QUEUE, store)
    (queued,), (scheduled,) = queue.job_ids, queue.scheduled_job_registry.get_job_ids()
    event = json.loads(body)["event"]
    ids = {
        entry_id(organization_id=event["organization_id"], object_id=event["object_id"], field_id=field_id)
        for field_id in ("cf_pitch", "cf_size")
    }
    assert {job_id.partition("-")[0] for job_id in (queued, scheduled)} == ids
    assert set(store.scan_iter(keys.entry("*"))) == {keys.entry(one).encode() for one in ids}


def texts_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {text for item in value for text in texts_in(item)}
    return {value} if isinstance(value, str) else set()


def personal_texts(body):
    """What a record says of people and companies, without Close's ids."""
    event = json.loads(body)["event"]
    texts = texts_in(event["data"]) | texts_in(event["previous_data"])
    return {text for text in texts if len(text) > 4 and "_" not in text}


def is_in(text, written):
    # a postal code may well be a part of a time's digits
    return bool(re.search(rf"(?<!\d){text}(?!\d)", written)) if text.isdigit() else text in written


def test_neither_values_of_records_nor_secrets_are_ever_logged(redis_url):
    bodies = [(SAMPLES / name).read_bytes() for name in ANSWERS]
    secret = {KEY}
    save_schemas(redis_url)
    with captured_log() as log, Receiver(redis_url) as receiver:
        for body in bodies:
            headers = signed(body)
            secret |= {headers["close-sig-hash"]}
            receiver.post(body)
            receiver.post(body, headers | {"close-sig-timestamp": TIMESTAMP[::-1]})
            receiver.post(body[:-20])
            receiver.post(body, headers | {"content-type": "text/plain"})
        written = log.getvalue()
    assert written.count("\n") >= 3 * len(bodies)
    values = set().union(*map(personal_texts, bodies))
    assert {"Halvorsen Tidewater Robotics", "Marisol Venn", "14 Kettle Wharf"} <= values
    assert [text for text in values | secret if is_in(text, written)] == []
