"""Webhook subscriptions over HTTP: `/webhook/` and `/webhook/{id}/`.

Source: https://developer.close.com/api/resources/webhooks. `signature_key` is shown on create, GET by id and
PUT, and is absent from the list, as recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.sandbox.filters import filter_problem
from service.sandbox.ids import new_id
from service.sandbox.subscriptions import Interest, Subscription
from service.sandbox.wire import Reply, answer, invalid, json_object, missing

if TYPE_CHECKING:
    from service.sandbox.wire import Request
    from service.sandbox.world import World

_CREATABLE = ("url", "events", "verify_ssl")
_UPDATABLE = (*_CREATABLE, "status")
_INTEREST = ("object_type", "action", "extra_filter")


def list_webhooks(world: World, _request: Request) -> Reply:
    """`GET /webhook/`."""
    shown = [subscription.shown(with_key=False) for subscription in world.subscriptions.values()]
    return answer({"data": shown, "has_more": False})


def get_webhook(world: World, request: Request) -> Reply:
    """`GET /webhook/{id}/`."""
    subscription = world.subscriptions.get(request.object_id)
    return missing() if subscription is None else answer(subscription.shown(with_key=True))


def post_webhook(world: World, request: Request) -> Reply:
    """`POST /webhook/`: 201 with the new key; 400 for a duplicate, naming its id, and beyond the limit."""
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    problems = _problems(body, _CREATABLE)
    for name in ("url", "events"):
        if name not in body:
            problems[name] = "This field is required."
    if problems:
        return invalid(problems)
    events = _interests(body["events"])
    if (twin := _duplicate(world, body["url"], events)) is not None:
        return invalid(None, f"Duplicate active subscription: {twin.id}")
    limit = world.options.subscription_limit
    if len(world.subscriptions) >= limit:
        return invalid(None, f"You have reached the limit of {limit} webhook subscriptions.")
    now = world.clock()
    subscription = Subscription(
        id=new_id("whsub", world.random),
        url=body["url"],
        events=events,
        verify_ssl=body.get("verify_ssl", True),
        signature_key=world.random.randbytes(32).hex(),
        user_id=world.organization.user_id,
        created_at=now,
        updated_at=now,
    )
    world.subscriptions[subscription.id] = subscription
    location = f"{request.path}{subscription.id}/".encode()
    return answer(subscription.shown(with_key=True), status=201, headers=((b"location", location),))


def put_webhook(world: World, request: Request) -> Reply:
    """`PUT /webhook/{id}/`: a patch of `url`, `events`, `verify_ssl` and `status`."""
    subscription = world.subscriptions.get(request.object_id)
    if subscription is None:
        return missing()
    body = json_object(request.body)
    if isinstance(body, Reply):
        return body
    if problems := _problems(body, _UPDATABLE):
        return invalid(problems)
    url = body.get("url", subscription.url)
    events = _interests(body["events"]) if "events" in body else subscription.events
    twin = _duplicate(world, url, events)
    if twin not in (None, subscription) and body.get("status", subscription.status) == "active":
        return invalid(None, f"Duplicate active subscription: {twin.id if twin else ''}")
    subscription.url, subscription.events = url, events
    subscription.verify_ssl = body.get("verify_ssl", subscription.verify_ssl)
    if body.get("status") == "paused" and subscription.status == "active":
        subscription.pause("api")
    if body.get("status") == "active" and subscription.status == "paused":
        subscription.activate()
    subscription.updated_at = world.clock()
    return answer(subscription.shown(with_key=True))


def delete_webhook(world: World, request: Request) -> Reply:
    """`DELETE /webhook/{id}/`: 200 with `{}`; what waits for delivery is lost."""
    subscription = world.subscriptions.pop(request.object_id, None)
    if subscription is None:
        return missing()
    subscription.pause("api")
    return answer({})


def _duplicate(world: World, url: str, events: tuple[Interest, ...]) -> Subscription | None:
    """The active subscription with the same address and the same events, in any order."""
    for subscription in world.subscriptions.values():
        same_events = all(event in subscription.events for event in events) and all(
            event in events for event in subscription.events
        )
        if subscription.status == "active" and subscription.url == url and same_events:
            return subscription
    return None


def _interests(events: list[dict[str, Any]]) -> tuple[Interest, ...]:
    return tuple(Interest(**event) for event in events)


def _problems(body: dict[str, Any], known: tuple[str, ...]) -> dict[str, str]:
    problems = {name: "Unknown field." for name in body if name not in known}
    url = body.get("url", "https://")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        problems["url"] = "Not a valid URL."
    if not isinstance(body.get("verify_ssl", True), bool):
        problems["verify_ssl"] = "Not a valid boolean."
    if "status" in known and body.get("status", "active") not in ("active", "paused"):
        problems["status"] = "Expected active or paused."
    if "events" in body and (problem := _events_problem(body["events"])):
        problems["events"] = problem
    return problems


def _events_problem(events: object) -> str | None:
    if not isinstance(events, list) or not events:
        return "Expected a list with at least one event."
    for index, event in enumerate(events):
        if not isinstance(event, dict):
            return f"[{index}]: expected an object"
        unknown = [name for name in event if name not in _INTEREST]
        if unknown:
            return f"[{index}].{unknown[0]}: unknown field"
        for name in ("object_type", "action"):
            if not isinstance(event.get(name), str) or not event[name]:
                return f"[{index}].{name}: this field is required"
        extra_filter = event.get("extra_filter")
        problem = extra_filter is not None and filter_problem(extra_filter, path=f"[{index}].extra_filter")
        if problem:
            return problem
    return None
