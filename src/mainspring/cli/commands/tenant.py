"""`mainspring tenant`: teams that share one installation's servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console


@click.group("tenant", cls=Group)
def command() -> None:
    """Teams that share servers, each with rights to its own part alone."""


@make("plan")
@click.argument("name", required=False)
@click.option("--passwords", is_flag=True, help="Generate passwords; they are printed and kept nowhere.")
def plan(call: Call, *, name: str | None, passwords: bool) -> None:
    """Print what an administrator has to grant on each server of the profile, so that tenant NAME reaches its own part.

    By default for the profile's own tenant. Nothing is contacted or changed.
    """
    from mainspring.operations.tenants import plan as planned
    from mainspring.project.settings import find_project, load_settings

    overrides = {**call.overrides, **({"tenant": name} if name else {})}
    found = planned(
        load_settings(find_project(call.folder or Path.cwd()), call.profile, overrides), passwords=passwords
    )

    def show(console: Console) -> None:
        from rich.text import Text

        for grant in found.grants:
            console.print(Text(f"# {grant.server}: {', '.join(grant.parts)} at {grant.at}", "bold"), soft_wrap=True)
            console.print(Text(grant.statements), soft_wrap=True)
            if grant.open:
                console.print(Text(f"# Stays open: {grant.open}", "yellow"), soft_wrap=True)
            console.print()
        console.print(Text(f"# Environment of tenant {found.tenant}", "bold"))
        for variable, value in found.environment.items():
            console.print(Text(f"{variable}='{value}'"), soft_wrap=True)

    call.result(found, show)


command.add_command(plan)
