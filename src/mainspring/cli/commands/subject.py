"""`mainspring subject`: what is held about subjects, receipts of erasures, and legal holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.security.model import Erasure, LegalHold


@click.group("subject", cls=Group)
def command() -> None:
    """Export what is held about a subject, show receipts of erasures, and hold subjects so that none is made."""


@make("receipts", reads_only=True)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Number of erasures.")
def receipts(call: Call, *, limit: int) -> None:
    """List erasures, the newest first."""
    found = call.project.erasures.all(limit)

    def show(console: Console) -> None:
        rows = [(each["id"], each["entity"], str(each["subjects"]), each["began_at"], each["done_at"] or "unfinished")
                for each in map(_listed, found)]  # fmt: skip
        show_records(console, ("id", "entity", "subjects", "began", "done"), rows)

    call.result([_listed(each) for each in found], show)


def _listed(erasure: Erasure) -> dict[str, Any]:
    from mainspring.core.time import format_instant

    done = erasure.done_at
    return {
        "id": erasure.id, "entity": erasure.entity, "subjects": len(erasure.subjects),
        "began_at": format_instant(erasure.began_at), "done_at": None if done is None else format_instant(done),
    }  # fmt: skip


@make("receipt", reads_only=True)
@click.argument("erasure_id", metavar="ID")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the signed receipt to this file."
)
def receipt(call: Call, *, erasure_id: str, output: Path | None) -> None:
    """Show the signed receipt of an erasure."""
    import msgspec

    from mainspring.cli.commands.erase import show_receipt
    from mainspring.core.errors import NotFound
    from mainspring.core.files import write_atomic

    found = next((each for each in call.project.erasures.all(1_000_000) if each.id == erasure_id), None)
    if found is None or not found.receipt:
        raise NotFound(f"There is no receipt {erasure_id!r}.", fix="see `mainspring subject receipts`.")
    if output is not None:
        write_atomic(output, found.receipt.encode() + b"\n")
    document = msgspec.json.decode(found.receipt)
    call.result(document, lambda console: show_receipt(console, document["receipt"]))


@make("verify", reads_only=True)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", default="", help="Public key that the receipt must be signed with; by default the one in it.")
def verify(call: Call, *, file: Path, key: str) -> None:
    """Verify the signature of a receipt in FILE, without a project."""
    from mainspring.core.errors import Invalid, NotFound
    from mainspring.operations.subjects.receipts import verified

    if not file.is_file():
        raise NotFound(f"There is no file {file}.", fix="write one: `mainspring subject receipt ID --output FILE`.")
    try:
        public = bytes.fromhex(key) if key else None
    except ValueError:
        raise Invalid(f"The key {key[:80]!r} is not hexadecimal.", fix="see `mainspring models key`.") from None
    found = verified(file.read_bytes(), public)
    said = "as it was signed" if public else "as it was signed with the key that it names"
    call.result({"well": True, "receipt": found}, lambda console: console.print(f"Receipt {found['id']}: {said}."))


def _held(hold: LegalHold) -> dict[str, Any]:
    from mainspring.core.time import format_instant

    return {
        "subject": hold.subject.hex(), "entity": hold.entity, "reason": hold.reason,
        "held_at": format_instant(hold.held_at), "held_by": hold.held_by,
    }  # fmt: skip


@make("hold")
@click.argument("entity")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--reason", required=True, help="Why, such as the number of a case.")
def hold(call: Call, *, entity: str, keys: tuple[str, ...], reason: str) -> None:
    """Hold subjects: `mainspring erase` refuses them until they are released."""
    from mainspring.operations.subjects import holding, naming

    made = holding.hold(call.project, naming.find_subjects(call.project, entity, keys), reason)
    call.result([_held(each) for each in made], lambda console: console.print(f"{len(made)} of {entity} held."))


@make("release")
@click.argument("entity")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def release(call: Call, *, entity: str, keys: tuple[str, ...]) -> None:
    """End the hold of subjects."""
    from mainspring.operations.subjects import holding, naming

    subjects = naming.find_subjects(call.project, entity, keys)
    holding.release(call.project, subjects)
    call.result({"released": len(subjects)}, lambda console: console.print(f"{len(subjects)} of {entity} released."))


@make("holds", reads_only=True)
def holds(call: Call) -> None:
    """List the holds, without the subjects' keys."""
    found = [_held(each) for each in call.project.erasures.holds()]

    def show(console: Console) -> None:
        rows = [(each["entity"], each["subject"][:16], each["held_at"], each["held_by"], each["reason"])
                for each in found]  # fmt: skip
        show_records(console, ("entity", "digest", "since", "by", "reason"), rows)

    call.result(found, show)


@make("export")
@click.argument("entity")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The archive, a ZIP file."
)
def export(call: Call, *, entity: str, keys: tuple[str, ...], output: Path) -> None:
    """Write everything that is held about one subject as an archive of JSON lines.

    Values that identify a person are in clear. The audit log has an event about it.
    """
    from mainspring.core.errors import Invalid
    from mainspring.operations.subjects import exporting, naming

    subjects = naming.find_subjects(call.project, entity, keys)
    if len(subjects) != 1:
        raise Invalid(f"{len(subjects)} subjects are named.", fix="export one at a time.")
    made = exporting.export(call.project, subjects[0], output)

    def show(console: Console) -> None:
        show_records(console, ("file", "rows"), [(each.file, f"{each.rows:,}") for each in made])
        console.print(f"{output}: {sum(each.rows for each in made):,} rows.", markup=False)

    call.result({"archive": str(output), "files": made}, show)


for _command in (export, receipts, receipt, verify, hold, release, holds):
    command.add_command(_command)
