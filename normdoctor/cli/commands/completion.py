"""`normdoctor completion`: the script that lets a shell complete command lines."""

from __future__ import annotations

import click

from normdoctor.cli.completing import SHELLS, script


@click.command(short_help="Print the script that lets a shell complete command lines.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script of a shell: commands, options, rules, formats, files and models.

    \b
    bash: eval "$(normdoctor completion bash)"          in ~/.bashrc
    zsh:  eval "$(normdoctor completion zsh)"           in ~/.zshrc, below compinit
    fish: normdoctor completion fish | source           in ~/.config/fish/config.fish
    """
    click.echo(script(click.get_current_context().find_root().command, shell), nl=False)
