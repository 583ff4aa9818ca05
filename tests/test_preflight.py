"""Before a call: what can be spared, and what an unclear call has left behind."""

import pytest
from entries import NOW_MS, make_entry
from hypothesis import given
from hypothesis import strategies as st

from service.condition import Condition, compile_condition
from service.enrichment import State
from service.rules import ObjectType, OnAmbiguous, Rule
from service.transitions import Postponement, Settlement
from workers.preflight import (
    LOST_GRACE_SECONDS,
    Ask,
    before_call,
    before_reading,
    canonical,
    log_would_tell,
    needs_reading,
)
from workers.reply import FieldEmpty, FieldGone, FieldPresent

EMPTY, SOFTWARE = FieldEmpty(), FieldPresent(value="Software")
TIMEOUT_SECONDS = 120.0
LONG_AGO_MS = NOW_MS - 200_000


def make_rule(**options) -> Rule:
    return Rule(**{"name": "Industry", "object_type": ObjectType.LEAD, "field": "Industry"} | options)


def condition() -> Condition:
    compiled = compile_condition('lead.url != ""', object_type=ObjectType.LEAD)
    assert isinstance(compiled, Condition)
    return compiled


def read_before(entry=None, rule=None, *, fields_known=True, unfinished=()):
    return before_reading(
        entry=entry or make_entry(),
        rule=rule,
        fields_known=fields_known,
        unfinished=unfinished,
        now_ms=NOW_MS,
    )


def decide(entry, *, rule=None, field=EMPTY, unmet=None, logged=None):
    return before_call(
        entry=entry, rule=rule or make_rule(), field=field, unmet=unmet, logged=logged, now_ms=NOW_MS
    )


def lost(*, seconds_ago, **changes):
    """An entry planned anew after Redis had lost all it knew."""
    return make_entry(**{"lost_ms": NOW_MS - round(seconds_ago * 1000)} | changes)


@pytest.mark.parametrize(
    ("seconds_ago", "delay_seconds"),
    [(0, TIMEOUT_SECONDS + LOST_GRACE_SECONDS), (TIMEOUT_SECONDS, LOST_GRACE_SECONDS)],
)
def test_after_a_loss_an_empty_field_waits_until_no_earlier_call_can_be_running(seconds_ago, delay_seconds):
    then = decide(lost(seconds_ago=seconds_ago))
    assert isinstance(then, Postponement)
    assert then.delay_seconds == pytest.approx(delay_seconds)
    assert "an earlier call may still be running" in then.reason


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seconds_ago": TIMEOUT_SECONDS + LOST_GRACE_SECONDS}, EMPTY),
        # the field does not tell whether an earlier call has run
        ({"seconds_ago": 0, "mode": "overwrite"}, EMPTY),
        ({"seconds_ago": 0, "mode": "preview"}, None),
    ],
)
def test_after_a_loss_nothing_else_waits(changes, field):
    assert decide(lost(**changes), field=field) == Ask()


def test_after_a_loss_a_field_that_has_a_value_is_kept_at_once():
    then = decide(lost(seconds_ago=0), field=SOFTWARE)
    assert isinstance(then, Settlement)
    assert then.state is State.KEPT


def unclear(**changes):
    """An entry whose last call may have run, long enough ago to have ended."""
    return make_entry(**{"ambiguous": True, "attempts": 1, "called_ms": LONG_AGO_MS} | changes)


def test_an_ordinary_enrichment_goes_on_to_look_at_the_record():
    assert read_before(rule=make_rule()) is None


@pytest.mark.parametrize(
    ("age_seconds", "waits"), [(0, True), (599.999, True), (600, False), (100_000, False)]
)
def test_a_rule_this_worker_does_not_know_is_waited_for_ten_minutes(age_seconds, waits):
    entry = make_entry(planned_ms=NOW_MS - round(age_seconds * 1000))
    expected = (
        Postponement(
            reason="its rule is not in this worker's rules file, or fills another field there",
            delay_seconds=30.0,
        )
        if waits
        else Settlement(
            state=State.SKIPPED, reason="its rule is no longer in the rules file, or fills another field now"
        )
    )
    assert read_before(entry) == expected


def test_nothing_is_decided_about_a_record_before_closes_fields_are_known():
    then = read_before(rule=make_rule(after=("Size",)), fields_known=False)
    assert then == Postponement(reason="Close's custom fields are not known yet", delay_seconds=2.0)


def test_a_rule_that_was_disabled_since_skips():
    then = read_before(rule=make_rule(enabled=False, after=("Size",)), unfinished=("b" * 20,))
    assert then == Settlement(state=State.SKIPPED, reason="its rule is disabled")


def test_an_unclear_call_is_held_for_a_person_when_its_rule_is_gone():
    then = read_before(unclear(planned_ms=NOW_MS - 600_000))
    assert then == Settlement(state=State.HELD, reason="a call may have run; its rule is no longer there")


def test_an_unclear_call_of_a_rule_disabled_since_is_still_read_back():
    assert read_before(unclear(), rule=make_rule(enabled=False)) is None


def test_an_unclear_call_of_a_rule_disabled_since_is_never_made_again():
    then = decide(unclear(), rule=make_rule(enabled=False), field=FieldEmpty())
    assert then == Settlement(state=State.HELD, reason="a call may have run; its rule is disabled now")


def test_a_rule_runs_after_those_it_names_and_says_which():
    rule = make_rule(after=("Size", "Pitch"))
    assert read_before(rule=rule, unfinished=("b" * 20,)) == Postponement(
        reason="waits for Size, Pitch", delay_seconds=60.0, blocked_by=("b" * 20,)
    )
    assert read_before(rule=rule) is None


@pytest.mark.parametrize(
    ("mode", "ambiguous", "when", "judged", "reads"),
    [
        ("fill", False, False, True, True),
        ("overwrite", False, False, True, True),
        ("preview", False, False, True, False),
        ("preview", False, True, True, False),
        ("preview", False, True, False, True),
        ("preview", False, False, False, False),
        ("preview", True, False, True, True),
    ],
)
def test_the_record_is_read_unless_a_preview_has_nothing_to_learn_from_it(
    mode, ambiguous, when, judged, reads
):
    entry = make_entry(mode=mode, ambiguous=ambiguous, judged=judged)
    assert needs_reading(entry=entry, rule=make_rule(when=condition() if when else None)) is reads


@pytest.mark.parametrize("entry", [make_entry(), unclear()], ids=["first try", "after an unclear call"])
def test_a_record_that_is_gone_ends_it(entry):
    then = decide(entry, field=FieldGone(reason="no such lead"), unmet="the condition is not met")
    assert then == Settlement(state=State.GONE, reason="no such lead")


@pytest.mark.parametrize("mode", ["fill", "overwrite", "preview"])
def test_a_condition_that_does_not_hold_ends_it_before_anything_is_spent(mode):
    then = decide(make_entry(mode=mode), field=SOFTWARE, unmet="the condition is not met")
    assert then == Settlement(state=State.SKIPPED, reason="the condition is not met")


@pytest.mark.parametrize(
    ("mode", "field", "expected"),
    [
        ("fill", EMPTY, Ask()),
        ("fill", SOFTWARE, Settlement(state=State.KEPT, reason="the field already has a value")),
        ("overwrite", EMPTY, Ask()),
        ("overwrite", SOFTWARE, Ask(value_before='"Software"')),
        ("overwrite", FieldPresent(value=0), Ask(value_before="0")),
        ("preview", None, Ask()),
        ("preview", SOFTWARE, Ask()),
    ],
)
def test_close_is_asked_unless_a_filling_rule_finds_a_value(mode, field, expected):
    assert decide(make_entry(mode=mode), field=field) == expected


@pytest.mark.parametrize("entry", [make_entry(attempts=5), unclear(attempts=5)], ids=["failed", "unclear"])
def test_no_call_follows_the_last_attempt(entry):
    then = decide(entry, rule=make_rule(attempts=5))
    assert then == Settlement(state=State.DEAD, reason="5 of 5 attempts failed")


def test_the_last_attempt_may_be_made():
    assert decide(make_entry(attempts=4), rule=make_rule(attempts=5)) == Ask()


@pytest.mark.parametrize(
    ("mode", "before", "now", "ran"),
    [
        ("fill", None, "Software", True),
        ("overwrite", None, "Software", True),
        ("overwrite", '"Retail"', "Software", True),
        ("overwrite", '"Software"', "Software", False),
        ("overwrite", '["a","b"]', ["a", "b"], False),
        ("overwrite", '{"a":1,"b":2}', {"b": 2, "a": 1}, False),
        ("preview", None, "Software", False),
    ],
)
def test_what_the_field_holds_after_an_unclear_call_tells_whether_it_ran(mode, before, now, ran):
    entry = unclear(mode=mode, value_before=before)
    then = decide(entry, field=FieldPresent(value=now))
    confirmed = Settlement(
        state=State.CONFIRMED,
        reason="read back after an unclear call: the field has a value now",
        value=now,
    )
    assert then == (confirmed if ran else Ask(value_before=before))


def test_an_unclear_call_is_confirmed_even_with_the_attempts_used_up_and_the_condition_broken():
    entry = unclear(attempts=5, called_ms=NOW_MS)
    then = decide(entry, rule=make_rule(attempts=5), field=SOFTWARE, unmet="the condition is not met")
    assert isinstance(then, Settlement)
    assert (then.state, then.value) == (State.CONFIRMED, "Software")


@pytest.mark.parametrize(("ago_seconds", "left_seconds"), [(0, 120.0), (119.5, 0.5)])
@pytest.mark.parametrize("on_ambiguous", OnAmbiguous)
def test_a_call_that_may_still_be_running_is_waited_for(ago_seconds, left_seconds, on_ambiguous):
    entry = unclear(called_ms=NOW_MS - round(ago_seconds * 1000), attempts=5)
    rule = make_rule(timeout_seconds=TIMEOUT_SECONDS, on_ambiguous=on_ambiguous)
    assert decide(entry, rule=rule) == Postponement(
        reason="the earlier call may still be running at Close", delay_seconds=left_seconds
    )


@pytest.mark.parametrize("called_ms", [None, NOW_MS - 120_000, LONG_AGO_MS])
def test_a_rule_that_retries_asks_again_once_an_unclear_call_has_left_nothing(called_ms):
    assert decide(unclear(called_ms=called_ms), rule=make_rule(timeout_seconds=TIMEOUT_SECONDS)) == Ask()


@pytest.mark.parametrize(
    ("mode", "field"), [("fill", EMPTY), ("overwrite", EMPTY), ("preview", SOFTWARE), ("preview", None)]
)
def test_a_rule_that_holds_leaves_an_unclear_call_to_a_person(mode, field):
    then = decide(unclear(mode=mode), rule=make_rule(on_ambiguous=OnAmbiguous.HOLD), field=field)
    assert then == Settlement(state=State.HELD, reason="a call may have run; the field does not tell")


@pytest.mark.parametrize(("retried_ms", "asked"), [(LONG_AGO_MS + 1, True), (LONG_AGO_MS - 1, False)])
def test_a_rule_that_holds_calls_again_once_a_person_has_decided_so(retried_ms, asked):
    entry = unclear(retried_ms=retried_ms, attempts=0)
    then = decide(entry, rule=make_rule(on_ambiguous=OnAmbiguous.HOLD))
    assert isinstance(then, Ask) is asked


@pytest.mark.parametrize(("mode", "field"), [("fill", SOFTWARE), ("overwrite", SOFTWARE)])
def test_what_a_person_retries_is_not_called_for_where_the_earlier_call_has_written(mode, field):
    entry = unclear(mode=mode, retried_ms=NOW_MS, value_before='"Retail"')
    assert decide(entry, rule=make_rule(on_ambiguous=OnAmbiguous.HOLD), field=field).state is State.CONFIRMED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_a_value_compares_equal_to_itself_whatever_the_order_of_its_keys(value):
    def turned(item):
        if isinstance(item, dict):
            return {key: turned(item[key]) for key in reversed(item)}
        return [turned(one) for one in item] if isinstance(item, list) else item

    assert canonical(turned(value)) == canonical(value)


@given(JSON, JSON)
def test_different_values_never_compare_equal(one, other):
    # JSON knows no difference between True and 1 in Python's eyes only
    assert (canonical(one) == canonical(other)) is (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


AS_BEFORE = {"mode": "overwrite", "value_before": '"Software"'}


@pytest.mark.parametrize(
    ("entry", "field", "asks"),
    [
        pytest.param(unclear(**AS_BEFORE), SOFTWARE, True, id="as it was before"),
        pytest.param(unclear(**AS_BEFORE), FieldPresent(value="Retail"), False, id="another value"),
        pytest.param(unclear(**AS_BEFORE), EMPTY, False, id="empty now"),
        pytest.param(unclear(**AS_BEFORE), FieldGone(reason="no such lead"), False, id="gone"),
        pytest.param(unclear(mode="overwrite"), SOFTWARE, False, id="empty before"),
        pytest.param(unclear(mode="fill"), SOFTWARE, False, id="filled"),
        pytest.param(unclear(mode="preview"), SOFTWARE, False, id="a preview writes nothing"),
        pytest.param(make_entry(**AS_BEFORE), SOFTWARE, False, id="nothing is unclear"),
    ],
)
def test_the_event_log_is_asked_only_where_the_field_cannot_tell(entry, field, asks):
    assert log_would_tell(entry=entry, field=field) is asks


def test_a_write_of_ours_in_the_event_log_confirms_the_call():
    assert decide(unclear(**AS_BEFORE), field=SOFTWARE, logged=True) == Settlement(
        state=State.CONFIRMED,
        reason="Close's event log has our write after an unclear call",
        value="Software",
    )


@pytest.mark.parametrize(
    ("on_ambiguous", "then"),
    [
        (OnAmbiguous.RETRY, Ask(value_before='"Software"')),
        (
            OnAmbiguous.HOLD,
            Settlement(state=State.HELD, reason="a call may have run; the field does not tell"),
        ),
    ],
)
@pytest.mark.parametrize("logged", [None, False])
def test_where_the_event_log_has_none_the_rule_decides(logged, on_ambiguous, then):
    rule = make_rule(on_ambiguous=on_ambiguous)
    assert decide(unclear(**AS_BEFORE), rule=rule, field=SOFTWARE, logged=logged) == then


def test_a_call_that_may_still_be_running_is_waited_for_whatever_the_log_has_not():
    then = decide(unclear(**AS_BEFORE, called_ms=NOW_MS - 20_000), field=SOFTWARE, logged=False)
    assert then == Postponement(
        reason="the earlier call may still be running at Close", delay_seconds=TIMEOUT_SECONDS - 20
    )
