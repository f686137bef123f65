"""`mainspring train`: from data to a signed, registered version."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("train")
@click.argument("model")
@click.option("--since", help="Use observations from this instant on (ISO 8601).")
@click.option("--until", help="Use data that was known by this instant (ISO 8601); by default now.")
@click.option(
    "--without", multiple=True, metavar="ROWS",
    help="Leave rows out, as if never ingested: SOURCE@BATCH, SOURCE.COLUMN=VALUE, or SOURCE; repeatable.",
)  # fmt: skip
def command(call: Call, *, model: str, since: str | None, until: str | None, without: tuple[str, ...]) -> None:
    """Train MODEL on data known by --until, verify that the bundle matches the estimator, sign and register it."""
    from rich.markup import escape

    from mainspring.core.time import parse_instant
    from mainspring.operations.train import train

    with call.progress() as progress:
        progress.update(model, 0, 100, "load the project")
        report = train(
            call.project,
            model,
            since=None if since is None else parse_instant(since),
            until=None if until is None else parse_instant(until),
            without=without,
            progress=lambda stage, share: progress.update(model, round(share * 100), 100, stage),
        )
        progress.finish(model, f"version {report.version}")

    def show(console: Console) -> None:
        console.print(
            f"[bold]{report.model} version {report.version}[/], bundle {report.digest[:12]}, run {report.run_id}"
        )
        console.print(
            f"{report.training_rows:,} training rows, {report.holdout_rows:,} held out, {report.seconds:.1f} s"
        )
        width = max(12, *map(len, report.metrics))
        for name, value in report.metrics.items():
            beside = f"   baseline {report.baseline[name]:.4f}" if name in report.baseline else ""
            console.print(f"  {name:<{width}} {value:.4f}{beside}", markup=False)
        if report.threshold is not None:
            console.print(f"  threshold {report.threshold:.6g}, at which errors cost least on the validation rows")
        for undefined in report.undefined:
            console.print(f"[yellow]Not measured:[/] {escape(undefined)}")
        for note in report.notes:
            console.print(f"[yellow]Note:[/] {escape(note)}")
        for finding in report.findings:
            console.print(f"[yellow]Possible leak:[/] {escape(finding)}")
        console.print(f"Next: mainspring promote {report.model}")

    call.result(asdict(report), show)
