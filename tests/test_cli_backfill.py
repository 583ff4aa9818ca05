"""`close-enrich backfill` beside real workers: killed, gone on with, each field paid for once."""

from __future__ import annotations

import json
import signal

import pytest
from backfill_box import add_old_leads, backfill, killed_once, newest_run, remembers_for_long
from stack import lively_world, running

from service.cli.processes import request_json
from workers.backfill_run import Stage

pytestmark = pytest.mark.slow

RULES = """
version: 1
defaults: {settle: 0s, timeout: 20s}
budget: {per_day: 100000}
rules:
  - {name: Industry, object: lead, field: Industry, when: 'lead.url != ""'}
"""
LEADS = 2500
WORKING = 400


@pytest.mark.long
def test_killed_three_times_it_fills_every_lead_once_for_the_price_it_named(tmp_path):
    world = lively_world(search_cap=900, latency_min_seconds=0.005, latency_max_seconds=0.005)
    old = add_old_leads(world, LEADS, clump=30)
    unwanted = add_old_leads(world, 50, url="")
    with running(tmp_path, rules=RULES, world=world, workers=2, LOG_LEVEL="info") as stack:
        remembers_for_long(stack)
        priced = json.loads(backfill(stack, "--all", "--dry-run", "--json").stdout)
        assert priced["total"]["credits_at_most"] == LEADS
        assert priced["rules"][0]["searched"] == LEADS + 50
        assert priced["complete"] is True
        stack.redis.delete(*stack.redis.keys("enrich:backfill*"))
        # a quick command may have come farther before anybody looks
        killed_once(stack, lambda run: run.pages > 2)
        killed_once(stack, lambda run: run.planned_pages > 2)
        killed_once(stack, lambda run: run.stage is Stage.WORKING)
        done = backfill(stack, "--all", "--yes")
        assert done.returncode == 0, done.stderr
        assert "Goes on with backfill" in done.stderr
        assert f"has ended: {LEADS:,} filled." in done.stdout
        assert f"Spent {LEADS:,} of at most {LEADS:,} credits." in done.stdout
        field_id = world.field_named("Industry").id
        ran = world.calls.ran_by_field
        assert {ran[one, field_id] for one in old} == {1}
        assert world.calls.charged == priced["total"]["credits_at_most"]
        assert not any(ran[one, field_id] for one in unwanted)
        again = backfill(stack, "--all", "--yes")
        assert "There is nothing to enrich." in again.stdout


def test_a_person_sees_the_price_the_story_and_how_it_goes_and_can_end_it(tmp_path):
    # there is work for 100 seconds: commands may be slow to start, and the last one still has some to drop
    world = lively_world(latency_min_seconds=1.0, latency_max_seconds=1.0)
    old = add_old_leads(world, WORKING)
    with running(tmp_path, rules=RULES, world=world, workers=0, WORKER_CONCURRENCY=4) as stack:
        remembers_for_long(stack)
        table = backfill(stack, "--rule", "Industry", "--dry-run").stdout
        assert ["Industry", "400", "400", "0", "400", "400"] in [line.split() for line in table.splitlines()]
        assert "Left of the budget of 100000 credits a day for all rules: 100000 credits." in table
        assert "Nothing was planned." in table
        asked = backfill(stack, "--rule", "Industry")
        assert (asked.returncode, stack.counts()) == (2, {})
        assert (
            "Enrich 400, for at most 400 credits? There is no terminal to ask at: add --yes" in asked.stderr
        )
        left = backfill(stack, "--rule", "Industry", "--yes", "--detach")
        assert (left.returncode, stack.counts()) == (0, {"planned": WORKING})
        run = newest_run(stack)
        (entry,) = stack.entries(old[0]).values()
        assert (entry.action, entry.event_id) == ("backfill", f"backfill-{run.id}")
        stack.start_worker()
        stack.processes.start("watch", "backfill", "--rule", "Industry", "--yes")
        stack.wait(lambda: f"Goes on with backfill {run.id}" in stack.processes.log("watch"))
        stack.wait(lambda: stack.counts().get("filled", 0) > 8)
        stack.processes.send("watch", signal.SIGINT)
        assert stack.processes.wait("watch") == 0
        assert f"The workers go on with backfill {run.id}." in stack.processes.log("watch")
        status = json.loads(backfill(stack, "--status", "--json").stdout)
        assert [(one["backfill"], one["stage"]) for one in status] == [(run.id, "working")]
        assert run.id in backfill(stack, "--status").stdout
        assert f"did you mean {run.id}?" in backfill(stack, "--cancel", f"{run.id}x").stderr
        cancelled = backfill(stack, "--cancel", run.id)
        assert f"Backfill {run.id} is cancelled: " in cancelled.stdout
        ended = stack.all_ended(total=WORKING)
        assert ended["skipped"] > WORKING / 4
        assert ended["filled"] + ended["skipped"] == WORKING
        assert world.calls.requests == ended["filled"]


def test_close_and_fields_that_are_away_are_told(tmp_path):
    with running(tmp_path, rules=RULES, workers=0, web=False) as stack:
        done = backfill(stack, "--all", CLOSE_API_URL="http://127.0.0.1:9/api/v1")
        assert done.returncode == 1
        assert "Close's custom fields are not known" in done.stderr
        stack.server.stop()
        done = backfill(stack, "--all")
        assert done.returncode == 1
        assert "Redis does not answer" in done.stderr
        assert "Traceback" not in done.stderr


def test_live_leads_are_served_while_bulk_work_takes_all_it_may(tmp_path):
    world = lively_world(latency_min_seconds=120.0, latency_max_seconds=120.0)
    add_old_leads(world, 50)
    rules = RULES.replace("20s", "120s")
    with running(
        tmp_path, rules=rules, world=world, workers=1, WORKER_CONCURRENCY=5, MAX_IN_FLIGHT=5
    ) as stack:
        remembers_for_long(stack)
        assert backfill(stack, "--all", "--yes", "--detach").returncode == 0
        stack.wait(lambda: stack.counts().get("calling") == 4)
        lead = stack.add_lead()
        stack.entry_when(lead["id"], "Industry", lambda entry: entry.state == "calling")
        assert stack.counts()["calling"] == 5
        assert request_json("GET", f"{stack.url}/livez")
