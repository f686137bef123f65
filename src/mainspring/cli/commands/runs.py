"""`mainspring runs`: list training runs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

_JUDGED = "holdout."
_ERROR = 200  # characters of a failed run's error; --json prints all of it
# Terminal width that fits a run's metrics side by side, and its start to the second.
_WIDE, _TIMED = 140, 100


@make("runs")
@click.argument("model", required=False)
@click.option(
    "--filter", "filter_", default="", help="Only runs that match, such as 'metrics.auc > 0.8 and depth = 3'."
)
@click.option("--order", default="", help="Sort order, such as 'metrics.auc desc'; by default the newest first.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def command(call: Call, *, model: str | None, filter_: str, order: str, limit: int) -> None:
    """List the training runs of MODEL, or of all models, newest first, with the errors of failed runs."""
    from mainspring.core.time import format_instant
    from mainspring.operations.runs import find_runs
    from mainspring.registry.runs import ERROR

    runs = find_runs(call.project, model, filter_=filter_, order=order, limit=limit, by_hand=True)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        if not runs:
            console.print("No run matches." if filter_ else "No runs yet. Next: mainspring train MODEL")
            return
        apart, dated = console.width >= _WIDE, console.width < _TIMED
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1 if apart else 0, 0, 1))
        for column in ("run", "model", "status", "started", "held out"):
            # Ids and numbers must not be cut off; other long values continue in the next line.
            table.add_column(column, no_wrap=column in ("run", "status", "started"), overflow="fold")
        for run in runs:
            judged = {name.removeprefix(_JUDGED): run.metrics[name] for name in run.metrics if name.startswith(_JUDGED)}
            metrics = ("  " if apart else "\n").join(f"{name} {value:.4f}" for name, value in judged.items())
            started = format_instant(run.started_at // 1_000_000 * 1_000_000)[: 10 if dated else None]
            failed = run.tags.get(ERROR, "")
            told = f"[red]{escape(textwrap.shorten(failed, _ERROR))}[/]" if failed else metrics
            table.add_row(run.id, run.model, run.status, started, told)
        console.print(table)

    call.result([{**dated(run, "started_at", "ended_at"), "error": run.tags.get(ERROR)} for run in runs], show)
