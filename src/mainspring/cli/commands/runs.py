"""`mainspring runs`: list training runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

_JUDGED = "holdout."
_WIDE = 100  # columns of a terminal that holds a run's metrics beside each other


@make("runs")
@click.argument("model", required=False)
@click.option("--filter", "filter_", default="", help="What they must be, such as 'metrics.auc > 0.8 and depth = 3'.")
@click.option("--order", default="", help="What comes first, such as 'metrics.auc desc'; by default the newest.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def command(call: Call, *, model: str | None, filter_: str, order: str, limit: int) -> None:
    """List the training runs of MODEL, or of all models, newest first."""
    from mainspring.app.runs.finding import find_runs
    from mainspring.core.time import format_instant

    runs = find_runs(call.project, model, filter_=filter_, order=order, limit=limit, by_hand=True)

    def show(console: Console) -> None:
        from rich.table import Table

        if not runs:
            console.print("No run fulfils it." if filter_ else "No runs yet. Next: mainspring train MODEL")
            return
        table = Table(box=None, header_style="bold")
        narrow = console.width < _WIDE
        for column, width in (("run", 32), ("model", None), ("status", None), ("started", 10), ("held out", 12)):
            # An id that is cut off is of no use, nor is a number.
            table.add_column(column, min_width=width, overflow="fold")
        for run in runs:
            judged = {name.removeprefix(_JUDGED): run.metrics[name] for name in run.metrics if name.startswith(_JUDGED)}
            metrics = ("\n" if narrow else "  ").join(f"{name} {value:.4f}" for name, value in judged.items())
            started = format_instant(run.started_at // 1_000_000 * 1_000_000)[: 10 if narrow else None]
            table.add_row(run.id, run.model, run.status, started, metrics)
        console.print(table)

    call.result([asdict(run) for run in runs], show)
