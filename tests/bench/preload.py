"""A backlog of any size, planned by the service's own code: what waits is what would wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import redis.asyncio
from receiver_box import ORGANIZATION

from service.accept import Accepter
from service.event import Event
from service.planning import PlannedEnrichment
from service.rules import Mode, ObjectType, Priority, Target
from tests.bench.deliveries import EVENT_ID_LETTERS, ID_LETTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

AT_ONCE = 256
MOMENT = "2026-10-14T09:33:12.418000"


def preload(url: str, enrichments: int, *, fields: Mapping[str, str]) -> None:
    """Plan enrichments of leads that no delivery is about, one for each of the fields.

    Args:
        url: of Redis.
        enrichments: how many; rounded up to whole leads.
        fields: ids and names, at least one.
    """
    asyncio.run(_preload(url, -(-enrichments // len(fields)), fields))


async def _preload(url: str, leads: int, fields: Mapping[str, str]) -> None:
    numbers = iter(range(leads))
    async with redis.asyncio.Redis.from_url(url) as client:
        accepter = Accepter(client)

        async def plan() -> None:
            for number in numbers:
                lead_id = f"lead_{number:x>{ID_LETTERS}}"
                event = Event(
                    id=f"ev_{number:x>{EVENT_ID_LETTERS}}",
                    organization_id=ORGANIZATION,
                    object_type="lead",
                    object_id=lead_id,
                    lead_id=lead_id,
                    action="created",
                    date_created=MOMENT,
                    date_updated=MOMENT,
                )
                await accepter.accept(event, _wanted(lead_id, fields))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(plan())


def _wanted(lead_id: str, fields: Mapping[str, str]) -> list[PlannedEnrichment]:
    return [
        PlannedEnrichment(
            target=Target(
                rule=name,
                object_type=ObjectType.LEAD,
                field_id=field_id,
                field_name=name,
                mode=Mode.FILL,
                settle_seconds=0.0,
                priority=Priority.NORMAL,
            ),
            object_id=lead_id,
            lead_id=lead_id,
            judged=True,
            reopens=False,
        )
        for field_id, name in fields.items()
    ]
