"""`mainspring ingest`: ingest data into a source's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.data.warehouse.pulling import PullPlan, PullReport


@make("ingest")
@click.argument("source")
@click.argument("data", required=False)
@click.option(
    "--batch-id", help="Id of the batch, instead of a digest of its content: the same id twice changes nothing."
)
@click.option(
    "--null", "nulls", multiple=True, metavar="TEXT", help="A CSV text that means null, where it is not quoted."
)
@click.option(
    "--warehouse", is_flag=True, help="In place of DATA: the rows of the profile's warehouse since the last time."
)
@click.option("--since", metavar="ARRIVAL", help="With --warehouse: read the rows that arrived from here on.")
@click.option("--dry-run", is_flag=True, help="With --warehouse: tell how many rows would be read.")
def command(
    call: Call,
    *,
    source: str,
    data: str | None,
    batch_id: str | None,
    nulls: tuple[str, ...],
    warehouse: bool,
    since: str | None,
    dry_run: bool,
) -> None:
    """Ingest DATA into the table of SOURCE.

    DATA is a Parquet, CSV or Arrow file, or MODULE:FUNCTION of the project that returns rows (an Arrow table, record
    batches or dictionaries). Rows that fail a check go to the quarantine with the reason. Ingestion is idempotent: the
    same data twice changes nothing.

    With --warehouse, the rows are those of the source's table in the profile's warehouse, in the order of their
    arrival. Each is ingested once; rows that came late are found again.
    """
    if warehouse == (data is not None):
        raise click.UsageError("Name DATA, or give --warehouse: one of them.")
    if warehouse:
        if batch_id is not None or nulls:
            raise click.UsageError("--batch-id and --null are for DATA; rows of a warehouse have their own.")
        if dry_run:
            _plan(call, source, since)
        else:
            _pull(call, source, since)
    elif since is not None or dry_run:
        raise click.UsageError("--since and --dry-run need --warehouse.")
    else:
        _land(call, source, data or "", batch_id, nulls)


def _land(call: Call, source: str, data: str, batch_id: str | None, nulls: Sequence[str]) -> None:
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
        _show_changed(console, report.changed)
        if report.already:
            console.print(f"{report.already:,} rows had been ingested before and changed nothing.")
        _show_rest(console, source, report.quarantined, report.reasons, report.warnings)

    call.result(asdict(report), show)


def _pull(call: Call, source: str, since: str | None) -> None:
    from mainspring.operations.pulling import pull

    with call.progress() as progress:
        report = pull(
            call.project,
            source,
            since=since,
            progress=lambda done, total: progress.update(source, done, total, "rows"),
        )
        progress.finish(source, f"{report.rows:,} ingested, {report.quarantined:,} quarantined, {report.known:,} known")

    def show(console: Console) -> None:
        console.print(f"[bold]{report.source}[/] version {report.version}: {report.rows:,} rows ingested.")
        console.print(_range(report), markup=False)
        _show_changed(console, report.changed)
        if report.known:
            console.print(f"{report.known:,} of the {report.read:,} rows read had been ingested before.")
        _show_rest(console, source, report.quarantined, report.reasons, report.warnings)

    call.result(asdict(report), show)


def _plan(call: Call, source: str, since: str | None) -> None:
    from mainspring.operations.pulling import plan_pull

    plan = plan_pull(call.project, source, since=since)

    def show(console: Console) -> None:
        size = "" if plan.scanned_bytes is None else f", {plan.scanned_bytes:,} bytes"
        console.print(f"{plan.rows:,} rows{size} would be read for [bold]{plan.source}[/].")
        console.print(_range(plan), markup=False)
        _show_rest(console, source, 0, {}, plan.warnings)

    call.result(asdict(plan), show)


def _range(found: PullReport | PullPlan) -> str:
    return f"From {found.table}, by {found.arrival}: {found.since} to {found.until}."


def _show_changed(console: Console, changed: Sequence[str]) -> None:
    if changed:
        console.print(f"First the table was changed to match the source's declaration: {', '.join(changed)}.")


def _show_rest(
    console: Console, source: str, quarantined: int, reasons: Mapping[str, int], warnings: Sequence[str]
) -> None:
    if quarantined:
        rows = "row is" if quarantined == 1 else "rows are"
        console.print(f"[yellow]{quarantined:,} {rows} in the quarantine:[/]")
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
            console.print(f"  {count:>10,}  {reason}", markup=False)
        console.print(f"Show them with `mainspring data quarantine {source}`.")
    for warning in warnings:
        console.print(f"Warning: {warning}", style="yellow", markup=False)
