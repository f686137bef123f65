"""`mainspring sessions`: console sessions of people who signed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@click.group("sessions", cls=Group)
def command() -> None:
    """List and end console sessions of people who signed in at the identity provider."""


@make("list", reads_only=True)
@click.option("--user", help="Only those of this user, by id, e-mail or name.")
def list_(call: Call, *, user: str | None) -> None:
    """List the open sessions, oldest first."""
    from mainspring.core.time import format_instant
    from mainspring.operations.access import find_account
    from mainspring.operations.sessions import open_sessions
    from mainspring.security.model import Kind

    account = None if user is None else find_account(call.project, Kind.USER, user)
    found = open_sessions(call.project, account)

    def show(console: Console) -> None:
        rows = [(each.id, each.name, format_instant(each.opened_at), format_instant(each.checked_at)) for each in found]
        show_records(console, ("session", "user", "opened", "checked at the provider"), rows)

    call.result([dated(each, "opened_at", "expires_at", "checked_at") for each in found], show)


@make("end")
@click.argument("session", required=False)
@click.option("--user", help="End all sessions of this user, by id, e-mail or name.")
@click.option("--reason", required=True, help="Why; stored in the audit log.")
def end(call: Call, *, session: str | None, user: str | None, reason: str) -> None:
    """End SESSION, or all of a user. The person may sign in again: see `mainspring users disable`."""
    from mainspring.operations.access import find_account
    from mainspring.operations.sessions import end_session, end_sessions
    from mainspring.security.model import Kind

    if (session is None) == (user is None):
        raise click.UsageError("Give a session, or --user.")
    if user is not None:
        count = end_sessions(call.project, find_account(call.project, Kind.USER, user), reason)
    else:
        end_session(call.project, session or "", reason)
        count = 1
    call.result({"ended": count}, lambda console: console.print(f"{count} sessions have ended."))


for _command in (list_, end):
    command.add_command(_command)
