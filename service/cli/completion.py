"""The command `completion`: what makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Example: close-enrich completion bash > ~/.local/share/bash-completion/completions/close-enrich
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    root = context.find_root()
    # click's own `source()` asks an installed bash for its version; the script is the same for all since 4.4
    script = completer(root.command, {}, "close-enrich", "_CLOSE_ENRICH_COMPLETE")
    click.echo(script.source_template % script.source_vars())
