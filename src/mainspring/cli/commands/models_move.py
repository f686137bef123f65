"""`mainspring models export`, `import`, `key` and `trust`: versions between installations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

_FILE = click.Path(dir_okay=False, path_type=Path)


@make("export")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.argument("file", type=_FILE)
def export(call: Call, *, reference: str, file: Path) -> None:
    """Export a version to a new FILE that another installation can import.

    The file contains held-out rows of the training data, as the bundle does.
    """
    from mainspring.operations.models.transferring import export_version

    done = export_version(call.project, reference, file)
    call.result(
        {**asdict(done), "file": str(file)},
        lambda console: console.print(
            f"{done.model}:{done.version} is in {file}: {done.bundles} bundle{'s' * (done.bundles != 1)}.",
            markup=False,
            highlight=False,
        ),
    )


@make("import")
@click.argument("file", type=_FILE)
def import_(call: Call, *, file: Path) -> None:
    """Import the version in FILE. It must be signed by a key that `mainspring models trust` has added."""
    from mainspring.operations.models.transferring import import_version

    done = import_version(call.project, file)

    def told(console: Console) -> None:
        word = "is" if done.new else "was already"
        console.print(
            f"{done.model}:{done.version} {word} registered, bundle {done.digest[:12]}, signed by {done.key}.",
            markup=False,
            highlight=False,
        )
        if done.new:
            console.print(f"Next: mainspring promote {done.model} {done.version}", markup=False, highlight=False)

    call.result(asdict(done), told)


@make("key")
def key(call: Call) -> None:
    """Print this installation's public key, for other installations to trust."""
    public = call.project.signing_key.public.hex()
    call.result({"key": public}, lambda console: console.print(public, soft_wrap=True, highlight=False))


@make("trust")
@click.argument("name", required=False)
@click.argument("key", required=False)
@click.option("--forget", help="Remove the key of this name.")
def trust(call: Call, *, name: str | None, key: str | None, forget: str | None) -> None:
    """Trust another installation's public KEY, under NAME; without either, list the trusted keys."""
    from mainspring.core.time import format_instant
    from mainspring.operations.models import transferring

    if forget is not None:
        transferring.forget(call.project, forget)
    elif name is not None:
        if key is None:
            raise click.UsageError("Give NAME and KEY, or neither.")
        transferring.trust(call.project, name, key)
    found = call.project.trusted_keys.all()

    def told(console: Console) -> None:
        for each in found:
            line = f"{each.name}  {each.public.hex()}  {each.actor}, {format_instant(each.at)}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if not found:
            console.print("No key of another installation is trusted yet.")

    call.result([{**dated(each, "at"), "public": each.public.hex()} for each in found], told)


COMMANDS = (export, import_, key, trust)
