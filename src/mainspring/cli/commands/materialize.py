"""`mainspring materialize`: update the online features."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console


@make("materialize", charges=True)
@click.argument("views", nargs=-1)
@click.option(
    "--rebuild", is_flag=True, help="Recompute every entity beside the state that is served, then swap it in."
)
@click.option("--through", help="Materialise through this instant (ISO 8601), instead of now.")
def command(call: Call, *, views: tuple[str, ...], through: str | None, rebuild: bool) -> None:
    """Bring the online features of VIEWS, by default of all views, up to date with the lake.

    Run an interrupted rebuild again to resume it.
    """
    from mainspring.core.time import SECOND, format_instant, parse_instant
    from mainspring.operations.materialize import materialise

    definitions = call.project.definitions
    chosen = [definitions.view(name) for name in views] or list(definitions.views.values())
    with call.progress() as progress:
        began: dict[str, float] = {}

        def tell(name: str, done: int, total: int, rows: int) -> None:
            seconds = time.monotonic() - began.setdefault(name, time.monotonic())
            pace = f", {rows / seconds:,.0f} rows/s" if rows and seconds > 1 else ""
            progress.update(name, done, total, f"entities{pace}")

        reports = materialise(
            call.project,
            chosen,
            through=None if through is None else parse_instant(through),
            rebuild=rebuild,
            progress=tell,
        )

    def show(console: Console) -> None:
        for report in reports:
            pace = f" at {report.rows / report.seconds:,.0f} rows/s" if report.rows and report.seconds else ""
            console.print(
                f"[bold]{report.view}[/]: {report.entities:,} entities from {report.rows:,} rows{pace}, "
                f"through {format_instant(report.through // SECOND * SECOND)}"
            )
            for warning in report.warnings:
                console.print(f"[yellow]{warning}[/]")
        idle = [view.name for view in chosen if view.name not in {report.view for report in reports}]
        if idle:
            console.print(f"No data has been ingested yet for {', '.join(idle)}.")

    call.result([dated(report, "through") for report in reports], show)
