"""`mainspring ingest`: ingest data into a source's table."""

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
@click.option(
    "--batch-id", help="Id of the batch, instead of a digest of its content: the same id twice changes nothing."
)
@click.option(
    "--null", "nulls", multiple=True, metavar="TEXT", help="A CSV text that means null, where it is not quoted."
)
def command(call: Call, *, source: str, data: str, batch_id: str | None, nulls: tuple[str, ...]) -> None:
    """Ingest DATA into the table of SOURCE.

    DATA is a Parquet, CSV or Arrow file, or MODULE:FUNCTION of the project that returns rows (an Arrow table, record
    batches or dictionaries). Rows that fail a check go to the quarantine with the reason. Ingestion is idempotent: the
    same data twice changes nothing.
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
        progress.finish(
            source, f"{report.rows:,} ingested, {report.quarantined:,} quarantined, {report.already:,} already there"
        )

    def show(console: Console) -> None:
        console.print(f"[bold]{report.source}[/] version {report.version}: {report.rows:,} rows ingested.")
        if report.changed:
            console.print(
                f"First the table was changed to match the source's declaration: {', '.join(report.changed)}."
            )
        if report.already:
            console.print(f"{report.already:,} rows had been ingested before and changed nothing.")
        if report.quarantined:
            rows = "row is" if report.quarantined == 1 else "rows are"
            console.print(f"[yellow]{report.quarantined:,} {rows} in the quarantine:[/]")
            for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
                console.print(f"  {count:>10,}  {reason}", markup=False)
            console.print(f"Show them with `mainspring data quarantine {report.source}`.")
        for warning in report.warnings:
            console.print(f"Warning: {warning}", style="yellow", markup=False)

    call.result(asdict(report), show)
