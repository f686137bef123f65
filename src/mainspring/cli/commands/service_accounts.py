"""`mainspring service-accounts`: accounts of programs, whose keys outlive the people who made them."""

from __future__ import annotations

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.users import add_common, shown
from mainspring.cli.help import Group


@click.group("service-accounts", cls=Group)
def command() -> None:
    """Add, list, disable and remove service accounts: owners of programs' keys."""


@make("add")
@click.argument("name")
def add(call: Call, *, name: str) -> None:
    """Add the service account NAME, without any role: see `mainspring roles grant`."""
    from mainspring.operations.access import add_account
    from mainspring.security.model import Kind

    account = add_account(call.project, Kind.SERVICE, name)
    call.result(shown(account), lambda console: console.print(f"Service account {name} has the id {account.id}."))


command.add_command(add)
add_common(command, "service", "service account")
