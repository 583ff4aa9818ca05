"""The fuzzer's command line."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

# the tests' helpers import each other by their bare names, as pytest has it
sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.receiver import Fuzz, Summary
from service.embedded_redis import EmbeddedRedis


@click.command()
@click.option("--inputs", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same one gives the same inputs.")
@click.option(
    "--keep-in",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("fuzz-findings"),
    show_default=True,
    help="Where inputs go that lead to a finding.",
)
def main(inputs: int, seed: int, keep_in: Path) -> None:
    """Give odd, mangled and forged deliveries to the receiver, and see that none does harm.

    Exit code 0 where nothing was found, else 1.
    """
    with tempfile.TemporaryDirectory() as directory, EmbeddedRedis(Path(directory)) as server:
        summary = Fuzz(server.url, seed=seed, keep_in=keep_in).run(inputs, progress=tell)
    for finding in summary.findings:
        click.echo(finding, err=True)
    click.echo(json.dumps(summary.figures()))
    sys.exit(1 if summary.findings else 0)


def tell(summary: Summary) -> None:
    """One line of progress."""
    click.echo(
        f"{summary.inputs:>9,} inputs  {summary.inputs / summary.seconds:,.0f}/s  "
        f"{summary.memory_mb[1]:.0f} MB  {summary.most_quarantined} in quarantine  "
        f"{len(summary.findings)} findings",
        err=True,
    )


if __name__ == "__main__":
    main()
