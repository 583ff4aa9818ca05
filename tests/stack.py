"""The whole service as real processes, beside a sandbox that tests look into.

A `Stack` has a Redis of its own, the sandbox served from a thread of the test's process, one `web` process
and any number of `worker` processes. Each can be killed, paused and started again; leaving ends them all.
"""

from __future__ import annotations

import base64
import contextlib
import random
import time
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast

import redis
from stack_parts import Background, HeldPort, Processes
from waiting import PATIENCE_SECONDS, wait_until

from service import jobs, keys
from service.cli.processes import request_json
from service.embedded_redis import EmbeddedRedis
from service.enrichment import ACTIVE_STATES, ENTRY_VERSION, decode_entry
from service.ledger import Ledger
from service.redis_client import blocking_redis_client, redis_client
from service.redis_text import raw_hash, text, texts
from service.sandbox import records
from service.sandbox.fields import DEFAULT_FIELDS
from service.sandbox.options import DEMO_API_KEY, SandboxOptions
from service.sandbox.server import serve_sandbox
from service.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from pathlib import Path

    from service.enrichment import Entry
    from service.sandbox.calls import Call

Answer = TypeVar("Answer")

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

CREATED = (("lead", "created"), ("contact", "created"))


def lively_world(*, fields: tuple[Any, ...] = DEFAULT_FIELDS, **options: Any) -> World:
    """A world in real time whose AI is quick and always finds something; events are delivered at once."""
    quick = {
        "latency_min_seconds": 0.02,
        "latency_max_seconds": 0.02,
        "nothing_found_share": 0.0,
        "consolidation_seconds": 0.0,
        "clock_scale": 0.01,
    }
    return World(
        options=SandboxOptions(**{**quick, **options}),
        clock=time.time,
        random=random.Random(7),  # noqa: S311  chance in tests is no secret
        fields=fields,
    )


class Stack:
    """See the module. Made by `running`."""

    def __init__(
        self,
        directory: Path,
        *,
        rules: str,
        world: World,
        background: Background,
        redis_url: str | None = None,
    ) -> None:
        self.world = world
        self.directory = directory
        # a disk that is slow to sync would have it answer late; what a killed process has written stays
        self.server = EmbeddedRedis(directory, fsync="no")
        if redis_url is None:
            self.server.start()
        self.redis_url = redis_url or self.server.url
        self.redis = blocking_redis_client(self.redis_url)
        self.held_port = HeldPort()
        self.port = self.held_port.number
        self.url = f"http://127.0.0.1:{self.port}"
        self._background = background
        self.write_rules(rules)
        self.processes = Processes(
            directory,
            {
                "CLOSE_API_KEY": DEMO_API_KEY,
                "REDIS_URL": self.redis_url,
                "RULES_FILE": str(directory / "rules.yaml"),
                "PORT": str(self.port),
                "LOG_FORMAT": "json",
                "LOG_LEVEL": "debug",
            },
        )

    # parts

    def subscribe(self, sandbox_url: str, events: tuple[tuple[str, str], ...] = CREATED) -> None:
        """Have the sandbox deliver events to where `web` will listen."""
        basic = base64.b64encode(f"{DEMO_API_KEY}:".encode()).decode()
        subscription = request_json(
            "POST",
            f"{sandbox_url}/api/v1/webhook/",
            {
                "url": f"{self.url}/webhooks/close",
                "events": [{"object_type": kind, "action": action} for kind, action in events],
            },
            headers={"authorization": f"Basic {basic}"},
        )
        self.processes.environ["CLOSE_API_URL"] = f"{sandbox_url}/api/v1"
        self.processes.environ["CLOSE_SIGNATURE_KEYS"] = subscription["signature_key"]

    def start_web(self, **settings: Any) -> None:
        self.processes.start("web", "web", **settings)

    def start_worker(self, name: str = "worker", **settings: Any) -> None:
        self.processes.start(name, "worker", **settings)

    def write_rules(self, text: str) -> None:
        """Put other rules in place of those there are, in one step: nobody reads half of them."""
        written = self.directory / "rules.yaml.new"
        written.write_text(text)
        written.replace(self.directory / "rules.yaml")

    def wait_ready(self, *names: str) -> None:
        """Wait until these parts do their work."""
        for name in names:
            self.wait(partial(self._is_ready, name))

    def degraded(self) -> dict[str, str]:
        """What `/readyz` says needs somebody; for a moment Redis may be too slow for `web` to tell."""
        return cast("dict[str, str]", self.wait(self._readiness)["degraded"])

    def _readiness(self) -> dict[str, Any] | None:
        try:
            return cast("dict[str, Any]", request_json("GET", f"{self.url}/readyz"))
        except OSError:
            return None

    def _is_ready(self, name: str) -> bool:
        self.processes.check()
        return self._web_is_ready() if name == "web" else self._worker_is_ready(name)

    def _web_is_ready(self) -> bool:
        found = self._readiness()
        return found is not None and "fields" not in found["degraded"]

    def _worker_is_ready(self, name: str) -> bool:
        wanted = str(self.processes.pid(name)).encode()
        # with Sentinels, a busy machine may have another master just now
        with contextlib.suppress(redis.RedisError):
            return any(self.redis.hget(key, "pid") == wanted for key in self.redis.smembers("rq:workers"))
        return False

    def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Deliver something to `web`; the status answered."""
        request = urllib.request.Request(  # noqa: S310  our own web
            f"{self.url}/webhooks/close", data=body, headers=dict(headers)
        )
        try:
            with _DIRECT.open(request, timeout=PATIENCE_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def deliver(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Deliver something until it is not answered 503, as Close does: Redis may be slow for a moment."""

        def answered() -> int | None:
            status = self.post(body, headers)
            return None if status == HTTPStatus.SERVICE_UNAVAILABLE else status

        return self.wait(answered)

    # the sandbox

    def in_sandbox(self, action: Callable[[World], Answer]) -> Answer:
        """Do something to the world, on its own thread."""
        return self._background.call(lambda: action(self.world))

    def add_lead(self, **body: Any) -> dict[str, Any]:
        """A person makes a lead; `contacts` nests some."""
        body = {"name": "Brindlemoor Joinery", "url": "https://brindlemoor.example", **body}
        return self.in_sandbox(
            lambda world: records.create_lead(world, body, world.cause(path="/api/v1/lead/", method="POST"))
        )

    def change(self, object_type: str, object_id: str, **changes: Any) -> None:
        """A person changes a record."""
        self.in_sandbox(
            lambda world: records.update(
                world, object_type, object_id, changes, world.cause(path="/api/v1/lead/", method="PUT")
            )
        )

    def value(self, object_id: str, field: str) -> Any:
        """What a field holds in Close."""
        object_type = "contact" if object_id.startswith("cont_") else "lead"
        record = self.world.record(object_type, object_id) or {}
        return record.get(self.world.field_named(field).key)

    def calls(self, object_id: str | None = None, field: str | None = None) -> list[Call]:
        """The enrichment calls that Close got, of one record or field if given."""
        field_id = None if field is None else self.world.field_named(field).id
        return [
            call
            for call in list(self.world.calls.made)
            if object_id in (None, call.object_id) and field_id in (None, call.field_id)
        ]

    # the ledger

    def ask(self, question: Callable[[Ledger], Coroutine[Any, Any, Answer]]) -> Answer:
        """Ask the ledger something."""

        async def work() -> Answer:
            connection = redis_client(self.redis_url)
            try:
                return await question(Ledger(connection))
            finally:
                await connection.aclose()

        return self._background.run(work())

    def entries(self, object_id: str) -> dict[str, Entry]:
        """A record's enrichments by rule."""
        ids = texts(self.redis.hkeys(keys.object_entries(object_id)))
        organization = text(self.redis.get(keys.ORGANIZATION) or b"")
        found = (
            decode_entry(one, raw_hash(self.redis.hgetall(keys.entry(one))), organization_id=organization)
            for one in ids
        )
        return {entry.rule: entry for entry in found if entry is not None}

    def entry_when(
        self, object_id: str, rule: str, accept: Callable[[Entry], bool], *, seconds: float = PATIENCE_SECONDS
    ) -> Entry:
        """Wait until a record's enrichment is as it should be."""

        def look() -> Entry | None:
            entry = self.entries(object_id).get(rule)
            return entry if entry is not None and accept(entry) else None

        return self.wait(look, seconds=seconds, object_id=object_id)

    def ended(self, object_id: str, *rules: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Entry]:
        """Wait until a record's enrichments by these rules are final; all of them by rule."""

        def look() -> dict[str, Entry] | None:
            found = self.entries(object_id)
            over = all(rule in found and found[rule].state.final for rule in rules)
            return found if over else None

        return self.wait(look, seconds=seconds, object_id=object_id)

    def counts(self) -> dict[str, int]:
        """How many enrichments are in each state that any is in."""
        raw = raw_hash(self.redis.hgetall(keys.COUNTS))
        return {state.decode(): int(count) for state, count in raw.items() if int(count)}

    def all_ended(self, *, total: int, seconds: float = 2 * PATIENCE_SECONDS) -> dict[str, int]:
        """Wait until there are so many enrichments and all are final; how many ended how."""

        def look() -> dict[str, int] | None:
            counts = self.counts()
            over = sum(counts.values()) >= total and not any(state in counts for state in ACTIVE_STATES)
            return counts if over else None

        return self.wait(look, seconds=seconds)

    def wait(
        self,
        look: Callable[[], Answer | None],
        *,
        seconds: float = PATIENCE_SECONDS,
        object_id: str | None = None,
    ) -> Answer:
        """Wait until something is so; the error of one that never is shows how things stand."""
        try:
            found = wait_until(look, seconds=seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.explain(object_id)}") from None
        return cast("Answer", found)

    def explain(self, object_id: str | None = None) -> str:
        """How things stand, for the message of a failed test."""
        stands = {} if object_id is None else self.entries(object_id)
        return "\n".join(
            [
                repr(self.counts()),
                *(f"{rule}: {entry.state} {entry.reason}" for rule, entry in stands.items()),
                self.processes.logs()[-6000:],
            ]
        )

    # time

    def let_waits_end(self) -> None:
        """Make all that is scheduled due now, as if its time had passed, for any worker to move on."""
        self.redis.delete(keys.housekeeper(ENTRY_VERSION))
        for queue in jobs.QUEUES:
            scheduled = texts(self.redis.zrange(jobs.scheduled_key(queue), 0, -1))
            if scheduled:
                self.redis.zadd(jobs.scheduled_key(queue), dict.fromkeys(scheduled, 1.0), xx=True)

    def let_leases_end(self, entries: Iterable[Entry]) -> None:
        """End the leases of enrichments in hand, and on housekeeping, as if their holder had been silent."""
        for entry in entries:
            self.redis.zadd(keys.ACTIVE, {entry.id: 1.0}, xx=True)
        self.redis.delete(keys.housekeeper(ENTRY_VERSION))

    # the workers

    def let_go(self, *workers: str) -> list[dict[str, Any]]:
        """What these workers logged on letting go of enrichments: at their end, or told they are lost."""
        return [
            line
            for worker in workers
            for end in ("settled", "put back")
            for line in self.processes.logged(worker, end)
        ]

    # RQ

    def jobs_in_hand(self) -> int:
        """How many jobs workers are at work on, as RQ sees it."""
        registries = [jobs.rq_queue(one, self.redis).started_job_registry for one in jobs.QUEUES]
        return sum(one.get_job_count(cleanup=False) for one in registries)

    def rq_leftovers(self) -> list[str]:
        """Every key of RQ's that is about a job, queue or registry: none when nothing is left."""
        kept = ("rq:queues", "rq:workers", "rq:worker:", "rq:clean_")
        return sorted(key for key in texts(self.redis.keys("rq:*")) if not key.startswith(kept))


@contextlib.contextmanager
def running(
    directory: Path,
    *,
    rules: str,
    world: World | None = None,
    web: bool = True,
    workers: int = 1,
    events: tuple[tuple[str, str], ...] = CREATED,
    redis_url: str | None = None,
    sandbox_host: str = "127.0.0.1",
    **settings: Any,
) -> Iterator[Stack]:
    """A stack with everything started and ready.

    Args:
        directory: for logs, rules and Redis's data.
        rules: text of the rules file.
        world: the sandbox's; `lively_world()` if None.
        web: whether to start `web`.
        workers: how many to start; one is called `worker`, more are `worker-0`, `worker-1`, …
        events: what is subscribed to.
        redis_url: a Redis that is there already; one of its own if None.
        sandbox_host: where the sandbox listens.
        settings: environment variables for all of our processes.
    """
    world = world or lively_world()
    with contextlib.ExitStack() as cleanup:
        background = cleanup.enter_context(Background())
        url = cleanup.enter_context(background.entered(serve_sandbox(world, host=sandbox_host)))
        stack = Stack(directory, rules=rules, world=world, background=background, redis_url=redis_url)
        cleanup.callback(stack.held_port.close)
        cleanup.callback(stack.server.stop)
        cleanup.callback(stack.redis.close)
        cleanup.callback(stack.processes.close)
        stack.subscribe(url, events)
        stack.processes.environ |= {name: str(value) for name, value in settings.items()}
        names = ["worker"] if workers == 1 else [f"worker-{number}" for number in range(workers)]
        if web:
            stack.start_web()
        for name in names:
            stack.start_worker(name)
        stack.wait_ready(*(["web"] if web else []), *names)
        yield stack
