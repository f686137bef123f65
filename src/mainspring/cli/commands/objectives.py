"""`mainspring objectives`: promises about endpoints, with their error budgets and burn rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mainspring.monitoring.service.burning import ObjectiveReport

_STYLES = {"page": "red", "ticket": "yellow"}


@make("objectives", reads_only=True)
@click.argument("endpoint", required=False)
def command(call: Call, *, endpoint: str | None) -> None:
    """Show the objectives of ENDPOINT, or of all: what is left of each error budget, and how fast it is used up."""
    from mainspring.operations.service.objectives import objectives

    found = objectives(call.project, endpoint)

    def show(console: Console) -> None:
        if not found:
            console.print(
                "No objectives are declared: ms.Monitor(ENDPOINT, objectives=[ms.objectives.availability(0.999)]).",
                markup=False,
            )
        else:
            show_objectives(console, found)

    call.result(found, show)


def show_objectives(console: Console, reports: Sequence[ObjectiveReport]) -> None:
    """Print objectives as a table."""
    from rich.text import Text

    rows = []
    for report in reports:
        burn = ["–" if (rate := report.burn[window]) is None else f"{rate:.3g}" for window in ("5m", "1h", "6h", "3d")]
        style = _STYLES.get(report.alert, "")
        rows.append(
            (
                report.about,
                report.endpoint,
                "–" if report.ratio is None else f"{report.ratio:.4%}",
                "–" if report.budget_left is None else f"{report.budget_left:.1%}",
                *burn,
                f"{report.observed:.0%}",
                Text(report.alert, style) if style else "no",
            )
        )
    columns = (
        "objective", "endpoint", "good", "budget left", "burn 5m", "burn 1h", "burn 6h", "burn 3d", "observed", "alert",
    )  # fmt: skip
    show_records(console, columns, rows)
