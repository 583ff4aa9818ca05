"""While Redis or Close is away: 503 for what cannot be kept, and nothing that was accepted is ever lost."""

import asyncio
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis
from receiver_box import (
    ORGANIZATION,
    Receiver,
    paused,
    rulebook,
    sample,
    sample_event,
    save_schemas,
    schema_payload,
    signed,
    wait_until_written,
)
from reserved_port import reserved_port
from waiting import wait_until

from service import intake, jobs, keys, knowledge
from service.cli import serve
from service.embedded_redis import EmbeddedRedis
from service.enrichment import entry_id
from service.settings import Settings, load_settings

AT_ONCE_SECONDS = 10.0
"""Less than a patient receiver's patience, and enough for a busy machine."""

SOON_SECONDS = 2.0
SLACK_SECONDS = 5.0
"""For a busy machine."""


@pytest.fixture
def own_redis(tmp_path):
    """A server that the test may stop."""
    with EmbeddedRedis(tmp_path) as server:
        save_schemas(server.url)
        yield server


@pytest.fixture(autouse=True)
def _quick_backlog(monkeypatch):
    monkeypatch.setattr(intake, "BACKLOG_PAUSE_SECONDS", 0.01)


def new_event(number: int) -> bytes:
    """A contact created; contacts have one rule, so each leads to one enrichment."""
    return sample_event("04", id=f"ev_{number}", object_id=f"cont_{number}")


def entry_key(number: int) -> str:
    return keys.entry(
        entry_id(organization_id=ORGANIZATION, object_id=f"cont_{number}", field_id="cf_seniority")
    )


def planned_objects(client) -> list[str]:
    """The objects of all enrichments, in the order in which they were planned."""
    return [json.loads(fields[b"fact"])["object"] for _, fields in client.xrange(keys.HISTORY)]


def timed(call):
    started = time.monotonic()
    answer = call()
    return answer, time.monotonic() - started


def is_unavailable(answer) -> bool:
    return (answer.status, answer.headers["retry-after"], answer.body) == (
        503,
        "10",
        {"error": "not accepted: Redis is unavailable; deliver again"},
    )


def test_without_redis_a_delivery_is_a_503_at_once_and_accepted_when_redis_is_back(own_redis):
    with Receiver(own_redis.url) as receiver:
        assert receiver.post(sample("02")).status == 202
        wait_until_written(own_redis.url)
        own_redis.kill()
        for body in (sample("04"), b"cannot be read"):
            answer, seconds = timed(lambda body=body: receiver.post(body))
            assert is_unavailable(answer)
            assert seconds < AT_ONCE_SECONDS
        own_redis.start()
        assert receiver.post(sample("04")).body["status"] == "accepted"
        assert receiver.post(sample("02")).body["status"] == "duplicate"


def test_while_redis_hangs_every_delivery_is_a_503_soon_and_accepted_when_it_goes_on(own_redis):
    assert intake.PATIENCE_SECONDS < SOON_SECONDS
    with Receiver(own_redis.url, patient=False) as receiver:
        wait_until(lambda: receiver.post(sample("02")).status == 202)
        with paused(own_redis):
            for _ in range(2):
                answer, seconds = timed(lambda: receiver.post(sample("04")))
                assert is_unavailable(answer)
                assert seconds < SOON_SECONDS + SLACK_SECONDS
            assert receiver.get("/livez").status == 200
        assert wait_until(lambda: receiver.post(sample("04")).status == 202)
        with redis.Redis.from_url(own_redis.url) as client:
            assert jobs.rq_queue(jobs.LIVE_QUEUE, client).count == 2


def test_bad_signatures_are_refused_and_ignored_events_ignored_without_redis_too(own_redis):
    with Receiver(own_redis.url) as receiver:
        own_redis.kill()
        assert receiver.post(sample("02"), signed(sample("04"))).status == 401
        assert receiver.post(sample("07")).status == 200


def test_a_receiver_may_be_started_before_its_redis(own_redis):
    own_redis.kill()
    with Receiver(own_redis.url) as receiver:
        assert is_unavailable(receiver.post(sample("02")))
        own_redis.start()
        assert wait_until(lambda: receiver.post(sample("02")).status == 202)


def test_events_before_closes_fields_are_known_are_kept_and_planned_later_in_their_order(redis_url):
    kept = {"status": "accepted", "reason": "will be planned as soon as Close's fields are known"}
    with redis.Redis.from_url(redis_url) as client:
        with Receiver(redis_url) as receiver:
            for number in range(20):
                answer = receiver.post(new_event(number))
                assert answer.status == 202
                assert answer.body == {"event": f"ev_{number}", "type": "contact.created", **kept}
            assert receiver.post(b"cannot be read").body["status"] == "quarantined"
            assert client.llen(keys.BACKLOG) == 20
            save_schemas(redis_url)
            wait_until(lambda: not client.exists(keys.BACKLOG))
        assert planned_objects(client) == [f"cont_{number}" for number in range(20)]
        assert jobs.rq_queue(jobs.LIVE_QUEUE, client).count == 20


def test_what_is_kept_survives_the_receiver_and_redis_itself(own_redis):
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
        with Receiver(own_redis.url) as receiver:
            for number in range(5):
                assert receiver.post(new_event(number)).status == 202
        wait_until_written(own_redis.url)
        own_redis.kill()
        own_redis.start()
        assert client.llen(keys.BACKLOG) == 5
        save_schemas(own_redis.url)
        with Receiver(own_redis.url):
            wait_until(lambda: not client.exists(keys.BACKLOG))
        assert planned_objects(client) == [f"cont_{number}" for number in range(5)]


def test_a_stop_between_planning_and_forgetting_plans_nothing_twice(redis_url):
    save_schemas(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        with Receiver(redis_url) as receiver:
            assert receiver.post(new_event(1)).body["status"] == "accepted"
            client.rpush(keys.BACKLOG, new_event(1), new_event(2))
            wait_until(lambda: not client.exists(keys.BACKLOG))
        assert planned_objects(client) == ["cont_1", "cont_2"]


def test_two_receivers_share_a_backlog_and_plan_each_event_once(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.rpush(keys.BACKLOG, *(new_event(number) for number in range(200)))
        with Receiver(redis_url), Receiver(redis_url):
            save_schemas(redis_url)
            wait_until(lambda: not client.exists(keys.BACKLOG))
        assert sorted(planned_objects(client)) == sorted(f"cont_{number}" for number in range(200))


def test_a_kept_event_that_nobody_can_read_is_quarantined_and_the_others_go_on(redis_url):
    save_schemas(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.rpush(keys.BACKLOG, b"\xff not an event", new_event(1))
        with Receiver(redis_url):
            wait_until(lambda: not client.exists(keys.BACKLOG))
        assert planned_objects(client) == ["cont_1"]
        ((_, fields),) = client.xrange(keys.QUARANTINE)
        assert fields[b"body"] == b"\xff not an event"


def test_a_kept_event_that_redis_refuses_waits_without_holding_up_the_others(redis_url):
    save_schemas(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set(entry_key(1), "not a hash")
        client.rpush(keys.BACKLOG, new_event(1), new_event(2), new_event(3))
        with Receiver(redis_url):
            # an event leaves the backlog a moment after it is planned
            wait_until(lambda: client.llen(keys.BACKLOG) == 1)
            assert planned_objects(client) == ["cont_2", "cont_3"]
            client.delete(entry_key(1))
            wait_until(lambda: not client.exists(keys.BACKLOG))
        assert planned_objects(client) == ["cont_2", "cont_3", "cont_1"]


@pytest.mark.parametrize("way", ["live", "kept"])
def test_an_event_that_trips_over_a_mistake_of_ours_is_kept_for_a_person(redis_url, monkeypatch, way):
    save_schemas(redis_url)
    plan = knowledge.plan

    def trip(event, **options):
        if event.id == "ev_1":
            raise ZeroDivisionError("Marisol Venn")
        return plan(event, **options)

    monkeypatch.setattr(knowledge, "plan", trip)
    with redis.Redis.from_url(redis_url) as client, Receiver(redis_url) as receiver:
        if way == "live":
            answer = receiver.post(new_event(1))
            assert (answer.status, answer.body["reason"]) == (202, "internal error: ZeroDivisionError")
            assert receiver.post(new_event(2)).status == 202
        else:
            client.rpush(keys.BACKLOG, new_event(1), new_event(2))
            wait_until(lambda: not client.exists(keys.BACKLOG))
        ((_, fields),) = client.xrange(keys.QUARANTINE)
        assert (fields[b"reason"], fields[b"body"]) == (b"internal error: ZeroDivisionError", new_event(1))
        assert planned_objects(client) == ["cont_2"]


def test_a_backlog_outlives_an_outage_of_redis(own_redis):
    with redis.Redis.from_url(own_redis.url) as client, Receiver(own_redis.url) as receiver:
        own_redis.kill()
        assert is_unavailable(receiver.post(new_event(1)))
        own_redis.start()
        client.rpush(keys.BACKLOG, new_event(2))
        wait_until(lambda: not client.exists(keys.BACKLOG))
        assert planned_objects(client) == ["cont_2"]


def test_a_receiver_whose_rules_are_all_disabled_waits_and_does_not_spin(redis_url):
    rules = rulebook(
        "{version: 1, rules: [{name: Seniority, object: contact, field: Seniority, enabled: false}]}"
    )
    with redis.Redis.from_url(redis_url) as client, Receiver(redis_url, rules=rules) as receiver:
        assert receiver.post(new_event(1)).status == 202
        pushed = client.info("commandstats")["cmdstat_rpush"]["calls"]
        save_schemas(redis_url)
        wait_until(lambda: not client.exists(keys.BACKLOG))
        assert client.info("commandstats")["cmdstat_rpush"]["calls"] == pushed


class _SchemaHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = schema_payload(self.path.rstrip("/").rpartition("/")[2])
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_events_are_planned_when_an_unreachable_close_is_reached_after_all(redis_url):
    with (
        reserved_port() as port,
        redis.Redis.from_url(redis_url) as client,
        Receiver(
            redis_url, CLOSE_API_KEY="api_test.secret", CLOSE_API_URL=f"http://127.0.0.1:{port}"
        ) as receiver,
    ):
        assert receiver.post(new_event(1)).status == 202
        assert "fields" in receiver.get("/readyz").body["degraded"]
        assert client.llen(keys.BACKLOG) == 1
        with ThreadingHTTPServer(("127.0.0.1", port), _SchemaHandler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            # as the passing of time would
            client.delete(keys.schema_asker("lead"), keys.schema_asker("contact"))
            wait_until(lambda: not client.exists(keys.BACKLOG))
            server.shutdown()
            thread.join()
        assert planned_objects(client) == ["cont_1"]
        assert "fields" not in receiver.get("/readyz").body["degraded"]


def test_a_close_that_never_answers_keeps_the_receiver_from_nothing(redis_url):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        close = {
            "CLOSE_API_KEY": "api_test.secret",
            "CLOSE_API_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        with Receiver(redis_url, start_patience=0.05, **close) as receiver:
            answer, seconds = timed(lambda: receiver.post(new_event(1)))
            assert answer.status == 202
            assert seconds < AT_ONCE_SECONDS


async def test_a_lost_background_task_is_told_in_the_log(capsys):
    async def fail():
        raise ZeroDivisionError

    task = asyncio.create_task(fail(), name="working off the backlog")
    await asyncio.wait({task})
    serve._report_loss(serve.get_logger("web"), task)
    told = capsys.readouterr().out
    assert "lost a background task" in told
    assert "working off the backlog" in told


@pytest.mark.parametrize("missing", ["REDIS_URL", "CLOSE_SIGNATURE_KEYS"])
def test_without_redis_address_or_signature_key_there_is_no_receiver(missing):
    environ = {"REDIS_URL": "redis://localhost", "CLOSE_SIGNATURE_KEYS": "ab" * 32}
    del environ[missing]
    settings = load_settings(environ, needs=())
    assert isinstance(settings, Settings)
    with pytest.raises(ValueError, match="must be set"):
        serve.build_app(settings, rulebook())
