"""What a call to Close means: every code, every way to fail, every body."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import Mode
from workers.outcome import (
    Ambiguous,
    FieldUnreadable,
    Found,
    Gone,
    Halt,
    HaltKind,
    Nothing,
    RateLimited,
    Rejected,
    Retry,
    judge,
    read_field,
)
from workers.ratelimit_header import RateLimit
from workers.reply import Failure, FailureKind, FieldEmpty, FieldGone, FieldPresent, Reply

RESPONSES = Path(__file__).parent / "responses"
FIELD_ID = "cf_9hWfpU3HBGeya7iAhKQq2Zy15NdWAoVTECHuzfkkMjL"
SAVED = "the value may have been saved"
DEEP = b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def reply(status=200, body=b"", *, content_type="application/json", truncated=False, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        named["content-type"] = content_type
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status=status, headers=named, body=content, truncated=truncated)


def recorded(name, status=200):
    return reply(status, (RESPONSES / name).read_bytes())


def failed(kind, detail=""):
    return Failure(kind=kind, detail=detail)


def maybe(reason, hint_seconds=None, *, timed_out=False):
    return Ambiguous(reason=f"{reason}; {SAVED}", hint_seconds=hint_seconds, timed_out=timed_out)


CODES = [
    # documented: https://developer.close.com/api/overview/http-response-codes
    pytest.param(
        recorded("error.400.validation.json", 400),
        Rejected("Close rejected the request (400): url: This field is required."),
        id="400",
    ),
    pytest.param(
        reply(401, {"error": "?"}),
        Halt(reason="Close refused the API key (401)", kind=HaltKind.KEY_REFUSED),
        id="401",
    ),
    pytest.param(
        reply(402, {"error": "No credits left."}),
        Halt(
            reason="Close says a limit of the plan or of the AI credits is reached (402): No credits left.",
            kind=HaltKind.PLAN_LIMIT,
        ),
        id="402",
    ),
    pytest.param(reply(403), Rejected("Close does not allow this API key's user to do that (403)"), id="403"),
    pytest.param(
        recorded("error.404.json", 404),
        Gone(
            "Close does not know this record or field (404): The requested URL was not found on the server."
        ),
        id="404",
    ),
    pytest.param(reply(405), Rejected("Close does not accept this kind of request (405)"), id="405"),
    pytest.param(reply(415), Rejected("Close does not accept this kind of content (415)"), id="415"),
    # documented: https://developer.close.com/api/overview/rate-limits
    pytest.param(
        reply(429, ratelimit="limit=100, remaining=0, reset=0.25", retry_after="1"),
        RateLimited(wait_seconds=0.25, limit=RateLimit(limit=100, remaining=0, reset_seconds=0.25)),
        id="429 with a reset",
    ),
    pytest.param(
        reply(429, ratelimit="limit=100", retry_after="3"),
        RateLimited(wait_seconds=3.0, limit=RateLimit(limit=100)),
        id="429 with retry-after alone",
    ),
    pytest.param(
        reply(429, retry_after="Wed, 01 Jul 2026 12:00:30 GMT", date="Wed, 01 Jul 2026 12:00:00 GMT"),
        RateLimited(wait_seconds=30.0),
        id="429 with a date",
    ),
    pytest.param(
        reply(429, retry_after="Wed, 01 Jul 2026 12:00:30 GMT"),
        RateLimited(wait_seconds=2.0),
        id="429 with a date measured from nothing",
    ),
    pytest.param(
        reply(429, retry_after="0"), RateLimited(wait_seconds=0.0), id="429 with retry-after of nothing"
    ),
    pytest.param(
        reply(429, {"rate_reset": 99}),
        RateLimited(wait_seconds=2.0),
        id="429 that names a delay in its body alone",
    ),
    # not documented
    pytest.param(reply(408), maybe("Close says the request took too long (408)", timed_out=True), id="408"),
    pytest.param(reply(409), Rejected("Close rejected the request (409)"), id="409"),
    pytest.param(reply(422, {"error": "No."}), Rejected("Close rejected the request (422): No."), id="422"),
    pytest.param(reply(500), maybe("Close failed while it was answering (500)"), id="500"),
    pytest.param(
        reply(502, b"<html>", content_type="text/html", retry_after="9"),
        maybe("Close failed while it was answering (502)", 9.0),
        id="502",
    ),
    pytest.param(reply(503), Retry(reason="Close is unavailable at the moment (503)"), id="503"),
    pytest.param(
        reply(503, retry_after="120"),
        Retry(reason="Close is unavailable at the moment (503)", hint_seconds=120.0),
        id="503 with retry-after",
    ),
    pytest.param(reply(504), maybe("Close failed while it was answering (504)", timed_out=True), id="504"),
    pytest.param(reply(599), maybe("Close failed while it was answering (599)"), id="599"),
    pytest.param(reply(101), maybe("Close answered in an unexpected way (101)"), id="101"),
]

FAILURES = [
    pytest.param(
        failed(FailureKind.CONNECT, "Connection refused"),
        Retry(reason="Close could not be reached (Connection refused)", unreachable=True),
        id="connect",
    ),
    pytest.param(
        failed(FailureKind.CONNECT),
        Retry(reason="Close could not be reached", unreachable=True),
        id="connect without detail",
    ),
    pytest.param(
        failed(FailureKind.POOL, "PoolTimeout"),
        Retry(reason="No connection to Close was free", unreachable=True),
        id="pool",
    ),
    pytest.param(
        failed(FailureKind.WRITE_TIMEOUT),
        maybe("Close stopped taking the request while it was being sent"),
        id="write timeout",
    ),
    pytest.param(
        failed(FailureKind.WRITE_ERROR),
        maybe("The connection to Close broke while the request was being sent"),
        id="write error",
    ),
    pytest.param(
        failed(FailureKind.READ_TIMEOUT),
        maybe("Close took the request but did not answer in time", timed_out=True),
        id="read timeout",
    ),
    pytest.param(
        failed(FailureKind.DROPPED, "ReadError"),
        maybe("The connection to Close ended before its answer was complete"),
        id="dropped",
    ),
    pytest.param(
        failed(FailureKind.DEADLINE),
        maybe("Close's answer took longer than a call may", timed_out=True),
        id="slow drip",
    ),
]

BODIES = [
    pytest.param(
        recorded("enrich_field.200.json"),
        Found(
            value="Industrial Automation",
            confidence="high",
            reasoning="The company site describes maintenance robots for offshore turbines.",
        ),
        id="the documented answer",
    ),
    pytest.param(reply(body={"value": 0}), Found(value=0), id="zero"),
    pytest.param(reply(body={"value": False}), Found(value=False), id="false"),
    pytest.param(reply(body={"value": 12.5}), Found(value=12.5), id="a decimal"),
    pytest.param(reply(body={"value": ["a", "b"]}), Found(value=["a", "b"]), id="a list"),
    pytest.param(reply(body={"value": 2**70}), Found(value=2**70), id="a very large number"),
    pytest.param(reply(body={"value": "0"}), Found(value="0"), id="a text"),
    pytest.param(
        reply(body={"value": "x", "confidence": 0.9, "reasoning": ["a"]}),
        Found(value="x"),
        id="confidence and reasoning that are no text",
    ),
    pytest.param(reply(body=b'{"value":"a","value":"b"}'), Found(value="b"), id="a key twice"),
    pytest.param(
        reply(body={"value": 1}, content_type="application/vnd.close+json; charset=utf-8"),
        Found(value=1),
        id="another JSON type",
    ),
    pytest.param(reply(body={"value": 1}, content_type=None), Found(value=1), id="no content type"),
    pytest.param(
        reply(body={"value": 1}, content_type="APPLICATION/JSON;charset=UTF-8"),
        Found(value=1),
        id="content type in capitals",
    ),
    pytest.param(reply(201, {"value": 1}), Found(value=1), id="201 with a value"),
    pytest.param(
        reply(body={"value": None, "confidence": "low", "reasoning": "No site."}),
        Nothing(confidence="low", reasoning="No site."),
        id="null",
    ),
    pytest.param(reply(body={"value": ""}), Nothing(), id="an empty text"),
    pytest.param(reply(body={"value": []}), Nothing(), id="an empty list"),
    pytest.param(
        reply(body={"object_id": "lead_1", "confidence": "low"}),
        Nothing(confidence="low", note="the answer has no value; its keys: confidence, object_id"),
        id="no value key",
    ),
    pytest.param(reply(body={}), Nothing(note="the answer has no value; its keys: none"), id="no keys"),
    pytest.param(
        reply(201, {"id": "x"}), maybe("Close answered without a result (201)"), id="201 without a value"
    ),
    pytest.param(
        reply(202, b"", content_type=None), maybe("Close's answer was not readable JSON (202)"), id="202"
    ),
    pytest.param(
        reply(204, b"", content_type=None), maybe("Close's answer was not readable JSON (204)"), id="204"
    ),
    pytest.param(
        reply(body=b'{"value": '), maybe("Close's answer was not readable JSON (200)"), id="cut off"
    ),
    pytest.param(reply(body=b"null"), maybe("Close's answer was not a JSON object (200)"), id="bare null"),
    pytest.param(
        reply(body=b"[1]"), maybe("Close's answer was not a JSON object (200)"), id="top-level list"
    ),
    pytest.param(
        reply(body=b'{"value": NaN}'), maybe("Close's answer was not readable JSON (200)"), id="NaN"
    ),
    pytest.param(
        reply(body=b'{"value": "\xff"}'),
        maybe("Close's answer was not readable JSON (200)"),
        id="invalid UTF-8",
    ),
    pytest.param(
        reply(body=b'{"value": "\\ud800"}'),
        maybe("Close's answer was not readable JSON (200)"),
        id="half a surrogate pair",
    ),
    pytest.param(reply(body=DEEP), maybe("Close's answer was not readable JSON (200)"), id="nested deeply"),
    pytest.param(
        reply(body=b'{"value": 1}', content_type="text/html"),
        maybe("Close's answer was not JSON (200)"),
        id="wrong content type",
    ),
    pytest.param(
        reply(body=b'{"value": 1}', truncated=True),
        maybe("Close's answer was too long to be read (200)"),
        id="huge body",
    ),
]


@pytest.mark.parametrize(("result", "outcome"), [*CODES, *FAILURES, *BODIES])
def test_every_end_of_a_call_has_its_outcome(result, outcome):
    assert judge(result, mode=Mode.FILL) == outcome


def test_every_kind_of_failure_is_judged():
    assert {param.values[0].kind for param in FAILURES} == set(FailureKind)


@pytest.mark.parametrize(
    ("mode", "doubt"),
    [
        (Mode.FILL, SAVED),
        (Mode.OVERWRITE, SAVED),
        (Mode.PREVIEW, "a credit may have been spent"),
    ],
)
def test_a_doubtful_end_says_what_may_have_happened(mode, doubt):
    reason = f"Close failed while it was answering (502); {doubt}"
    assert judge(reply(502), mode=mode) == Ambiguous(reason=reason)


@pytest.mark.parametrize(
    ("status", "location", "where"),
    [
        (301, "https://app.close.com/api/v1/x/?token=s3cret#s3cret", " to app.close.com"),
        (302, "//other.example:8443/x", " to other.example"),
        (307, "/login?next=s3cret", ""),
        (308, "https://s3cret@login.example/", " to login.example"),
        (302, "http://[s3cret", ""),
        (302, "https://a\x1bb/s3cret", " to a b"),
        (303, None, ""),
        (304, None, ""),
    ],
)
def test_a_redirect_halts_and_names_the_host_alone(status, location, where):
    headers = {} if location is None else {"location": location}
    reason = f"Close redirected the call{where} ({status}); check CLOSE_API_URL"
    assert judge(reply(status, **headers), mode=Mode.FILL) == Halt(reason=reason, kind=HaltKind.REDIRECTED)


@pytest.mark.parametrize(
    ("body", "explanation"),
    [
        ({"error": "No such field."}, ": No such field."),
        ({"errors": ["One.", "Two."], "field-errors": {}}, ": One.; Two."),
        ({"errors": "One."}, ": One."),
        ({"errors": [], "field-errors": {"a": "b", "c": ["d", "e"]}}, ": a: b; c: d; c: e"),
        ({"error": "A\r\n\x1b[31mB\u202e C\x00"}, ": A [31mB C"),
        ({"error": None, "errors": None, "field-errors": None}, ""),
        ({"error": {"code": 1}, "errors": [1, {"x": "y"}, ""], "field-errors": {"a": {"b": "c"}}}, ""),
        ({"error": ""}, ""),
        (["error"], ""),
        (b"<html>", ""),
        (DEEP, ""),
    ],
)
def test_a_rejection_says_in_one_line_what_closes_error_body_says(body, explanation):
    assert judge(reply(400, body), mode=Mode.FILL) == Rejected(
        f"Close rejected the request (400){explanation}"
    )


@pytest.mark.parametrize("filler", ["x", "\x00x"])
def test_a_long_reason_is_cut(filler):
    outcome = judge(reply(400, {"error": filler * 100_000}), mode=Mode.FILL)
    assert len(outcome.reason) == 300
    assert outcome.reason.endswith("…")


def test_a_connect_failure_with_a_long_detail_is_cut():
    outcome = judge(failed(FailureKind.CONNECT, "x" * 1000), mode=Mode.FILL)
    assert len(outcome.reason) == 300


def test_values_of_records_appear_in_no_repr():
    result = reply(body={"value": "s3cret", "reasoning": "s3cret"}, location="https://x/?s3cret")
    outcome = judge(result, mode=Mode.FILL)
    reading = read_field(reply(body={"id": "lead_1", "custom.cf_1": "s3cret"}), field_id="cf_1")
    nothing = judge(reply(body={"value": None, "reasoning": "s3cret"}), mode=Mode.FILL)
    assert isinstance(reading, FieldPresent)
    assert "s3cret" not in f"{result!r} {outcome!r} {reading!r} {nothing!r}"


READINGS = [
    pytest.param(
        recorded("lead.get.fields_set.json"), FieldPresent(value="Industrial Automation"), id="a value"
    ),
    pytest.param(recorded("lead.get.fields_unset.json"), FieldEmpty(), id="the key is absent"),
    pytest.param(reply(body={"id": "lead_1", f"custom.{FIELD_ID}": None}), FieldEmpty(), id="null"),
    pytest.param(reply(body={"id": "lead_1", f"custom.{FIELD_ID}": ""}), FieldEmpty(), id="an empty text"),
    pytest.param(reply(body={"id": "lead_1", f"custom.{FIELD_ID}": []}), FieldEmpty(), id="an empty list"),
    pytest.param(reply(body={"id": "lead_1", f"custom.{FIELD_ID}": 0}), FieldPresent(value=0), id="zero"),
    pytest.param(
        reply(body={"id": "lead_1", f"custom.{FIELD_ID}": False}), FieldPresent(value=False), id="false"
    ),
    pytest.param(
        reply(body={"id": "lead_1", f"custom.{FIELD_ID}": ["a"]}), FieldPresent(value=["a"]), id="a list"
    ),
    pytest.param(
        reply(404, {"error": "Empty query: Lead does not exist."}),
        FieldGone(reason="Close does not know this record or field (404): Empty query: Lead does not exist."),
        id="404",
    ),
]

UNREADABLE = [
    pytest.param(
        reply(body={}), Retry(reason="Close's answer was not the record that was asked for"), id="no record"
    ),
    pytest.param(
        reply(body={"error": "?"}),
        Retry(reason="Close's answer was not the record that was asked for"),
        id="an error with status 200",
    ),
    pytest.param(
        reply(body=b"<html>", content_type="text/html"),
        Retry(reason="Close's answer was not JSON"),
        id="wrong content type",
    ),
    pytest.param(reply(body=DEEP), Retry(reason="Close's answer was not readable JSON"), id="nested deeply"),
    pytest.param(
        reply(204), Retry(reason="Close answered in an unexpected way (204)"), id="204 has no record"
    ),
    pytest.param(
        reply(502, retry_after="4"),
        Retry(reason="Close failed while it was answering (502)", hint_seconds=4.0),
        id="502",
    ),
    pytest.param(reply(503), Retry(reason="Close is unavailable at the moment (503)"), id="503"),
    pytest.param(
        reply(429, ratelimit="reset=3"),
        RateLimited(wait_seconds=3.0, limit=RateLimit(reset_seconds=3.0)),
        id="429",
    ),
    pytest.param(reply(400), Rejected("Close rejected the request (400)"), id="400"),
    pytest.param(
        reply(401), Halt(reason="Close refused the API key (401)", kind=HaltKind.KEY_REFUSED), id="401"
    ),
    pytest.param(
        failed(FailureKind.CONNECT, "refused"),
        Retry(reason="Close could not be reached (refused)", unreachable=True),
        id="connect",
    ),
    pytest.param(
        failed(FailureKind.READ_TIMEOUT),
        Retry(reason="Close took the request but did not answer in time"),
        id="read timeout",
    ),
]


@pytest.mark.parametrize(("result", "reading"), READINGS)
def test_a_record_tells_what_its_field_holds(result, reading):
    assert read_field(result, field_id=FIELD_ID) == reading


@pytest.mark.parametrize(("result", "outcome"), UNREADABLE)
def test_a_field_that_cannot_be_read_is_never_taken_for_empty(result, outcome):
    assert read_field(result, field_id=FIELD_ID) == FieldUnreadable(outcome=outcome)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
keys = st.sampled_from(
    ["value", "confidence", "reasoning", "error", "errors", "field-errors", "id", "custom.cf_1"]
)
bodies = (
    st.binary()
    | st.dictionaries(keys, json_values).map(lambda body: json.dumps(body).encode("utf-8", "replace"))
    | json_values.map(lambda body: json.dumps(body).encode())
)
headers = st.dictionaries(
    st.sampled_from(["content-type", "date", "location", "ratelimit", "retry-after", "x-rate-limit-reset"]),
    st.text() | st.sampled_from(["application/json", "5", "limit=1, reset=0.1", "https://[::1/"]),
)
results = st.builds(
    Reply, status=st.integers(0, 999), headers=headers, body=bodies, truncated=st.booleans()
) | st.builds(Failure, kind=st.sampled_from(FailureKind), detail=st.text())


@given(results, st.sampled_from(Mode))
def test_judging_never_raises_and_every_reason_is_one_short_line(result, mode):
    outcome = judge(result, mode=mode)
    match outcome:
        case Found():
            assert msgspec.json.encode(outcome.value)
        case Nothing():
            assert len(outcome.note) <= 300
        case RateLimited():
            assert 0 <= outcome.wait_seconds <= 86_400
        case _:
            assert 0 < len(outcome.reason) <= 400
            assert outcome.reason.isprintable()


@given(results)
def test_reading_a_field_never_raises_and_only_a_record_can_be_empty(result):
    reading = read_field(result, field_id="cf_1")
    if isinstance(reading, FieldEmpty | FieldPresent):
        assert isinstance(json.loads(result.body)["id"], str)
    else:
        assert isinstance(reading, FieldGone | FieldUnreadable)
