"""`mainspring models label-issues`: labels of a model's training data that are probably wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@make("label-issues")
@click.argument("model")
@click.option("--since", help="Judge observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option(
    "--folds", type=click.IntRange(2), default=5, show_default=True, help="Fits, each without a block of rows."
)
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="Rows to print; --json has all.")
@click.option("--reveal", is_flag=True, help="Show keys that identify a person too; the audit log records the actor.")
def label_issues(
    call: Call, *, model: str, since: str | None, until: str | None, folds: int, most: int, reveal: bool
) -> None:
    """List the rows of MODEL's training data whose labels are probably wrong, the least plausible first.

    Each row is judged by a fit without it, by confident learning. Nothing is changed; the run keeps them all in a file.
    """
    from mainspring.core.time import format_instant, parse_instant
    from mainspring.operations.label_issues import label_issues as find

    with call.progress() as progress:
        progress.update("label issues", 0, 100, "begin")
        run, found = find(
            call.project,
            model,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            folds=folds,
            reveal=reveal,
            progress=lambda stage, share: progress.update("label issues", round(share * 100), 100, stage),
        )
        progress.finish("label issues", f"{len(found.suspects):,} of {found.rows:,} rows")

    def show(console: Console) -> None:
        console.print(f"{len(found.suspects):,} of {found.rows:,} labels of {model} are probably wrong (run {run}).")
        if not found.suspects:
            return
        keys = list(found.suspects[0].keys)
        rows = [
            (*map(str, each.keys.values()), format_instant(each.at), str(each.label), str(each.suggested),
             f"{each.confidence:.3f}", "yes" if each.repeats else "")
            for each in found.suspects[:most]
        ]  # fmt: skip
        show_records(console, (*keys, "at", "label", "suggested", "confidence", "same features"), rows)
        for place, given in enumerate(found.classes):
            wrong = sum(found.joint[place]) - found.joint[place][place]
            if wrong >= 0.5:
                console.print(f"About {wrong:,.0f} rows with the label {given} belong to another class.")

    document = {
        "model": model,
        "run": run,
        "rows": found.rows,
        "classes": list(found.classes),
        "joint": [list(row) for row in found.joint],
        "suspects": [
            {
                "keys": each.keys,
                "at": format_instant(each.at),
                "label": each.label,
                "suggested": each.suggested,
                "confidence": each.confidence,
                "repeats": each.repeats,
            }
            for each in found.suspects
        ],
    }
    call.result(document, show)


COMMANDS = (label_issues,)
