"""`mainspring groups`: groups of accounts, to which roles are granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from typing import Any

    from rich.console import Console

    from mainspring.security.model import AccountGroup


@click.group("groups", cls=Group)
def command() -> None:
    """Add, list and remove groups of accounts, and their members."""


def _shown(group: AccountGroup) -> dict[str, Any]:
    from mainspring.core.time import format_instant

    return {
        "name": group.name,
        "provider_group": group.provider_group,
        "created_at": format_instant(group.created_at),
        "members": sorted(group.members),
    }


@make("add")
@click.argument("name")
@click.option("--provider-group", default="", help="Group of the OIDC provider whose holders are members too.")
def add(call: Call, *, name: str, provider_group: str) -> None:
    """Add the group NAME."""
    from mainspring.operations.access import add_group

    group = add_group(call.project, name, provider_group)
    call.result(_shown(group), lambda console: console.print(f"Group {name} is added."))


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List the groups with their members."""
    groups = call.project.accounts.groups()
    names = {account.id: account.name for account in call.project.accounts.all()}

    def show(console: Console) -> None:
        rows = [
            (group.name, group.provider_group, ", ".join(sorted(names.get(each, each) for each in group.members)))
            for group in groups
        ]
        show_records(console, ("name", "provider's group", "members"), rows)

    call.result([_shown(group) for group in groups], show)


@make("remove")
@click.argument("name")
def remove(call: Call, *, name: str) -> None:
    """Remove the group NAME with its roles."""
    from mainspring.operations.access import remove_group

    remove_group(call.project, name)
    call.result({"removed": name}, lambda console: console.print(f"Group {name} is removed."))


def _member(call: Call, group: str, who: str, *, member: bool) -> None:
    from mainspring.operations.access import parse_account, set_member

    account = parse_account(call.project, who)
    set_member(call.project, group, account, member=member)
    said = "is a member" if member else "is no member"
    call.result(
        {"group": group, "account": account.id, "member": member},
        lambda console: console.print(f"{account.name} ({account.id}) {said} of {group}."),
    )


@make("add-member")
@click.argument("group")
@click.argument("who")
def add_member(call: Call, *, group: str, who: str) -> None:
    """Add WHO (user:NAME or service:NAME) to a group."""
    _member(call, group, who, member=True)


@make("remove-member")
@click.argument("group")
@click.argument("who")
def remove_member(call: Call, *, group: str, who: str) -> None:
    """Remove WHO (user:NAME or service:NAME) from a group."""
    _member(call, group, who, member=False)


for _command in (add, list_, remove, add_member, remove_member):
    command.add_command(_command)
