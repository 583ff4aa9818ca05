"""What a person asks a backfill for. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from workers.backfill_walk import FIRST_SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.binding import BoundRule
    from service.condition import Condition
    from service.rules import ObjectType


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be filled.

    Attributes:
        rules: the rules, in the file's order.
        where: a condition on the record besides, or None.
        query: a query of Close's search besides, or None.
        since: records created before are left alone, as it was written; None for all.
        since_second: the same as Unix time.
        limit: most enrichments, or None.
    """

    rules: tuple[BoundRule, ...]
    where: Condition | None = None
    query: Mapping[str, Any] | None = None
    since: str | None = None
    since_second: int = FIRST_SECOND
    limit: int | None = None

    @property
    def object_types(self) -> tuple[ObjectType, ...]:
        """The types whose records are searched, each once."""
        return tuple(dict.fromkeys(one.rule.object_type for one in self.rules))

    @property
    def digest(self) -> str:
        """Names the order: the same one, given again, goes on with the run that was begun for it.

        A rule that has changed in what it wants makes another order.
        """
        wish = {
            "rules": [
                [
                    one.rule.name,
                    one.rule.object_type,
                    one.field_id,
                    one.rule.mode,
                    "" if one.rule.when is None else one.rule.when.source,
                    one.rule.sample,
                    list(one.rule.after),
                ]
                for one in self.rules
            ],
            "where": "" if self.where is None else self.where.source,
            "query": self.query,
            "since": self.since or "",
            "limit": self.limit,
        }
        return hashlib.blake2b(msgspec.json.encode(wish, order="sorted"), digest_size=10).hexdigest()
