"""`mainspring audit`: search the audit log, verify that nobody changed it, and prove its events to others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.security.model import AuditFilter
    from mainspring.security.verification import Verdict

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group("audit", cls=Group)
def command() -> None:
    """Search the audit log, verify that it is as it was written, and prove its events to others."""


def _filtered(function: Function) -> Function:
    """Add the options of a filter."""
    for option in (
        click.option("--subject", default="", help="The whole subject: a person whom events are about."),
        click.option("--until", default="", help="Only events before this time."),
        click.option("--since", default="", help="Only events from this time on."),
        click.option("--detail", default="", help="Part of the detail."),
        click.option("--resource", default="", help="Part of the resource."),
        click.option("--action", default="", help="Beginning of the action: `keys` finds keys.create."),
        click.option("--actor", default="", help="Part of the actor."),
    ):
        function = option(function)
    return function


def _with_subjects(function: Function) -> Function:
    text = "Name the subjects of events too; the audit log records it."
    return click.option("--subjects", is_flag=True, help=text)(function)


def _filter(since: str, until: str, **parts: str) -> AuditFilter:
    from mainspring.core.time import parse_end, parse_instant
    from mainspring.security.model import AuditFilter

    return AuditFilter(
        since=parse_instant(since) if since else None, until=parse_end(until) if until else None, **parts
    )


@make("verify")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", default="", metavar="HEX", help="Public key that must have signed the head of FILE.")
def verify(call: Call, *, file: Path | None, key: str) -> int:
    """Verify every event, the tree over them and its signed head; exit with 7 if anything is damaged.

    Each finding names the event, or the range of events. The verification itself becomes an event. With FILE, an export
    is verified, which needs no project: without a project and --key, by the key that the file names.
    """
    from mainspring.operations.auditing import verify_audit

    if file is not None:
        return _verify_file(call, file, key)
    with call.progress() as progress:
        verdict = verify_audit(call.project, lambda done, total: progress.update("events", done, total))
    well = not verdict.damage

    def show(console: Console) -> None:
        _show_damage(console, verdict)
        for number in verdict.adopted:
            console.print(f"[yellow]•[/] Event {number} took over events whose head this key had not signed.")
        if not verdict.head and well:
            console.print("[yellow]•[/] No head is signed yet: the next event signs one.")
        for intent in verdict.unfinished:
            console.print("[yellow]•[/] ", end="")
            console.print(str(intent), markup=False)
        for each in verdict.foreign:
            console.print("[yellow]•[/] ", end="")
            console.print(f"{each} anchored heads are signed by another key: left out.", markup=False)
        if verdict.anchors:
            heads = "head is" if verdict.anchors == 1 else "heads are"
            console.print(f"{verdict.anchors:,} anchored {heads} of this log.")
        erased = f", {verdict.redacted:,} without their subject" if verdict.redacted else ""
        console.print(f"{verdict.events:,} events{erased}: {'whole' if well else 'damaged'}.", style="bold")

    call.result({"well": well, "key_from_file": False, "verdict": verdict}, show)
    return exits.OK if well else exits.CORRUPT


def _show_damage(console: Console, verdict: Verdict) -> None:
    for each in verdict.damage:
        console.print(f"[red]✗[/] [bold]{each.kind:<9}[/] ", end="")
        console.print(each.what, markup=False)


def _verify_file(call: Call, file: Path, key: str) -> int:
    from mainspring.core.errors import Invalid, NotFound
    from mainspring.security.audit_proofs import verify_export

    if not file.is_file():
        raise NotFound(f"There is no file {file}.", fix="write one: `mainspring audit export FILE`.")
    public: bytes | None
    try:
        public = bytes.fromhex(key) if key else call.project.signing_key.public
    except ValueError:
        raise Invalid(f"The key {key[:80]!r} is not hexadecimal.", fix="see `mainspring models key`.") from None
    except NotFound:
        public = None
    with file.open("rb") as lines:
        verdict, head = verify_export(lines, public)
    well = not verdict.damage

    def show(console: Console) -> None:
        _show_damage(console, verdict)
        if public is None:
            console.print("[yellow]•[/] The head is signed with the key that the file itself names.")
        of, judged = f"{head.size:,} events of {head.origin}", "as they were logged" if well else "damaged"
        console.print(f"{verdict.events:,} of {of}: {judged}.", style="bold")

    call.result({"well": well, "key_from_file": public is None, "verdict": verdict}, show)
    return exits.OK if well else exits.CORRUPT


@make("search")
@_filtered
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Most events that are shown.")
@_with_subjects
def search(call: Call, *, limit: int, subjects: bool, **parts: str) -> None:
    """List events with every given part, newest first."""
    from msgspec import to_builtins

    from mainspring.core.time import SECOND, format_instant
    from mainspring.operations.auditing import search_audit

    found = search_audit(call.project, _filter(**parts), limit=limit, subjects=subjects)

    def show(console: Console) -> None:
        rows = [
            (str(each.number), format_instant(each.event.at // SECOND * SECOND), each.event.actor, each.event.action,
             each.event.resource, each.event.detail, each.event.subject or "")
            for each in found
        ]  # fmt: skip
        names = ("number", "at", "actor", "action", "resource", "detail", "subject")
        show_records(console, names, rows, right=("number",), folded=("detail",))

    content = [
        {"number": each.number, **to_builtins(each.event), "at": format_instant(each.event.at)} for each in found
    ]
    call.result(content, show)


@make("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_filtered
@_with_subjects
def export(call: Call, *, file: Path, subjects: bool, **parts: str) -> None:
    """Write events with every given part to FILE, each with the proof that it is in the log.

    `mainspring audit verify FILE` verifies it anywhere. Of a selection it shows that each event is in the log, not that
    none is left out.
    """
    from mainspring.core.files import disk_errors
    from mainspring.operations.auditing import export_audit

    with disk_errors(file), file.open("w", encoding="utf-8") as written:
        events = export_audit(call.project, written, _filter(**parts), subjects=subjects)
    call.result({"file": str(file), "events": events}, lambda console: console.print(f"{events:,} events in {file}."))


@make("proof")
@click.argument("number", type=click.IntRange(0))
@_with_subjects
def proof(call: Call, *, number: int, subjects: bool) -> None:
    """Show an event, the signed head of the log, and the hashes that lead from one to the other.

    An inclusion proof (RFC 9162, 2.1.3) of the leaf at the index NUMBER, in base 64.
    """
    from mainspring.operations.auditing import prove

    note, event = prove(call.project, number, subjects=subjects)

    def show(console: Console) -> None:
        for name, value in event.items():
            if name != "proof" and value is not None:
                console.print(f"{name:<11} {value}", markup=False)
        for each in event["proof"]:
            console.print(f"proof       {each}", markup=False)
        console.print(f"\n{note}", markup=False, end="")

    call.result({"head": note, "event": event}, show)


for _command in (search, verify, export, proof):
    command.add_command(_command)
