"""`mainspring models export`, `import`, `key`, `trust`, `sign` and `verify`: versions between installations."""

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


@make("sign")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", type=_FILE, required=True, help="PEM of a private key on P-256, P-384 or P-521.")
@click.option("--certificate", type=_FILE, help="PEM of the key's certificate, then of intermediate ones.")
def sign(call: Call, *, reference: str, folder: Path, key: Path, certificate: Path | None) -> None:
    """Write the files of a version to a new FOLDER and sign them, for tools that verify OpenSSF Model Signing.

    The files contain held-out rows of the training data, as the bundle does.
    """
    from mainspring.operations.models.signing import sign_version
    from mainspring.registry.oms import read_signer

    done = sign_version(call.project, reference, folder, read_signer(key, certificate))
    call.result(
        asdict(done),
        lambda console: console.print(
            f"{done.signature}: {done.files} files, signed by {done.signer}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        ),
    )


@make("verify", reads_only=True)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--signed-by", type=_FILE, required=True, help="PEM of public keys, or of authorities' certificates.")
@click.option("--signature", type=_FILE, help="By default model.sig in the folder, or FILE.sig.")
def verify(call: Call, *, path: Path, signed_by: Path, signature: Path | None) -> None:
    """Verify that a folder or file is what a trusted key signed by OpenSSF Model Signing."""
    from mainspring.operations.models.signing import verify_model

    found = verify_model(path, signed_by, signature)

    def told(console: Console) -> None:
        left = f" Not signed: {', '.join(found.ignored)}." if found.ignored else ""
        line = f"{found.path}: {found.files} file{'s' * (found.files != 1)}, signed by {found.signer}.{left}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    call.result(asdict(found), told)


COMMANDS = (export, import_, key, trust, sign, verify)
