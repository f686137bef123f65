"""`mainspring materialize`: bring the online features up to date."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("materialize")
@click.argument("views", nargs=-1)
@click.option("--rebuild", is_flag=True, help="Forget what is stored of them first.")
@click.option("--through", help="Through this instant (ISO 8601), instead of now.")
def command(call: Call, *, views: tuple[str, ...], through: str | None, rebuild: bool) -> None:
    """Bring the online features of VIEWS, by default of all, up to date with the lake."""
    from mainspring.app.materialising import materialise_views
    from mainspring.core.time import SECOND, format_instant, parse_instant

    definitions = call.project.definitions
    chosen = [definitions.view(name) for name in views] or list(definitions.views.values())
    if rebuild:
        for view in chosen:
            call.project.materialiser.forget(view)
    with call.progress() as progress:
        reports = materialise_views(
            call.project,
            chosen,
            through=None if through is None else parse_instant(through),
            progress=lambda name, done, total: progress.update(name, done, total, "entities"),
        )

    def show(console: Console) -> None:
        for report in reports:
            console.print(
                f"[bold]{report.view}[/]: {report.entities:,} entities from {report.rows:,} rows, "
                f"through {format_instant(report.through // SECOND * SECOND)}"
            )
        idle = [view.name for view in chosen if view.name not in {report.view for report in reports}]
        if idle:
            console.print(f"No data has landed yet for {', '.join(idle)}.")

    call.result([asdict(report) for report in reports], show)
