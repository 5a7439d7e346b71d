"""``effx completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes effx commands, options and files in SHELL.

    \b
    effx completion bash > ~/.local/share/bash-completion/completions/effx
    effx completion zsh > ~/.zfunc/_effx          # with fpath+=~/.zfunc before compinit
    effx completion fish > ~/.config/fish/completions/effx.fish
    """  # fmt: skip
    from effx.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "effx", "_EFFX_COMPLETE").source())
