"""`mainspring encryption`: the keys that encrypt what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.encryption import Rotation


@click.group("encryption", cls=Group)
def command() -> None:
    """Show and rotate the keys that encrypt stored data."""


@make("status")
def status(call: Call) -> None:
    """Show the key service and the data keys, after unwrapping each."""
    from dataclasses import asdict

    from mainspring.core.time import SECOND, format_instant
    from mainspring.operations.encryption import state

    found = state(call.project)

    def show(console: Console) -> None:
        console.print(f"Key service: {found.service}; version {found.version} wraps.", highlight=False, soft_wrap=True)
        if not found.keys:
            console.print("No data keys yet: the first encrypted value makes one.")
            return
        rows = [
            (each.purpose, str(each.number), each.version, "yes" if each.behind else "", each.id,
             format_instant(each.created_at // SECOND * SECOND))
            for each in found.keys
        ]  # fmt: skip
        show_records(console, ("purpose", "number", "version", "behind", "id", "created"), rows)

    keys = [{**asdict(each), "created_at": format_instant(each.created_at)} for each in found.keys]
    call.result({**asdict(found), "keys": keys}, show)


@make("rotate")
@click.option("--data-keys", is_flag=True, help="Make new data keys for what is written from now on instead.")
@click.option(
    "--from", "former", default="", metavar="URL", help="Key service that wrapped the data keys, where it was another."
)
def rotate(call: Call, *, data_keys: bool, former: str) -> None:
    """Make a new master key and wrap the data keys under it; data is not encrypted again."""
    from mainspring.core.errors import Invalid
    from mainspring.operations import encryption

    if data_keys and former:
        raise Invalid("--data-keys and --from are given together.", fix="run one after the other.")
    done = encryption.renew(call.project) if data_keys else encryption.rotate(call.project, former=former)
    call.result(done, lambda console: console.print(_told(done), soft_wrap=True))


@make("rewrite")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
def rewrite(call: Call, *, tables: tuple[str, ...]) -> None:
    """Encrypt, or decrypt, columns of existing rows as the profile's pii_encrypted says; by default of all tables.

    The tables' older versions go, so dataset commits and tags that name them can no longer be read.
    """
    from mainspring.operations import encryption

    with call.progress() as progress:
        made = encryption.rewrite(call.project, tables, told=progress.say)
    written = ", ".join(made)
    call.result(
        {"tables": made},
        lambda console: console.print(f"Written anew: {written}." if made else "All rows are as the profile says."),
    )


def _told(done: Rotation) -> str:
    if done.renewed:
        return f"New data keys encrypt: {', '.join(done.renewed)}."
    return f"Version {done.version} of the master key wraps; {done.wrapped} data keys were wrapped again."


for _command in (status, rotate, rewrite):
    command.add_command(_command)
