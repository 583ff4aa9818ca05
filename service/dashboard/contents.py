"""Every route of the dashboard, from the modules that declare them, in the order of the navigation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.dashboard.pages_activity import ROUTES as ACTIVITY
from service.dashboard.pages_attention import ROUTES as ATTENTION
from service.dashboard.pages_attention_api import ROUTES as ATTENTION_API
from service.dashboard.pages_overview import ROUTES as OVERVIEW
from service.dashboard.pages_record import ROUTES as RECORD
from service.dashboard.pages_rules import ROUTES as RULES
from service.dashboard.pages_system import ROUTES as SYSTEM

if TYPE_CHECKING:
    from service.dashboard.routes import Route

ROUTES: tuple[Route, ...] = (
    *OVERVIEW,
    *ACTIVITY,
    *RECORD,
    *RULES,
    *ATTENTION,
    *ATTENTION_API,
    *SYSTEM,
)
