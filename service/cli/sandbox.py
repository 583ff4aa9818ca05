"""The command `sandbox`."""

from __future__ import annotations

from dataclasses import replace

import click

from service.cli.start import give_up
from service.sandbox.options import DEMO_API_KEY, Limit, SandboxOptions
from service.sandbox.server import run_sandbox

ENRICH_GROUP = "POST enrich_field"


def run_sandbox_command(
    *,
    host: str,
    port: int,
    latency_seconds: float,
    calls_per_second: float | None,
    credit_balance: int | None,
) -> None:
    """Serve a pretend Close until told to stop."""
    limits = {}
    if calls_per_second is not None:
        limits[ENRICH_GROUP] = Limit(rate_per_second=calls_per_second, burst=max(1, round(calls_per_second)))
    options = SandboxOptions(
        latency_min_seconds=latency_seconds / 2,
        latency_max_seconds=latency_seconds * 1.5,
        limits=limits,
    )
    if credit_balance is not None:
        options = replace(options, credits=credit_balance)

    def ready(base_url: str) -> None:
        click.echo(f"A pretend Close: CLOSE_API_URL={base_url}/api/v1 CLOSE_API_KEY={DEMO_API_KEY}")

    try:
        run_sandbox(options, host, port, ready)
    except OSError as error:
        give_up(f"cannot listen on {host}:{port}: {error.strerror}", code=1)
