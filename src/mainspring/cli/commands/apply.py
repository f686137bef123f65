"""`mainspring apply`: check the definitions, show the changes, and store them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"+": "green", "~": "yellow", "-": "red"}


@make("apply")
@click.option("--dry-run", is_flag=True, help="Show the changes without storing them.")
def command(call: Call, *, dry_run: bool) -> None:
    """Check the project's definitions, show the changes since the last apply, and store them.

    For new last-value features, compute the flags of rows that were ingested before.
    """
    from mainspring.features.check import shared_sources
    from mainspring.operations.apply import apply
    from mainspring.training.inputs import text_notices

    changes, contents = apply(call.project, dry_run=dry_run)
    definitions = call.project.definitions
    notices = shared_sources(definitions.views.values(), definitions.observations)
    notices += text_notices(definitions.models.values())
    if definitions.budgets:
        from mainspring.operations.budgets.standing import notices as budget_notices

        notices += budget_notices(call.project)

    def show(console: Console) -> None:
        for change in changes:
            style = _STYLES[change.sign]
            console.print(f"[{style}]{change.sign}[/] {change.kind} [bold]{change.name}[/]")
            for detail in change.details:
                console.print(f"    {detail}", style="dim", markup=False)
        what = "would be applied" if dry_run else "applied"
        changed = sum(change.sign != "-" and change.kind != "table" for change in changes)
        gone = sum(change.sign == "-" for change in changes)
        left = f", {gone} removed" if gone else ""
        console.print(
            f"{len(contents)} definitions {what}, {changed} of them changed{left}." if changes else "Nothing changed."
        )
        for notice in notices:
            console.print(f"Note: {notice}", style="yellow", markup=False)

    call.result(
        {
            "applied": not dry_run,
            "definitions": len(contents),
            "changes": [
                {"change": {"+": "new", "~": "changed", "-": "gone"}[change.sign], "kind": change.kind,
                 "name": change.name, "details": list(change.details)}
                for change in changes
            ],
            "notices": notices,
        },
        show,
    )  # fmt: skip
