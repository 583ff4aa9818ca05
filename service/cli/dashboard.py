"""Whether the settings want a dashboard. What makes one is in `service.cli.site`, which is slow to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.settings_values import DashboardDoor, is_this_machine

if TYPE_CHECKING:
    from service.settings import Settings


def has_dashboard(settings: Settings) -> bool:
    """Whether `web` shows one: to whoever knows the token, or to this machine alone."""
    open_here = settings.dashboard is DashboardDoor.OPEN and is_this_machine(settings.host)
    return settings.admin_token is not None or open_here
