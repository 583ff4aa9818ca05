"""The fuzzer: a small corpus and a bounded run of it here; `python -m tests.fuzz` is the long one."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest
from fuzz.deliveries import Delivery, Inventor
from fuzz.receiver import MAX_BODY_BYTES, Fuzz, ask, corpus, receiver_app, seed_bodies
from fuzz.text import Literal, Object, parsed, written
from fuzz.verdict import problem, statuses, too_many_keys
from receiver_box import KEY, TIMESTAMP, sample, save_schemas, signed

from service.intake import Intake

INPUTS = 2000


def delivery(body: bytes = b"{}", *, genuine: bool = True, cut: bool = False) -> Delivery:
    headers = tuple((name.encode(), value.encode()) for name, value in signed(body).items())
    return Delivery(body=body, headers=headers, genuine=genuine, pieces=(body,), cut=cut)


def inventor(seed: int) -> Inventor:
    chance = Random(seed)  # noqa: S311  chance in tests is no secret
    return Inventor(random=chance, seeds=seed_bodies(), key=bytes.fromhex(KEY), timestamp=int(TIMESTAMP))


async def test_every_body_of_the_corpus_is_taken_and_none_by_a_mistake_of_ours(redis_url):
    await asyncio.to_thread(save_schemas, redis_url)
    told = {}
    async with receiver_app(redis_url) as app:
        for name, body in corpus().items():
            status, answer = await ask(app, delivery(body))
            told[name] = problem(delivery(body), status, answer, max_body_bytes=MAX_BODY_BYTES)
            if name == "bare.json":
                assert answer["status"] == "accepted"
    assert len(told) > 30
    assert {name: found for name, found in told.items() if found is not None} == {}


def test_two_thousand_odd_mangled_and_forged_inputs_do_no_harm(redis_url):
    summary = Fuzz(redis_url, seed=20261123).run(INPUTS)
    assert summary.findings == []
    assert summary.inputs == INPUTS
    assert summary.wire_inputs > INPUTS / 100
    assert (
        min(summary.answers[one] for one in ("accepted", "duplicate", "ignored", "quarantined")) > INPUTS / 50
    )
    assert min(summary.statuses[status] for status in (200, 202, 400, 401, 413, 415)) > 0


def test_a_mistake_of_ours_is_found(redis_url, monkeypatch, tmp_path):
    real = Intake.plan

    def fail(self, event, knowledge):
        if event.action == "updated":
            raise KeyError(event.id)
        return real(self, event, knowledge)

    monkeypatch.setattr(Intake, "plan", fail)
    summary = Fuzz(redis_url, seed=1, keep_in=tmp_path).run(300)
    assert set(summary.findings) == {"internal error: KeyError"}
    kept = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(kept) == len(summary.findings)
    assert all(b"updated" in body for body in kept)


def test_the_same_seed_invents_the_same_inputs():
    first, second, third = inventor(1), inventor(1), inventor(2)
    inputs = [first.delivery() for _ in range(50)] + [first.request()]
    assert inputs == [second.delivery() for _ in range(50)] + [second.request()]
    assert inputs != [third.delivery() for _ in range(50)] + [third.request()]


def test_the_pieces_of_a_delivery_are_its_body():
    made = [inventor(3).delivery() for _ in range(100)]
    assert all(b"".join(one.pieces) == one.body for one in made)
    assert {one.genuine for one in made} <= {True, False}


@pytest.mark.parametrize(
    ("one", "status", "answer", "found"),
    [
        (delivery(), 202, {"status": "quarantined"}, None),
        (delivery(), 200, {"status": "ignored"}, None),
        (delivery(), 500, {}, "answered 500"),
        (delivery(), 202, {"reason": "internal error: KeyError"}, "internal error: KeyError"),
        (delivery(), 401, {}, "genuine, and refused with 401"),
        (delivery(), 413, {}, "said to be too long"),
        (delivery(b"a" * 11), 413, {}, None),
        (delivery(b"a" * 11), 202, {}, "taken although it was cut or too long"),
        (delivery(cut=True), 202, {}, "taken although it was cut or too long"),
        (delivery(cut=True), 400, {}, None),
        (delivery(genuine=False), 401, {}, None),
        (delivery(genuine=False), 202, {}, "taken for genuine"),
    ],
)
def test_what_an_answer_may_not_be_is_a_finding(one, status, answer, found):
    assert problem(one, status, answer, max_body_bytes=10) == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"keys": 64, "results": 0, "quarantined": 1200}, None),
        ({"keys": 65, "results": 0, "quarantined": 0}, "65 keys after 0 results"),
        ({"keys": 68, "results": 1, "quarantined": 0}, None),
        ({"keys": 1, "results": 0, "quarantined": 1201}, "1201 bodies in quarantine"),
    ],
)
def test_keys_that_no_answer_explains_are_a_finding(facts, found):
    assert too_many_keys(**facts, most_quarantined=1000) == found


def test_all_answers_on_a_connection_count():
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nx: HTTP/1.1 500 \r\n\r\n{}HTTP/1.1 400 \r\n"
    assert statuses(raw) == [100, 202, 400]
    assert statuses(b"") == []


def test_what_is_read_is_written_again():
    assert json.loads(written(parsed(sample("02")))) == json.loads(sample("02"))
    odd = Object([("a", 1), ("a", [Literal(b"NaN"), True, None, "\ud800"]), ("", Object([]))])
    assert written(odd) == b'{"a":1,"a":[NaN,true,null,"\\ud800"],"":{}}'
