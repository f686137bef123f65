"""`mainspring users`: add, list, disable and remove people; and the same of service accounts, for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rich.console import Console

    from mainspring.security.model import Account


@click.group("users", cls=Group)
def command() -> None:
    """Add, list, disable and remove users: people with keys or a sign-in."""


@make("add")
@click.argument("name")
@click.option("--email", default="", help="The user's e-mail.")
@click.option("--issuer", default="", help="Issuer of the user's OIDC identity, with --subject.")
@click.option("--subject", default="", help="Subject of the user's OIDC identity at the --issuer.")
def add(call: Call, *, name: str, email: str, issuer: str, subject: str) -> None:
    """Add the user NAME, without any role: see `mainspring roles grant`."""
    from mainspring.operations.access import add_account
    from mainspring.security.model import Kind

    account = add_account(call.project, Kind.USER, name, email=email, issuer=issuer, subject=subject)
    call.result(shown(account), lambda console: console.print(f"User {name} has the id {account.id}."))


def _state(account: Account) -> str:
    by = f" by {account.disabled_by}" if account.disabled_by else ""
    return f"disabled{by}" if account.disabled_at else ""


def shown(account: Account) -> dict[str, Any]:
    """Return an account as its JSON document."""
    from mainspring.core.time import format_instant

    return {
        "id": account.id, "kind": account.kind, "name": account.name, "email": account.email, "issuer": account.issuer,
        "subject": account.subject, "provider_groups": list(account.provider_groups),
        "created_at": format_instant(account.created_at),
        "disabled_at": None if account.disabled_at is None else format_instant(account.disabled_at),
        "disabled_by": account.disabled_by,
    }  # fmt: skip


def add_common(group: click.Group, kind: str, what: str) -> None:
    """Add the commands that users and service accounts have in common."""

    @make("list", reads_only=True, help=f"List the {what}s.")
    def list_(call: Call) -> None:
        found = [account for account in call.project.accounts.all() if account.kind == kind]

        def show(console: Console) -> None:
            rows = [(each.id, each.name, each.email, _state(each)) for each in found]
            show_records(console, ("id", "name", "e-mail", "state"), rows)

        call.result([shown(account) for account in found], show)

    @make("bind", help=f"Bind NAME, a user of a machine such as local:ana, to a {what}; for approvals by other people.")
    @click.argument("account", metavar="ACCOUNT")
    @click.argument("name")
    def bind(call: Call, *, account: str, name: str) -> None:
        from mainspring.core.time import format_instant
        from mainspring.operations.access import bind_name, find_account
        from mainspring.operations.signing_in import actor
        from mainspring.security.model import Kind

        found = find_account(call.project, Kind(kind), account)
        bound = bind_name(call.project, found, name, by=actor(call.project))
        if bound.by == bound.name:
            call.say(f"{name} tells nobody apart until an administrator who is somebody else binds it too.")
        document = {"name": name, "account_id": found.id, "at": format_instant(bound.at), "by": bound.by}
        call.result(document, lambda console: console.print(f"{name} is {found.name} ({found.id})."))

    def change(name: str, explained: str, act: Callable[[Call, Account], Account], said: str) -> None:
        @make(name, help=explained)
        @click.argument("account", metavar="ACCOUNT")
        def body(call: Call, *, account: str) -> None:
            from mainspring.operations.access import find_account
            from mainspring.security.model import Kind

            changed = act(call, find_account(call.project, Kind(kind), account))
            call.result(shown(changed), lambda console: console.print(f"{changed.name} ({changed.id}) is {said}."))

        group.add_command(body)

    group.add_command(list_)
    group.add_command(bind)
    void = "its keys and sessions are void within two seconds."
    change("disable", f"Disable a {what}, by id, e-mail or name; {void}", _disable, "disabled")
    change("enable", f"Enable a {what} again.", _enable, "enabled")
    change("remove", f"Remove a {what} with its roles; {void}", _remove, "removed")


def _disable(call: Call, account: Account) -> Account:
    from mainspring.operations.access import set_disabled

    return set_disabled(call.project, account, True)


def _enable(call: Call, account: Account) -> Account:
    from mainspring.operations.access import set_disabled

    return set_disabled(call.project, account, False)


def _remove(call: Call, account: Account) -> Account:
    from mainspring.operations.access import remove_account

    remove_account(call.project, account)
    return account


command.add_command(add)
add_common(command, "user", "user")
