"""`mainspring monitor`: join labels, then measure quality and drift, without waiting for the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table


@click.group("monitor", cls=Group, default="run")
def command() -> None:
    """Quality, drift and skew of an endpoint now, and the tables behind them in SQL."""


@make("run")
@click.argument("endpoint")
def run(call: Call, *, endpoint: str) -> None:
    """Update the monitoring windows of ENDPOINT: traffic, latency, quality with label coverage, and drift.

    First are the open incidents, then the newest windows. Below them is the quality of the newest window with labels,
    by version and segment, with 95% intervals and the label coverage that is usual at that age, and what is estimated
    before labels; in JSON, each window has both in `measured`.

    A drifted column differs from training, as seasons make it do: that is no alarm. Signals of the monitor's channels,
    which judge by the endpoint's own history, open and close incidents: `mainspring incidents list`.
    """
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
    from mainspring.cli.commands.status import show_incidents
    from mainspring.cli.quality_view import business_view, estimates_view, quality_view, windows_view
    from mainspring.operations.quality import quality
    from mainspring.operations.service.objectives import objectives
    from mainspring.operations.service.skew import skew
    from mainspring.operations.status import open_incidents

    found = quality(project, endpoint, windows)
    promised = objectives(project, endpoint)
    compared = skew(project, endpoint)

    def show(console: Console) -> None:
        if not windows:
            console.print(f"No predictions of {endpoint} yet.")
            return
        incidents = open_incidents(project, endpoint)
        if incidents:
            show_incidents(console, incidents)
        else:
            console.print("No incident is open.")
        if promised:
            show_objectives(console, promised)
        parts = [*windows_view(found)]
        labelled = next((each for each in reversed(found) if any(part.labels for part in each.measured)), None)
        if labelled is not None:
            parts += quality_view(labelled)
        foreseen = next((each for each in reversed(found) if any(part.estimated for part in each.measured)), None)
        if foreseen is not None:
            parts += estimates_view(foreseen)
        counted = next((each for each in reversed(found) if each.business), None)
        if counted is not None:
            parts += business_view(counted)
        console.print(*parts, sep="\n")
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


@make("skew", reads_only=True)
@click.argument("endpoint")
def skew_(call: Call, *, endpoint: str) -> None:
    """Show the features of the last day whose served values were compared with the offline read.

    The worker compares a sample of each hour's predictions, drawn by a hash of their keys. The table `skew` of
    `mainspring monitor query` has them by hour and version.
    """
    from mainspring.operations.service.skew import skew

    call.project.definitions.endpoint(endpoint)
    compared = skew(call.project, endpoint)

    def show(console: Console) -> None:
        if compared:
            console.print(_skew_table(compared))
        else:
            console.print(f"No served feature of {endpoint} was compared in the last day.")

    call.result(compared, show)


@make("query", reads_only=True)
@click.argument("sql")
def query_(call: Call, *, sql: str) -> None:
    """Read the tables of the monitor by SQL: hours, sketches, quality, skew, windows, incidents, predictions, failures.

    The SQL is DuckDB's.
    """
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


for part in (run, query_, skew_):
    command.add_command(part)
