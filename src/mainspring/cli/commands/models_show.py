"""`mainspring models show` and `history`: where a version comes from, and what happened to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console


@make("show")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
def show(call: Call, *, reference: str) -> None:
    """Show the lineage of a version: run, data, features, code, author, and the versions it is made of.

    NAME alone selects the champion, or the newest version if there is none. The bundle is verified.
    """
    from mainspring.core.time import format_instant
    from mainspring.operations.models import curating

    shown = curating.show(call.project, reference)
    lineage = shown.lineage

    def told(console: Console) -> None:
        aliases = f" ({', '.join(lineage.aliases)})" if lineage.aliases else ""
        console.print(f"[bold]{lineage.model}:{lineage.version}[/]{aliases}", highlight=False)
        lines = [
            ("bundle", f"{lineage.digest}, intact and signed"),
            ("registered", format_instant(lineage.created_at)),
            ("author", ", ".join(lineage.authors) or "not recorded"),
            ("flavour", f"{lineage.flavour}, {lineage.task}"),
            ("run", f"{lineage.run_id} {lineage.run_status or 'not in this store'}"),
            ("dataset commit", lineage.dataset_commit),
            ("features", lineage.features_digest),
            ("code", lineage.code_version),
            *((each.role, f"{each.version or 'no version now'}, bundle {each.digest}") for each in lineage.ancestors),
            *((name, value) for name, value in sorted(lineage.tags.items()) if name.startswith("imported.")),
        ]
        lines += [(f"metric {name}", f"{value:.6g}") for name, value in sorted(lineage.metrics.items())]
        lines += [
            ("approved by", f"{each.approver}, {format_instant(each.at)}: {each.reason}") for each in shown.approvals
        ]
        lines += [
            (
                "withdrawn",
                f"{each.approval.approver}'s approval, by {each.actor}, {format_instant(each.at)}: {each.reason}",
            )
            for each in shown.withdrawn
        ]
        if shown.deletion is not None:
            lines.append(
                ("marked for deletion", f"marked by {shown.deletion.actor}, {format_instant(shown.deletion.at)}")
            )
        for name, value in lines:
            if value:
                console.print(f"  {name:<16} {value}", markup=False, highlight=False, soft_wrap=True)

    document = dated(curating.shown_document(shown), "created_at", "deletion.at")
    document["approvals"] = [dated(each, "at") for each in document["approvals"]]
    document["withdrawn"] = [dated(each, "at", "approval.at") for each in document["withdrawn"]]
    call.result(document, told)


@make("history")
@click.argument("name")
@click.option("--alias", help="Only moves of this alias.")
def history(call: Call, *, name: str, alias: str | None) -> None:
    """Show the promotion history of NAME: alias moves, approvals, withdrawals and deletions; newest first."""
    from mainspring.core.time import format_instant
    from mainspring.operations.models import curating

    found = curating.history(call.project, name, alias)

    def told(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, header_style="bold")
        for column in ("when", "what", "who", "detail", "why"):
            table.add_column(column)
        for each in found:
            table.add_row(format_instant(each.at), each.what, *map(escape, (each.actor, each.detail, each.reason)))
        console.print(table if found else "No history yet.")

    call.result([{**_plain(each), "at": format_instant(each.at)} for each in found], told)


def _plain(each: object) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(each)  # type: ignore[call-overload, no-any-return]


COMMANDS = (show, history)
