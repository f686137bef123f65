"""`mainspring backup` and `restore`: an encrypted repository of what cannot be computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.backup.making import Made
    from mainspring.operations.backup.restoring import Restored
    from mainspring.operations.backup.verifying import KeptBackup, VerifiedBackups


@click.group("backup", cls=Group, default="make")
def command() -> None:
    """Back up the project into an encrypted repository; `backup --to FOLDER` is `backup make --to FOLDER`."""


@make("make")
@click.option("--to", required=True, metavar="FOLDER|URL", help="Repository: a folder, or s3://bucket/prefix.")
@click.option("--keep", default="", metavar="DURATION", help="Age at which older backups are removed, such as 30d.")
def make_(call: Call, *, to: str, keep: str) -> None:
    """Back up the catalog, runs, bundles, tables with their versions, predictions and messages of streams.

    The repository is made if it is missing, and gets only what no earlier backup has. The project may be up. Back up
    the keys of the state folder apart. Run a killed backup again: what it wrote is not written twice.
    """
    from mainspring.core.time import parse_duration
    from mainspring.operations.backup.making import backup

    with call.progress() as progress:
        made = backup(call.project, to, keep_us=parse_duration(keep) if keep else None, told=progress.say)
    call.result(_document(made), lambda console: _show_made(console, made))


@make("list", reads_only=True)
@click.argument("repository", metavar="FROM")
def list_(call: Call, *, repository: str) -> None:
    """List the backups in the repository FROM, newest first."""
    from mainspring.operations.backup.verifying import backups

    found = backups(call.project, repository)
    call.result([_document(each) for each in found], lambda console: _show_list(console, found))


@make("verify", reads_only=True)
@click.argument("repository", metavar="FROM")
def verify(call: Call, *, repository: str) -> int:
    """Read all of the repository FROM, and name what is damaged; exit with 7 if anything is."""
    from mainspring.operations.backup.verifying import verify as run

    with call.progress() as progress:
        verified = run(call.project, repository, told=progress.say)
    call.result(verified, lambda console: _show_verified(console, verified))
    return exits.CORRUPT if verified.damage else 0


@make("restore", restores=True)
@click.argument("repository", metavar="FROM")
@click.option("--at", default="", metavar="TIME", help="Restore the newest backup that was made by then.")
def restore(call: Call, *, repository: str, at: str) -> int:
    """Restore the newest backup in the repository FROM into a project whose catalog is empty, and compare it with the
    backup; exit with 3 if there is a difference.

    Restore the keys of the state folder first. Nothing that is there is replaced. Who was erased since the backup is
    erased again. Run an interrupted restore again to finish it.
    """
    from mainspring.core.time import parse_end
    from mainspring.operations.backup.restoring import restore as run

    with call.progress() as progress:
        done = run(call.project, repository, at=parse_end(at) if at else None, told=progress.say)
    call.result(_document(done), lambda console: _show(console, done))
    return exits.GATE if done.differences else 0


def _document(result: Made | KeptBackup | Restored) -> dict[str, Any]:
    """Return a result whose instant is as `--at` takes it."""
    import msgspec

    from mainspring.core.time import format_instant

    return {**msgspec.to_builtins(result), "made_at": format_instant(result.made_at)}


def _show_made(console: Console, made: Made) -> None:
    from mainspring.core.time import format_instant

    console.print(
        f"Backup of {format_instant(made.made_at)} in {made.repository}: {made.tables} tables, {made.bundles} bundles, "
        f"{made.files:,} files in all, {made.bytes:,} bytes. "
        f"New: {made.new_pieces:,} pieces, {made.new_bytes:,} bytes.",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    if made.removed is not None:
        console.print(f"Removed: {made.removed.backups} backups, {made.removed.pieces:,} pieces.", highlight=False)
    for each in made.left:
        console.print(f"Not in it: {each}.", highlight=False, soft_wrap=True, markup=False)


def _show_list(console: Console, found: list[KeptBackup]) -> None:
    from mainspring.cli.tables import show_records
    from mainspring.core.time import format_instant

    numbers = ("tables", "rows", "bundles", "files", "bytes")
    rows = [
        [format_instant(each.made_at), each.id, *(f"{getattr(each, name):,}" for name in numbers), each.error]
        for each in found
    ]
    show_records(console, ["made", "id", *numbers, "error"], rows, right=numbers)


def _show_verified(console: Console, found: VerifiedBackups) -> None:
    for each in found.damage:
        console.print(f"[red]✗[/] {each.object}: ", end="")
        console.print(f"{each.of}. {each.detail}", markup=False, soft_wrap=True)
    for name in found.strangers:
        console.print(f"{name} is not of this repository.", markup=False, soft_wrap=True)
    console.print(
        f"{found.backups} backups, {found.pieces:,} pieces, {found.bytes:,} bytes read; {len(found.damage)} damaged, "
        f"{found.unused:,} of no backup.", highlight=False, soft_wrap=True,
    )  # fmt: skip
    if found.damage:
        console.print(
            "Delete the damaged pieces: the next backup writes again what the project still has.", soft_wrap=True
        )


def _show(console: Console, done: Restored) -> None:
    from mainspring.cli.commands.erase import show_again
    from mainspring.core.time import format_instant

    console.print(f"Restored the backup of {format_instant(done.made_at)}. Equal to it, read again:", highlight=False)
    for same in done.equality:
        mark = "  " if same.equal == same.of else "[red]✗[/] "
        console.print(f"{mark}{same.equal:,} of {same.of:,} {same.what}", highlight=False)
    for each in done.kept:
        console.print(f"Left as it was: {each}.", markup=False, soft_wrap=True)
    for each in done.missing:
        console.print(f"The lake lacks version {each}.", markup=False)
    show_again(console, done.erased, done.held)
    for each in done.left:
        console.print(f"Not in it: {each}.", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"What was made or ended after {format_instant(done.made_at)}, such as holds, keys and grants, is not in it.",
        highlight=False,
        soft_wrap=True,
    )


for each_ in (make_, list_, verify):
    command.add_command(each_)
