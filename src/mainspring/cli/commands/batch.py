"""`mainspring batch`: predictions for many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.batch.values import BatchReport

_SHOWN = 8  # columns of drift


@make("batch", charges=True)
@click.argument("endpoint")
@click.option("--from", "source", required=True, metavar="TABLE|FILES|QUERY", help="The rows to predict for.")
@click.option("--to", "output", required=True, metavar="TABLE|FOLDER", help="Where the predictions are written.")
@click.option("--as-of", default="now", metavar="COLUMN|now|TIME", help="When features are read; by default now.")
@click.option(
    "--keep",
    multiple=True,
    metavar="COLUMN",
    help="A column to keep beside the predictions; by default all but the model's inputs.",
)
@click.option("--new", is_flag=True, help="Read only what is new since the last run into this output.")
@click.option(
    "--engine",
    type=click.Choice(["ray", "spark", "beam"]),
    help="Score on Ray, Spark or Beam; by default in this process.",
)
@click.option("--threads", type=click.IntRange(1), help="Number of threads of this process; by default one per core.")
@click.option("--chunk-rows", type=click.IntRange(1), help="Rows of a chunk; by default 131,072.")
def command(
    call: Call,
    *,
    endpoint: str,
    source: str,
    output: str,
    as_of: str,
    keep: tuple[str, ...],
    new: bool,
    engine: str | None,
    threads: int | None,
    chunk_rows: int | None,
) -> None:
    """Predict for many rows with the live version of ENDPOINT, or with MODEL:VERSION.

    Rows are observations: entity keys and request fields, whose features are read as of a time; or the model's inputs
    themselves. They come from a table of the lake, from Parquet files, or from a SELECT. Each row is predicted once:
    run an interrupted command again to resume it. Rows that fail go to the quarantine with the reason.
    """
    from msgspec.structs import asdict

    from mainspring.core.time import format_duration
    from mainspring.operations.batch.running import run_batch
    from mainspring.operations.batch.values import Request
    from mainspring.project.backends.engines import chunk_engine

    request = Request(endpoint, source, output, as_of, keep, new, threads=threads or 0, chunk_rows=chunk_rows or 0)
    with call.progress() as progress:

        def told(done: int, total: int, left_s: float | None) -> None:
            left = "" if left_s is None else f", ends in {format_duration(max(1, round(left_s)) * 1_000_000)}"
            progress.update("predict", done, total, f"rows{left}")

        elsewhere = chunk_engine(engine or "", call.project.settings)
        report = run_batch(call.project, request, engine=elsewhere, progress=told)
        progress.finish("predict", f"{report.predicted:,} predictions")
    call.result(dated(asdict(report), "ended_at", "at"), lambda console: _show(console, report))


def _show(console: Console, report: BatchReport) -> None:
    if not report.rows and report.chunks == 1 and not report.seconds:
        console.print(f"Nothing is new in {report.source} since run {report.run}.", markup=False)
        return
    console.print(
        f"[bold]{report.predicted:,}[/] predictions of {report.model} version {report.version} in {report.output}, "
        f"{report.rows_per_s:,.0f} rows/s."
    )
    if report.resumed:
        console.print(f"{report.resumed:,} of {report.chunks:,} chunks were written by an earlier attempt.")
    if report.quarantined:
        console.print(f"[yellow]{report.quarantined:,} rows are in the quarantine:[/]")
        for reason, count in report.reasons.items():
            console.print(f"  {count:>10,}  {reason}", markup=False)
    if report.cost is not None:
        console.print(f"Cost: {report.cost:.4f} {report.currency}.")
    _show_drift(console, report)


def _show_drift(console: Console, report: BatchReport) -> None:
    if not report.drift:
        console.print("Drift: the version has no reference to compare with.", style="dim")
        return
    drifted_of = f"{len(report.drifted)} of {len(report.drift)} columns drifted"
    told = f"{drifted_of} from training ({report.sampled:,} rows compared)."
    console.print(told if report.drifted else f"[green]{told}[/]")
    drifted = sorted((each for each in report.drift if each.drifted), key=lambda each: -each.ks)
    for each in drifted[:_SHOWN]:
        shift = "" if each.shift_sd is None else f", mean {each.shift_sd:+.2f} sd"
        console.print(f"  {each.column}: {each.test}, distance {each.ks:.3f}{shift}", markup=False)
