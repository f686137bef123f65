"""`mainspring backup` and `restore`: one encrypted file of what cannot be computed again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.backup.running import Restored


@make("backup")
@click.argument("path", metavar="TO", type=click.Path(path_type=Path))
def command(call: Call, *, path: Path) -> None:
    """Write the catalog, runs, versions and bundles into the encrypted file TO.

    It also has which versions the lake's tables have. The project may be up. Back up the lake and the keys of the state
    folder apart. A killed backup leaves TO.unfinished, which is none.
    """
    from mainspring.operations.backup.running import backup

    with call.progress() as progress:
        made = backup(call.project, path, told=progress.say)
    call.result(
        made,
        lambda console: console.print(
            f"{made.path}: catalog, {made.bundles} bundles and versions of {made.tables} tables, {made.bytes:,} bytes.",
            highlight=False,
            soft_wrap=True,
        ),
    )


@make("restore", restores=True)
@click.argument("path", metavar="FROM", type=click.Path(path_type=Path))
def restore(call: Call, *, path: Path) -> None:
    """Restore the backup FROM into a project whose catalog is empty, after reading all of it.

    Restore the lake and the keys of the state folder first. Who was erased since the backup is erased again. Run an
    interrupted restore again to finish it.
    """
    from mainspring.operations.backup.running import restore as run

    with call.progress() as progress:
        done = run(call.project, path, told=progress.say)
    call.result(done, lambda console: _show(console, done))


def _show(console: Console, done: Restored) -> None:
    from mainspring.cli.commands.erase import show_again
    from mainspring.core.time import format_instant

    console.print(f"Restored: catalog and {done.bundles} bundles.", highlight=False)
    for each in done.missing:
        console.print(f"The lake lacks version {each}.", markup=False)
    show_again(console, done.erased, done.held)
    console.print(
        f"What was made or ended after {format_instant(done.made_at)}, such as holds, keys and grants, is not in it.",
        highlight=False,
        soft_wrap=True,
    )
