"""`mainspring monitor`: join labels, then measure quality and drift, without waiting for the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

    from mainspring.monitoring.model import Window


_METRICS = 3  # of a window in the table; the newest window's have a table of their own


@make("monitor")
@click.argument("endpoint")
@click.argument("sql", required=False)
def command(call: Call, *, endpoint: str, sql: str | None) -> None:
    """Update the monitoring windows of ENDPOINT: traffic, latency, quality with label coverage, and drift.

    Below them is the quality of the newest window with labels, by version and segment, with 95% intervals and the
    label coverage that is usual at that age; in JSON, each window has it as `measured`.

    A drifted column differs from training, as seasons make it do: that is no alarm. Signals of the monitor's channels,
    which judge by the endpoint's own history, open and close incidents: `mainspring incidents list`.

    `mainspring monitor query SQL` reads the tables behind it instead, in DuckDB's SQL: hours, sketches, quality,
    windows, incidents, predictions, failures.
    """
    if sql is not None:
        _query(call, endpoint, sql)
        return
    from mainspring.core.time import format_instant
    from mainspring.operations.notifying import Delivery
    from mainspring.operations.watching import watch

    project = call.project
    project.definitions.endpoint(endpoint)
    project.predictions.compact()
    with call.progress() as progress:
        project.monitor.run(endpoint, progress=lambda done, total: progress.update("windows", done, total))
    project.quality_updates.run(endpoint)
    watch(project, [endpoint], windows=False)
    Delivery(project).run()
    windows = project.monitors.windows(endpoint)
    from msgspec import to_builtins

    from mainspring.cli.commands.objectives import show_objectives
    from mainspring.cli.quality_view import business_table, estimates_table, quality_table
    from mainspring.operations.quality import quality
    from mainspring.operations.service.objectives import objectives
    from mainspring.operations.service.skew import skew

    found = quality(project, endpoint, windows)
    promised = objectives(project, endpoint)
    compared = skew(project, endpoint)

    def show(console: Console) -> None:
        from rich.table import Table

        if promised:
            show_objectives(console, promised)
        if not windows:
            console.print(f"No predictions of {endpoint} yet.")
            return
        table = Table(box=None, header_style="bold")
        for column in ("from", "predictions", "p99 ms", "labels", "quality", "drifted columns"):
            table.add_column(column)
        for window in windows:
            quality = "\n".join(
                f"version {version}: "
                + "  ".join(f"{name} {value:.3f}" for name, value in list(made.quality.items())[:_METRICS])
                for version, made in window.by_predictor.items()
            )
            p99 = "–" if window.p99_ms is None else f"{window.p99_ms:.1f}"
            share = f"{window.labels:,} ({window.coverage:.0%})"
            table.add_row(
                format_instant(window.start), f"{window.predictions:,}", p99, share, quality, _drifted(window)
            )
        console.print(table)
        newest = next((each for each in reversed(found) if any(part.labels for part in each.measured)), None)
        if newest is not None:
            console.print(quality_table(newest))
        foreseen = next((each for each in reversed(found) if any(part.estimated for part in each.measured)), None)
        if foreseen is not None:
            console.print(estimates_table(foreseen))
        counted = next((each for each in reversed(found) if each.business), None)
        if counted is not None:
            console.print(business_table(counted))
        if compared:
            console.print(_skew_table(compared))

    call.result([dated(to_builtins(window), "start", "end", "computed_at") for window in found], show)


def _skew_table(compared: Mapping[str, Mapping[str, int]]) -> Table:
    """Return the features of the last day whose served values were compared with the offline read, the worst first."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", title="Served and stored features, last day", title_justify="left")
    for column in ("feature", *next(iter(compared.values()))):
        table.add_column(column)
    for feature, counts in sorted(
        compared.items(), key=lambda each: (each[1]["match"] - sum(each[1].values()), each[0])
    ):
        table.add_row(feature, *(f"{count:,}" for count in counts.values()))
    return table


def _drifted(window: Window) -> str:
    """Return how many columns of a window drifted, and the farthest."""
    if not window.judged:
        return "–"
    text = f"{len(window.drifted)} of {len(window.judged)}"
    farthest = max((each for each in window.judged if each.drifted), key=lambda each: each.ks, default=None)
    return text if farthest is None else f"{text}, most {farthest.column}"


def _query(call: Call, word: str, sql: str) -> None:
    if word != "query":
        raise click.UsageError(f"Got unexpected extra argument ({sql}); for SQL write `mainspring monitor query SQL`.")
    from mainspring.operations.monitor_query import query

    found = query(call.project, sql)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, header_style="bold")
        for column in found.columns:
            table.add_column(escape(column))
        for row in found.rows:
            table.add_row(*("–" if value is None else escape(str(value)) for value in row))
        console.print(table)
        if found.cut:
            console.print(f"The first {len(found.rows):,} rows; there are more.")

    call.result([dict(zip(found.columns, row, strict=True)) for row in found.rows], show)
