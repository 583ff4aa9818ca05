"""What every handler works with: the service as this process knows it. Made once, by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from service.metrics_reading import BudgetWindow

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from service.knowledge import Knowledge
    from service.ledger import Ledger


class Window(BudgetWindow, Protocol):
    """A budget's ceiling as it stands now, for people; see `workers.budget.Window`."""

    @property
    def words(self) -> str:
        """What people call it."""

    @property
    def ends_ms(self) -> int:
        """When the next window begins, Unix milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """See the module.

    Attributes:
        ledger: everything about enrichments.
        knowledge: rules and fields as of now.
        windows: the budgets of the rules in force at a moment (Unix milliseconds).
        clock: Unix seconds.
        zone: where a budget's days begin.
        redis_problems: what the last look at Redis's health found wrong.
        keyed: whether a signature key is known.
        own_api_key_id: see `Knowledge.plan`.
        close_app_url: where people see a lead in Close.
    """

    ledger: Ledger
    knowledge: Callable[[], Knowledge]
    windows: Callable[[int], Sequence[Window]]
    clock: Callable[[], float]
    zone: dt.tzinfo
    redis_problems: Callable[[], Sequence[str]]
    keyed: Callable[[], bool]
    own_api_key_id: str | None
    close_app_url: str = "https://app.close.com"

    @property
    def redis(self) -> Redis:
        """The client that all reads go through."""
        return self.ledger.redis

    def now_ms(self) -> int:
        """This process's clock, Unix milliseconds."""
        return round(self.clock() * 1000)
