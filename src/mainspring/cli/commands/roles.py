"""`mainspring roles`: who has which role on what."""

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

    from mainspring.security.model import Grant

_ROLES = (
    "viewer", "analyst", "engineer", "approver", "operator", "auditor", "provisioner", "anchorer", "administrator",
)  # fmt: skip


@click.group("roles", cls=Group)
def command() -> None:
    """Grant, revoke and list roles of users, service accounts and groups."""


def _shown(grant: Grant) -> dict[str, Any]:
    from mainspring.core.time import format_instant

    return {
        "kind": grant.kind, "who": grant.who, "role": grant.role, "resource": grant.resource,
        "granted_at": format_instant(grant.granted_at), "granted_by": grant.granted_by,
    }  # fmt: skip


def _said(who: str, grant: Grant) -> str:
    return who if grant.kind == "group" else f"{who} ({grant.who})"


@make("grant")
@click.argument("role", type=click.Choice(_ROLES))
@click.argument("who")
@click.option("--on", "resource", default="project", show_default=True, help="A resource such as model/late-arrival.")
def grant(call: Call, *, role: str, who: str, resource: str) -> None:
    """Grant a role to WHO: user:NAME, service:NAME or group:NAME."""
    from mainspring.operations.access import grant_role, parse_grant, undeclared

    granted = parse_grant(call.project, role, who, resource)
    grant_role(call.project, granted)
    warning = undeclared(call.project, resource)

    def show(console: Console) -> None:
        from rich.markup import escape

        console.print(f"{_said(who, granted)} is {role} on {resource}.")
        if warning:
            console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)

    call.result({**_shown(granted), "warnings": [warning] if warning else []}, show)


@make("revoke")
@click.argument("role", type=click.Choice(_ROLES))
@click.argument("who")
@click.option("--on", "resource", default="project", show_default=True, help="A resource such as model/late-arrival.")
def revoke(call: Call, *, role: str, who: str, resource: str) -> None:
    """Revoke a role from WHO, within two seconds: user:NAME, service:NAME or group:NAME."""
    from mainspring.operations.access import parse_grant, revoke_role

    revoked = parse_grant(call.project, role, who, resource)
    revoke_role(call.project, revoked)
    call.result(
        _shown(revoked), lambda console: console.print(f"{_said(who, revoked)} is no longer {role} on {resource}.")
    )


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List the granted roles."""
    grants = call.project.accounts.grants()
    names = {account.id: account.name for account in call.project.accounts.all()}

    def show(console: Console) -> None:
        rows = [
            (f"{each.kind}:{names.get(each.who, each.who)}", each.role, each.resource, each.granted_by)
            for each in grants
        ]
        show_records(console, ("who", "role", "on", "granted by"), rows)

    call.result([_shown(each) for each in grants], show)


for _command in (grant, revoke, list_):
    command.add_command(_command)
