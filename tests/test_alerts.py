"""What deserves an alert, when it is told and in what words: nothing twice, nothing lost, never a flood."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from entries import NOW_MS
from hypothesis import given, settings
from hypothesis import strategies as st

from service.alert_telling import (
    AGAIN_SECONDS,
    COUNTS_EVERY_SECONDS,
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    LONGEST_RETRY_SECONDS,
    MOST_POSTS,
    REPEAT_SECONDS,
    WITHIN_SECONDS,
    Alert,
    Told,
    What,
    attempted,
    decode,
    delivered,
    due,
    encode,
    failed,
    may_post,
    note,
)
from service.alert_text import (
    MOST_CHARACTERS,
    MOST_LINES,
    MOST_WORDS_CHARACTERS,
    instance_of,
    message,
    payload,
    plain,
    sample,
)
from service.alerts import MANNERS, Broken, Halted, Kind, Observation, UsedUp, conditions

OLDEST_JOB_SECONDS = 900.0
HALT = Halted(reason="Close refused the API key (401)", by_person=False, since_ms=NOW_MS)
PITCH = Broken(field_id="cf_pitch", field_name="Pitch", rule="Pitch", timeouts=5)
DAY = UsedUp(words="500 credits a day for all rules", drops=False)


def seen(seconds: float = 0.0, **facts) -> Observation:
    return Observation(now_ms=NOW_MS + round(seconds * 1000), **facts)


class Teller:
    """Goes from observation to observation as the loop does, with a receiver that takes everything."""

    def __init__(self) -> None:
        self.told = Told()

    def tell(self, observation: Observation, *, works: bool = True) -> list[str]:
        """What is told, as `what key`."""
        now_ms = observation.now_ms
        self.told = note(self.told, observation, oldest_job_seconds=OLDEST_JOB_SECONDS)
        alerts = due(self.told, now_ms=now_ms)
        if not alerts or not may_post(self.told, now_ms=now_ms):
            return []
        self.told = attempted(self.told, alerts, now_ms=now_ms)
        if not works:
            self.told = failed(self.told, now_ms=now_ms)
            return []
        self.told = delivered(self.told, alerts, now_ms=now_ms)
        return [one.name for one in alerts]


# what deserves an alert


@pytest.mark.parametrize(
    ("facts", "key", "words"),
    [
        ({"halt": HALT}, "halted", "all calls are halted: Close refused the API key (401); one is tried"),
        (
            {"halt": replace(HALT, reason="out of credits: Ada Lovelace")},
            "halted",
            "halted: out of credits; one",
        ),
        (
            {"halt": Halted(reason="cause: an import", by_person=True, since_ms=NOW_MS)},
            "halted",
            "all calls are halted by a person: cause: an import",
        ),
        ({"workers": 0}, "no-worker", "no worker is alive"),
        (
            {"subscription": "whsub_1 is failing: none of …"},
            "subscription",
            "needs attention: whsub_1 is failing",
        ),
        (
            {"used_up": (DAY,)},
            f"budget:{DAY.words}",
            f"a budget is used up: {DAY.words}; more waits for the next",
        ),
        ({"used_up": (replace(DAY, drops=True),)}, f"budget:{DAY.words}", "more ends as skipped"),
        ({"broken": (PITCH,)}, "breaker:cf_pitch", "Pitch is not called (rule Pitch): 5 timeouts in a row"),
        ({"held": 12}, "burst-guard", "the burst guard holds 12, at most as many credits"),
        (
            {"oldest_due_ms": NOW_MS - 900_000},
            "oldest-job",
            "the oldest live job has waited for a worker for over 15m",
        ),
    ],
)
def test_each_condition_has_a_name_and_words(facts, key, words):
    (found,) = conditions(seen(**facts), oldest_job_seconds=OLDEST_JOB_SECONDS)
    assert found.key == key
    assert words in found.words


@pytest.mark.parametrize(
    ("facts", "options"),
    [
        ({}, {}),
        ({"subscription": ""}, {}),
        ({"subscription": None}, {}),
        ({"oldest_due_ms": NOW_MS - 899_000}, {}),
        ({"oldest_due_ms": 0}, {"oldest_job_seconds": None}),
        ({"oldest_due_ms": 0}, {"halted_ms": NOW_MS - 899_000}),
        ({"dead_letters": 7, "quarantined": 7, "missed": 7}, {}),
    ],
)
def test_what_is_in_order_is_no_condition(facts, options):
    assert conditions(seen(**facts), **{"oldest_job_seconds": OLDEST_JOB_SECONDS, **options}) == ()


def test_a_job_that_waits_because_of_a_halt_is_not_too_old_until_long_after():
    teller = Teller()
    assert teller.tell(seen(halt=HALT, oldest_due_ms=NOW_MS - 10**7)) == ["begun halted"]
    assert teller.tell(seen(899, oldest_due_ms=NOW_MS - 10**7)) == ["over halted"]
    assert teller.tell(seen(900, oldest_due_ms=NOW_MS - 10**7)) == ["begun oldest-job"]


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_says_what_to_do(kind):
    assert MANNERS[kind].advice


# when it is told


def test_a_condition_is_told_when_it_begins_every_few_hours_and_when_it_is_over():
    teller = Teller()
    story = {
        seconds: told
        for seconds in range(0, 3 * REPEAT_SECONDS, 15)
        if (told := teller.tell(seen(seconds, **({"halt": HALT} if seconds < 2.5 * REPEAT_SECONDS else {}))))
    }
    assert story == {
        0: ["begun halted"],
        REPEAT_SECONDS: ["still halted"],
        2 * REPEAT_SECONDS: ["still halted"],
        round(2.5 * REPEAT_SECONDS): ["over halted"],
    }
    assert teller.told.watched == {}


def test_a_condition_that_is_gone_for_a_moment_only_is_not_told_to_be_over():
    teller = Teller()
    assert teller.tell(seen(used_up=(DAY,))) == [f"begun budget:{DAY.words}"]
    for seconds in range(15, 300, 15):
        facts = {"used_up": (DAY,)} if seconds % 45 == 0 else {}
        assert teller.tell(seen(seconds, **facts)) == []


def test_a_condition_that_comes_back_soon_is_told_again_only_after_a_while():
    teller = Teller()
    assert teller.tell(seen(halt=HALT)) == ["begun halted"]
    assert teller.tell(seen(15)) == ["over halted"]
    for seconds in range(30, AGAIN_SECONDS, 15):
        assert teller.tell(seen(seconds, halt=HALT)) == []
    assert teller.tell(seen(AGAIN_SECONDS, halt=HALT)) == ["begun halted"]


def test_what_began_and_ended_before_it_could_be_told_is_not_told():
    teller = Teller()
    teller.tell(seen(halt=HALT))
    teller.tell(seen(15))
    assert teller.tell(seen(30, halt=HALT)) == []
    assert teller.tell(seen(AGAIN_SECONDS + 45)) == []


@pytest.mark.parametrize(("facts", "seconds"), [({"workers": 0}, 120), ({"held": 3}, 60)])
def test_some_must_last_for_a_while_before_they_are_told(facts, seconds):
    teller = Teller()
    assert teller.tell(seen(**facts)) == []
    assert teller.tell(seen(seconds - 1, **facts)) == []
    assert len(teller.tell(seen(seconds, **facts))) == 1


def test_a_restart_of_the_last_worker_is_told_to_nobody():
    teller = Teller()
    for seconds, workers in ((0, 0), (60, 0), (75, 1), (180, 0), (240, 0), (255, 1)):
        assert teller.tell(seen(seconds, workers=workers)) == []


def test_while_nobody_knows_about_the_subscription_it_is_neither_over_nor_repeated():
    teller = Teller()
    assert teller.tell(seen(subscription="it is failing")) == ["begun subscription"]
    assert teller.tell(seen(REPEAT_SECONDS, subscription=None)) == []
    assert teller.tell(seen(REPEAT_SECONDS + 15, subscription="it is failing")) == ["still subscription"]
    assert teller.tell(seen(REPEAT_SECONDS + 30, subscription="")) == ["over subscription"]


def test_two_of_a_kind_are_told_each_for_itself_and_together():
    teller = Teller()
    other = Broken(field_id="cf_other", field_name="Other", rule="Other", timeouts=9)
    told = teller.tell(seen(broken=(PITCH, other), halt=HALT))
    assert told == ["begun halted", "begun breaker:cf_other", "begun breaker:cf_pitch"]
    assert len(teller.told.posts_ms) == 1


def test_what_counts_grew_by_is_told_once_an_hour_and_no_part_is_left_out():
    teller = Teller()
    story = {}
    for seconds in range(0, 3 * COUNTS_EVERY_SECONDS, 60):
        observation = seen(seconds, dead_letters=min(seconds // 60, 70))
        teller.told = note(teller.told, observation, oldest_job_seconds=None)
        if alerts := due(teller.told, now_ms=observation.now_ms):
            teller.told = delivered(teller.told, alerts, now_ms=observation.now_ms)
            story[seconds] = [(one.what, one.count, one.words) for one in alerts]
    words = "more ended so that a person has to look;"
    assert story == {
        60: [(What.NEW, 1, f"1 {words} 1 dead letters in all")],
        60 + COUNTS_EVERY_SECONDS: [(What.NEW, 60, f"60 {words} 61 dead letters in all")],
        60 + 2 * COUNTS_EVERY_SECONDS: [(What.NEW, 9, f"9 {words} 70 dead letters in all")],
    }


def test_what_a_person_took_off_the_list_is_not_news():
    teller = Teller()
    assert teller.tell(seen(dead_letters=5, quarantined=2, missed=3)) == [
        "new dead-letters",
        "new quarantine",
        "new missed-events",
    ]
    assert teller.tell(seen(2 * COUNTS_EVERY_SECONDS, missed=3)) == []


def test_a_message_that_did_not_arrive_is_tried_again_later_and_later_and_nothing_is_lost():
    teller = Teller()
    tries = []
    for seconds in range(0, 7200, 15):
        before = teller.told.failures
        assert teller.tell(seen(seconds, halt=HALT, dead_letters=seconds // 600), works=False) == []
        if teller.told.failures > before:
            tries.append(seconds)
    pauses = [later - sooner for sooner, later in pairwise(tries)]
    assert pauses[:4] == [FIRST_RETRY_SECONDS * 2**n for n in range(4)]
    assert set(pauses[5:]) == {LONGEST_RETRY_SECONDS}
    assert teller.tell(seen(9000, halt=HALT, dead_letters=11)) == ["begun halted", "new dead-letters"]
    assert teller.told.failures == 0


@pytest.mark.parametrize(
    ("asked", "waits"), [(None, 30.0), (5.0, 30.0), (90.0, 90.0), (1e6, LONGEST_RETRY_AFTER_SECONDS)]
)
def test_a_receiver_that_names_a_wait_is_left_alone_for_so_long(asked, waits):
    told = failed(Told(), now_ms=NOW_MS, retry_after_seconds=asked)
    assert told.not_before_ms == NOW_MS + waits * 1000
    assert not may_post(told, now_ms=told.not_before_ms - 1)
    assert may_post(told, now_ms=told.not_before_ms)


def test_a_clock_that_is_put_back_does_not_silence_alerts():
    told = failed(Told(posts_ms=(NOW_MS,) * MOST_POSTS), now_ms=NOW_MS)
    assert may_post(told, now_ms=NOW_MS - 10**8)


def test_what_is_remembered_survives_its_storage():
    teller = Teller()
    teller.tell(seen(halt=HALT, dead_letters=3, used_up=(DAY,)))
    assert decode(encode(teller.told)) == teller.told


@pytest.mark.parametrize(
    "kept", [None, b"", b"{", b"[]", b'{"watched": 3}', b"\xff", b'{"counted": {"x": {}}}']
)
def test_what_cannot_be_read_is_forgotten(kept):
    assert decode(kept) == Told()


MOMENTS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.builds(
            dict,
            halt=st.sampled_from([None, None, HALT]),
            workers=st.integers(0, 1),
            subscription=st.sampled_from(["", None, "it is failing"]),
            used_up=st.sampled_from([(), (DAY,)]),
            broken=st.lists(st.integers(0, 40), unique=True, max_size=20).map(
                lambda ids: tuple(replace(PITCH, field_id=f"cf_{one}") for one in ids)
            ),
            held=st.integers(0, 1),
            dead_letters=st.integers(0, 9),
            missed=st.integers(0, 9),
        ),
        st.booleans(),
    ),
    max_size=150,
)


@settings(max_examples=100, deadline=None)
@given(moments=MOMENTS)
def test_whatever_happens_the_limits_hold_and_beginnings_and_ends_alternate(moments):
    told, now_ms = Told(), NOW_MS
    posts: list[int] = []
    told_at: dict[str, list[tuple[int, What]]] = defaultdict(list)
    grown, levels, said = Counter(), Counter(), Counter()
    for ticks, facts, works in moments:
        now_ms += 15_000 * (1 + ticks)
        observation = Observation(now_ms=now_ms, **facts)
        told = decode(encode(note(told, observation, oldest_job_seconds=OLDEST_JOB_SECONDS)))
        for kind, level in observation.counts.items():
            grown[kind] += max(0, level - levels[kind])
            levels[kind] = level
        alerts = due(told, now_ms=now_ms)
        if not alerts or not may_post(told, now_ms=now_ms):
            continue
        posts.append(now_ms)
        told = attempted(told, alerts, now_ms=now_ms)
        if not works:
            told = failed(told, now_ms=now_ms)
            continue
        told = delivered(told, alerts, now_ms=now_ms)
        assert due(told, now_ms=now_ms) == ()
        assert len(message(alerts, instance="enrich.example.com")) <= MOST_CHARACTERS
        for one in alerts:
            told_at[one.key].append((now_ms, one.what))
            said[one.kind] += one.count

    for at in posts:
        assert sum(at - WITHIN_SECONDS * 1000 < other <= at for other in posts) <= MOST_POSTS
    for key, story in told_at.items():
        least = {What.BEGUN: AGAIN_SECONDS, What.STILL: REPEAT_SECONDS, What.NEW: COUNTS_EVERY_SECONDS}
        for what, seconds in least.items():
            times = [at for at, one in story if one is what]
            assert all(b - a >= seconds * 1000 for a, b in pairwise(times)), key
        ends = [one for _, one in story if one in {What.BEGUN, What.OVER}]
        assert ends == [What.BEGUN if n % 2 == 0 else What.OVER for n in range(len(ends))], key
    for kind, count in grown.items():
        waiting = told.counted[kind].new if kind in told.counted else 0
        assert said[kind] + waiting == count


# in what words


def alert(**changes) -> Alert:
    facts = {
        "what": What.BEGUN,
        "kind": Kind.HALTED,
        "key": "halted",
        "words": "all is halted",
        "since_ms": NOW_MS,
    }
    return Alert(**{**facts, **changes})


ADVICE = MANNERS[Kind.HALTED].advice
SINCE = "2026-10-14 09:30 UTC"


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (alert(), f"Alert: all is halted. Since 2026-10-14 09:30 UTC. What to do: {ADVICE}"),
        (
            alert(what=What.STILL),
            f"Still, since 2026-10-14 09:30 UTC: all is halted. What to do: {ADVICE}",
        ),
        (
            alert(what=What.OVER, until_ms=NOW_MS + 60_000),
            "Over: all is halted (2026-10-14 09:30 UTC to 2026-10-14 09:31 UTC)",
        ),
        (alert(what=What.OVER), "Over: all is halted (2026-10-14 09:30 UTC)"),
        (
            alert(words="see <!channel> & @here"),
            f"Alert: see &lt;!channel&gt; &amp; @\u200bhere. Since {SINCE}. What to do: {ADVICE}",
        ),
    ],
)
def test_a_message_says_what_since_when_and_what_to_do(one, line):
    assert message([one], instance="") == f"*close-enrich*\n{line}"
    assert message([one], instance="x.example") == f"*close-enrich* at x.example\n{line}"


@pytest.mark.parametrize(("count", "length"), [(MOST_LINES, 10), (MOST_LINES + 5, 10), (60, 400)])
def test_what_does_not_fit_into_a_message_is_counted(count, length):
    alerts = [
        alert(kind=Kind.BREAKER, key=f"breaker:{n}", words="x" * length, what=What.OVER) for n in range(count)
    ]
    text = message(alerts, instance="enrich.example.com")
    spelt = text.count("Over:")
    assert len(text) <= MOST_CHARACTERS
    assert 0 < spelt <= MOST_LINES
    rest = f"And {count - spelt} more ({count - spelt} breaker): `close-enrich alerts list`"
    assert text.endswith(rest) == (count > spelt)


def test_long_and_wild_words_become_one_short_line():
    assert plain("a\n\tb\x00c  d") == "a b c d"
    assert len(plain("x" * 1000)) == MOST_WORDS_CHARACTERS


def test_a_message_is_json_with_a_text():
    assert json.loads(payload("a “b”\n")) == {"text": "a “b”\n"}


@pytest.mark.parametrize(
    ("url", "instance"),
    [(None, ""), ("https://enrich.example.com:8443/webhooks/close", "enrich.example.com:8443")],
)
def test_an_installation_is_named_by_its_public_host(url, instance):
    assert instance_of(url) == instance
    assert ("enrich.example.com" in sample(instance=instance)) == bool(instance)
