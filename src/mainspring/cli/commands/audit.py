"""`mainspring audit`: search the audit log, and verify that nobody changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@click.group("audit", cls=Group)
def command() -> None:
    """Search the audit log, and verify that it is as it was written."""


@make("verify")
def verify(call: Call) -> int:
    """Verify every event, the tree over them and its signed head; exit with 7 if anything is damaged.

    Each finding names the event, or the range of events. The verification itself becomes an event.
    """
    from mainspring.operations.auditing import verify_audit

    with call.progress() as progress:
        verdict = verify_audit(call.project, lambda done, total: progress.update("events", done, total))
    well = not verdict.damage

    def show(console: Console) -> None:
        for each in verdict.damage:
            console.print(f"[red]✗[/] [bold]{each.kind:<9}[/] ", end="")
            console.print(each.what, markup=False)
        for number in verdict.adopted:
            console.print(f"[yellow]•[/] Event {number} took over events whose head this key had not signed.")
        if not verdict.head and well:
            console.print("[yellow]•[/] No head is signed yet: the next event signs one.")
        erased = f", {verdict.redacted:,} without their subject" if verdict.redacted else ""
        console.print(f"{verdict.events:,} events{erased}: {'whole' if well else 'damaged'}.", style="bold")

    call.result({"well": well, "verdict": verdict}, show)
    return exits.OK if well else exits.CORRUPT


@make("search")
@click.option("--actor", default="", help="Part of the actor.")
@click.option("--action", default="", help="Beginning of the action: `keys` finds keys.create.")
@click.option("--resource", default="", help="Part of the resource.")
@click.option("--detail", default="", help="Part of the detail.")
@click.option("--since", default="", help="Only events from this time on.")
@click.option("--until", default="", help="Only events before this time.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Most events that are shown.")
def search(
    call: Call, *, actor: str, action: str, resource: str, detail: str, since: str, until: str, limit: int
) -> None:
    """List events with every given part, newest first."""
    from msgspec import to_builtins

    from mainspring.core.time import SECOND, format_instant, parse_end, parse_instant
    from mainspring.security.model import AuditFilter

    begin, end = parse_instant(since) if since else 0, parse_end(until) if until else None
    found = call.project.audit.search(AuditFilter(actor, action, resource, detail, begin, end), limit=limit)

    def show(console: Console) -> None:
        rows = [
            (str(each.number), format_instant(each.event.at // SECOND * SECOND), each.event.actor, each.event.action,
             each.event.resource, each.event.detail)
            for each in found
        ]  # fmt: skip
        names = ("number", "at", "actor", "action", "resource", "detail")
        show_records(console, names, rows, right=("number",), folded=("detail",))

    content = [
        {"number": each.number, **to_builtins(each.event), "at": format_instant(each.event.at)} for each in found
    ]
    call.result(content, show)


for _command in (search, verify):
    command.add_command(_command)
