"""`mainspring targets`: where the project is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@click.group("targets", cls=Group)
def command() -> None:
    """Targets of deployments: what is there, and its removal."""


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List the targets of mainspring.toml, and those of which something is left."""
    from mainspring.operations.deploying import targets

    found = targets(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print(
                'No target. Write [targets.NAME] with a kind in mainspring.toml: kind = "systemd".', markup=False
            )
            return
        rows = [
            (each.name, each.kind or "no longer in the file", each.profile or "–", f"{each.pieces}", f"{each.half}")
            for each in found
        ]
        show_records(console, ("target", "kind", "profile", "pieces", "half made"), rows, right=("pieces", "half made"))

    call.result(found, show)


@make("render", reads_only=True)
@click.argument("target")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="A new folder.")
def render_(call: Call, *, target: str, folder: Path) -> None:
    """Write the pieces of TARGET into a folder, without deploying them."""
    from mainspring.operations.deploying import render, write

    _, _, pieces = render(call.project, target)
    written = write(pieces, folder)

    def show(console: Console) -> None:
        for each in written:
            console.print(str(each), markup=False, soft_wrap=True)

    call.result({"target": target, "files": written}, show)


@make("status", reads_only=True)
@click.argument("target")
def status_(call: Call, *, target: str) -> None:
    """Show the pieces of TARGET as they are now. Exit code 13 if one is not ready."""
    from mainspring.operations.deploying import status

    found = status(call.project, target)

    def show(console: Console) -> None:
        if not found:
            console.print(f"Nothing is deployed to {target}. Next: mainspring deploy {target}", markup=False)
            return
        show_records(console, ("piece", "state", "why"), [(each.piece, each.state, each.why) for each in found])

    call.result({"target": target, "pieces": found}, show)
    raise SystemExit(exits.OK if all(each.state == "ready" for each in found) else exits.UNHEALTHY)


@make("destroy")
@click.argument("target")
@click.option("--yes", is_flag=True, help="Do not ask.")
def destroy_(call: Call, *, target: str, yes: bool) -> None:
    """Remove all that was deployed to TARGET, also what is half made."""
    from mainspring.operations.deploying import changing, destroy

    made = call.project.deployed.made(target)
    if made and not yes:
        click.confirm(f"Remove {_pieces(len(made))} from {target}?", abort=True, err=True)
    removed = []
    with changing(call.project, target), call.progress() as progress:
        for each in destroy(call.project, target):
            progress.update("removing", each.number - (not each.done), each.of, each.change.piece)
            if each.done:
                removed.append(each.change.piece)
    call.result(
        {"target": target, "removed": removed},
        lambda console: console.print(f"{_pieces(len(removed))} removed from {target}.", markup=False),
    )


def _pieces(count: int) -> str:
    return f"{count} {'piece' if count == 1 else 'pieces'}"


for _each in (list_, render_, status_, destroy_):
    command.add_command(_each)
