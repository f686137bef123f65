"""`mainspring pipelines`: pipelines of the project."""

from __future__ import annotations

import click

from mainspring.cli.commands.pipelines_outside import export, step
from mainspring.cli.help import Group


@click.group("pipelines", cls=Group)
def command() -> None:
    """Pipelines of the project: steps in an order, as data."""


command.add_command(export)
command.add_command(step)
