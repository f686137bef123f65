"""`mainspring init`: create a project."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make


@make("init")
@click.argument("name")
def command(call: Call, *, name: str) -> None:
    """Create a project in a new folder NAME: working features, example data, a model and an endpoint."""
    from pathlib import Path

    from mainspring.operations.init import create, next_commands

    if not name.strip():
        raise click.UsageError("Give the project a NAME, such as courier.")
    root = create(((call.folder or Path.cwd()) / name).resolve())
    call.result(
        {"project": str(root)},
        lambda console: console.print(
            f"Project [bold]{root.name}[/] is in {root}.\nNext:\n  cd {name}\n"
            + "\n".join(f"  {each}" for each in next_commands(root)),
            soft_wrap=True,
        ),
    )
