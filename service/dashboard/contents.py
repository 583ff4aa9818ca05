"""Every route of the dashboard, from the modules that declare them, in the order of the navigation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.dashboard.pages_overview import ROUTES as OVERVIEW
from service.dashboard.pages_system import ROUTES as SYSTEM

if TYPE_CHECKING:
    from service.dashboard.routes import Route

ROUTES: tuple[Route, ...] = (*OVERVIEW, *SYSTEM)
