"""`mainspring ingest`: land data in a source's table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("ingest")
@click.argument("source")
@click.argument("data")
@click.option("--batch-id", help="Know the batch by this instead of by its content: the same id twice changes nothing.")
@click.option("--null", "nulls", multiple=True, metavar="TEXT", help="In CSV this text, not in quotes, is null too.")
def command(call: Call, *, source: str, data: str, batch_id: str | None, nulls: tuple[str, ...]) -> None:
    """Land DATA in the table of SOURCE.

    DATA is a Parquet, CSV or Arrow file, or MODULE:FUNCTION of the project that returns rows (an Arrow table, record
    batches or dictionaries). Rows that fail a check go to the quarantine with the reason. The same data twice changes
    nothing.
    """
    from mainspring.operations.ingest import land

    with call.progress() as progress:
        report = land(
            call.project,
            source,
            data,
            batch_id=batch_id,
            nulls=nulls,
            progress=lambda done, total: progress.update(source, done, total, "rows"),
        )
        progress.finish(source, f"{report.rows:,} landed, {report.quarantined:,} quarantined, {report.already:,} known")

    def show(console: Console) -> None:
        console.print(f"[bold]{report.source}[/] version {report.version}: {report.rows:,} rows landed.")
        if report.changed:
            console.print(f"The table was brought to what the source declares first: {', '.join(report.changed)}.")
        if report.already:
            console.print(f"{report.already:,} rows were there already and changed nothing.")
        if report.quarantined:
            rows = "row is" if report.quarantined == 1 else "rows are"
            console.print(f"[yellow]{report.quarantined:,} {rows} in the quarantine:[/]")
            for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
                console.print(f"  {count:>10,}  {reason}", markup=False)
            console.print(f"See them with `mainspring data quarantine {report.source}`.")
        for warning in report.warnings:
            console.print(f"Warning: {warning}", style="yellow", markup=False)

    call.result(asdict(report), show)
