"""The whole service, scraped: metrics say what the ledger says, and nothing ever goes backwards."""

from __future__ import annotations

import urllib.request

import pytest
from money_box import zone_where_it_is_noon
from prometheus_client.parser import text_string_to_metric_families
from stack import lively_world, running

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s}
budget: {per_day: 1000}
rules:
  - {name: Industry, object: lead, field: Industry}
  - {name: Pitch, object: lead, field: Pitch}
"""
FIELDS = 2
LEADS = 20

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def scrape(stack):
    """Every sample by its name and labels; while Redis is too slow for a moment, there is none but that."""

    def look():
        with _DIRECT.open(f"{stack.url}/metrics", timeout=60) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found = {
            (one.name.removeprefix("close_enrich_"), *sorted(one.labels.items())): one.value
            for family in families
            for one in family.samples
        }
        return found if total(found, "redis_up") == 1 else None

    return stack.wait(look)


def counters(found):
    ends = ("_total", "_bucket", "_count", "_sum")
    return {name: value for name, value in found.items() if name[0].endswith(ends)}


def total(found, name, **labels):
    wanted = set(labels.items())
    return sum(value for (one, *given), value in found.items() if one == name and wanted <= set(given))


def scraped_when(stack, accept):
    """The first scrape that is accepted: each process adds up every two seconds what it has counted."""

    def look():
        found = scrape(stack)
        return found if accept(found) else None

    return stack.wait(look)


def taken(found):
    """Deliveries that were accepted, however often Close had to deliver them."""
    return total(found, "events_total", result="accepted")


@pytest.mark.long
def test_a_scrape_says_what_was_done_and_a_killed_worker_sets_nothing_back(tmp_path):
    world = lively_world(latency_min_seconds=0.3, latency_max_seconds=0.3)
    zone = zone_where_it_is_noon()
    with running(tmp_path, rules=RULES, world=world, workers=2, BUDGET_TIMEZONE=zone) as stack:
        for _ in range(LEADS):
            stack.add_lead()
        stack.all_ended(total=LEADS * FIELDS)
        found = scraped_when(
            stack, lambda found: total(found, "done_total") == LEADS * FIELDS and taken(found) == LEADS
        )
        assert total(found, "planned_total", result="planned") == LEADS * FIELDS
        assert total(found, "done_total", outcome="filled", rule="Pitch") == LEADS
        assert total(found, "lead_to_filled_seconds_count", lane="live") == LEADS * FIELDS
        assert total(found, "call_seconds_count", outcome="found") == LEADS * FIELDS
        assert total(found, "call_seconds_sum", outcome="found") >= 0.3 * LEADS * FIELDS
        assert total(found, "credits_paid_total") == LEADS * FIELDS
        assert total(found, "budget_spent_credits", scope="all", period="day") == LEADS * FIELDS
        # all of them were signed
        assert total(found, "accept_seconds_count") == total(found, "events_total") >= LEADS
        assert total(found, "entries", state="filled") == LEADS * FIELDS
        assert total(found, "workers") == 2
        assert total(found, "limiter_calls_per_second", group="enrich") > 0
        assert total(found, "redis_up") == 1

        before = counters(found)
        for _ in range(LEADS):
            stack.add_lead()
        stack.wait(lambda: stack.world.calls.open >= 1)
        stack.processes.kill("worker-0")
        stack.let_leases_end(
            entry for lead in stack.world.calls.made for entry in stack.entries(lead.object_id).values()
        )

        def all_ended():
            nonlocal before
            now = counters(scrape(stack))
            assert {name: value for name, value in before.items() if now.get(name, -1) < value} == {}
            before = now
            stack.let_waits_end()
            counts = stack.counts()
            return set(counts) <= {"filled", "confirmed"} and sum(counts.values()) == 2 * LEADS * FIELDS

        stack.wait(all_ended, seconds=150)
        at_most = 2 * LEADS * FIELDS
        found = scraped_when(
            stack,
            lambda found: total(found, "done_total") > LEADS * FIELDS and taken(found) == 2 * LEADS,
        )
        # what the killed worker had counted in its last two seconds is gone; nobody counts it a second time
        assert LEADS * FIELDS < total(found, "done_total") <= at_most
        assert total(found, "planned_total", result="planned") == at_most
