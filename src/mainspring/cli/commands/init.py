"""`mainspring init`: begin a project."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make


@make("init")
@click.argument("name")
def command(call: Call, *, name: str) -> None:
    """Begin a project in a new folder NAME: definitions that work, to change to yours."""
    from pathlib import Path

    from mainspring.operations.init import create

    if not name.strip():
        raise click.UsageError("Give the project a NAME, such as courier.")
    root = create(((call.folder or Path.cwd()) / name).resolve())
    call.result(
        {"project": str(root)},
        lambda console: console.print(
            f"Project [bold]{root.name}[/] is in {root}.\nNext:\n  cd {name}\n  mainspring apply\n"
            f"  mainspring ingest orders {root.name.replace('-', '_')}.features:example_orders"
        ),
    )
