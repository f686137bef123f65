"""`mainspring keys`: create, list and revoke API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

_SCOPES = ("predict", "view", "scrape", "anchor", "manage")


@click.group("keys", cls=Group)
def command() -> None:
    """Create, list and revoke API keys."""


@make("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice([*_SCOPES, "admin"]))
@click.option("--expires", default="90d", show_default=True, help="Lifetime of the key.")
@click.option("--owner", help="user:NAME or service:NAME, whose roles the key has; without it the key has every role.")
def create(call: Call, *, name: str, scopes: tuple[str, ...], expires: str, owner: str | None) -> None:
    """Create a key for NAME and show it once."""
    from mainspring.core.time import parse_duration
    from mainspring.operations.access import parse_account
    from mainspring.operations.keys import create_key
    from mainspring.operations.signing_in import actor

    wanted = _SCOPES if "admin" in scopes else scopes
    account = ""
    if owner is not None:
        account = parse_account(call.project, owner).id
        click.echo(f"The key belongs to {owner} ({account}).", err=True)
    token = create_key(
        call.project, name, wanted, parse_duration(expires), owner=account, created_by=actor(call.project)
    )
    call.result(
        {"name": name, "scopes": list(wanted), "key": token}, lambda console: console.print(token, soft_wrap=True)
    )


@make("list")
@click.option("--all", "all_", is_flag=True, help="Include expired and revoked keys.")
@click.option("--revoked", is_flag=True, help="Only keys that were revoked before they expired: the file of their ids.")
def list_(call: Call, *, all_: bool, revoked: bool) -> None:
    """List keys, without their secrets, which are not stored.

    With --revoked it prints ids alone, one a line, as sealed images read them.
    """
    from mainspring.core.time import format_instant

    now = call.project.wall.now()
    if all_ and revoked:
        raise click.UsageError("Give --all or --revoked.")
    keys = [
        key
        for key in call.project.key_store.all()
        if all_ or (key.expires_at > now and (key.revoked_at is not None) is revoked)
    ]

    def show(console: Console) -> None:
        if revoked:
            for each in keys:
                console.print(each.id, markup=False, highlight=False)
            return
        rows = []
        for key in keys:
            ended = "" if key.revoked_at is None else _to_the_second(key.revoked_at)
            scopes, expires = " ".join(sorted(key.scopes)), _to_the_second(key.expires_at)
            owner = key.holder.name if key.holder is not None else key.owner
            rows.append((key.id, key.name, scopes, expires, ended, key.created_by, owner))
        show_records(console, ("id", "name", "scopes", "expires", "revoked", "made by", "owner"), rows)

    call.result(
        [
            {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "created_at": format_instant(key.created_at),
             "expires_at": format_instant(key.expires_at),
             "revoked_at": None if key.revoked_at is None else format_instant(key.revoked_at),
             "created_by": key.created_by, "owner": key.owner}
            for key in keys
        ],
        show,
    )  # fmt: skip


def _to_the_second(instant: int) -> str:
    from mainspring.core.time import SECOND, format_instant

    return format_instant(instant // SECOND * SECOND)


@make("revoke")
@click.argument("key_id")
def revoke(call: Call, *, key_id: str) -> None:
    """Revoke a key; every process rejects it within a second."""
    from mainspring.operations.keys import revoke_key

    revoke_key(call.project, key_id)
    call.result({"revoked": key_id}, lambda console: console.print(f"Key {key_id} is revoked."))


for _command in (create, list_, revoke):
    command.add_command(_command)
