"""The sandbox's organization in memory, with its options, clock, randomness and listeners."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.sandbox.calls import Calls
from service.sandbox.faults import Faults
from service.sandbox.fields import DEFAULT_FIELDS
from service.sandbox.ids import named_id, new_id
from service.sandbox.journal import Cause, Journal
from service.sandbox.limits import Limiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from service.sandbox.fields import FieldSpec
    from service.sandbox.journal import Event
    from service.sandbox.options import SandboxOptions
    from service.sandbox.search_api import SearchCursor
    from service.sandbox.subscriptions import Subscription

Record = dict[str, Any]
"""A lead or contact in the flat shape of an event's `data`. Its nested values are replaced, never changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """Who owns everything in the sandbox.

    Attributes:
        id: `orga_…`.
        name: for people.
        user_id: the only user, whose keys are accepted.
        user_name: that user's name.
        role_id: that user's role.
        statuses: lead statuses, label by id; new leads get the first.
    """

    id: str = named_id("orga", "sandbox")
    name: str = "Sandbox"
    user_id: str = named_id("user", "sandbox")
    user_name: str = "Marisol Venn"
    role_id: str = named_id("role", "admin")
    statuses: dict[str, str] = field(
        default_factory=lambda: {
            named_id("stat", label): label for label in ("Potential", "Qualified", "Customer", "Bad Fit")
        }
    )


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the sandbox counts beside enrichment calls.

    Attributes:
        requests: answers given, those that only a fault gave too.
        rate_limited: answers with 429 because a bucket was empty.
        deliveries_succeeded: attempts a receiver took.
        deliveries_failed: attempts it did not.
        deliveries_dropped: events given up after 72 hours of Close's time.
    """

    requests: int = 0
    rate_limited: int = 0
    deliveries_succeeded: int = 0
    deliveries_failed: int = 0
    deliveries_dropped: int = 0


class World:
    """Everything the sandbox knows. Tests look into it; the endpoints change it.

    Attributes:
        options: those in force; change them by `configure`.
        clock: Unix seconds.
        random: the only source of chance.
        organization: who owns all.
        fields: custom fields by id.
        leads: leads by id.
        contacts: contacts by id.
        journal: the event log.
        calls: what is known of the enrichment calls.
        credits: the balance.
        subscriptions: webhook subscriptions by id.
        cursors: open searches by cursor.
        faults: what is to go wrong.
        limiter: the rate limits' buckets.
        tally: counters.
        alarms: set by `look_at_clock`, for those who wait for a time.
    """

    def __init__(
        self,
        *,
        options: SandboxOptions,
        clock: Callable[[], float],
        random: Random,
        fields: tuple[FieldSpec, ...] = DEFAULT_FIELDS,
    ) -> None:
        self.clock = clock
        self.random = random
        self.organization = Organization()
        self.fields = {entry.id: entry for entry in fields}
        self.leads: dict[str, Record] = {}
        self.contacts: dict[str, Record] = {}
        self.journal = Journal(organization_id=self.organization.id, random=random)
        self.calls = Calls(retain=options.retain_calls)
        self.credits = options.credits
        self.subscriptions: dict[str, Subscription] = {}
        self.cursors: dict[str, SearchCursor] = {}
        self.faults = Faults()
        self.limiter = Limiter()
        self.tally = Tally()
        self.alarms: set[asyncio.Event] = set()
        self.started_at = clock()
        self._listeners: list[Callable[[Event], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self.configure(options)

    def configure(self, options: SandboxOptions) -> None:
        """Put options in force. The balance of credits is left alone."""
        self.options = options
        self.calls.retain = options.retain_calls
        self._keys_by_header = {
            b"Basic " + base64.b64encode(f"{key}:".encode()): key.partition(".")[0]
            for key in options.api_keys
        }

    def api_key_id(self, authorization: bytes) -> str | None:
        """Whose key an `Authorization` header carries as user name, without a password; None if nobody's."""
        return self._keys_by_header.get(authorization)

    def record(self, object_type: str, object_id: str) -> Record | None:
        """A lead or contact, or None."""
        if object_type == "lead":
            return self.leads.get(object_id)
        return self.contacts.get(object_id) if object_type == "contact" else None

    def fields_of(self, object_type: str) -> list[FieldSpec]:
        """The custom fields of an object type, shared ones too, in the app's order."""
        return [entry for entry in self.fields.values() if object_type in entry.objects]

    def field_named(self, name: str) -> FieldSpec:
        """The custom field called `name`; KeyError if there is none."""
        for entry in self.fields.values():
            if entry.name == name:
                return entry
        raise KeyError(f"no custom field is called {name!r}")

    def cause(self, *, path: str, method: str, api_key_id: str | None = None) -> Cause:
        """The cause of what one call changes; without a key it is a person's doing in the app."""
        return Cause(
            user_id=self.organization.user_id,
            api_key_id=api_key_id,
            request_id=new_id("req", self.random),
            path=path,
            method=method,
        )

    def emit(
        self,
        object_type: str,
        action: str,
        *,
        object_id: str,
        lead_id: str | None,
        data: Record | None,
        cause: Cause,
        previous: Record | None = None,
        changed: tuple[str, ...] = (),
    ) -> None:
        """Write an event into the log and tell the listeners, unless it became part of an earlier one."""
        event = self.journal.append(
            object_type=object_type,
            action=action,
            object_id=object_id,
            lead_id=lead_id,
            data=data,
            previous={} if previous is None else previous,
            changed=changed,
            cause=cause,
            now=self.clock(),
            consolidation_seconds=self.real_seconds(self.options.consolidation_seconds),
            retained=self.options.events_retained,
        )
        if event is not None:
            for listener in self._listeners:
                listener(event)
        self.notify()

    def real_seconds(self, close_seconds: float) -> float:
        """How long something of Close's takes here."""
        return close_seconds * self.options.clock_scale

    def look_at_clock(self) -> None:
        """Have everything that is due by now done; only a clock that is set by hand needs this."""
        for alarm in self.alarms:
            alarm.set()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have each new event told to `listener`, at once and before the call that caused it is answered."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[Event], None]) -> None:
        """End what `listen` began."""
        self._listeners.remove(listener)

    def notify(self) -> None:
        """Have everybody in `until` look again."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is tried as calls begin and after events, answers, deliveries."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
