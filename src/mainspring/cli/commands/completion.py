"""`mainspring completion`: the script by which a shell completes commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

_SHELLS = ("bash", "zsh", "fish")


@make("completion", reads_only=True)
@click.argument("shell", type=click.Choice(_SHELLS))
def command(call: Call, *, shell: str) -> None:
    """Print the script by which SHELL completes commands, options, and names of the project.

    Evaluate it where the shell starts, such as in ~/.bashrc: eval "$(mainspring completion bash)".
    """
    from mainspring.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None  # click has all three
    script = made(cli, {}, "mainspring", "_MAINSPRING_COMPLETE").source()
    call.result({"shell": shell, "script": script}, lambda _: click.echo(script))
