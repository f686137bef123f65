"""`mainspring endpoints`: all endpoints with their health, and one at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"page": "red", "ticket": "yellow", "idle": "dim", "silent": "dim", "well": "green"}


@click.group("endpoints", cls=Group, default="list")
def command() -> None:
    """Endpoints: whether they are well, what they serve, and what is wrong."""


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List all endpoints, those with the most important incidents first.

    A state is `page` or `ticket` with an open incident of that level, `idle` if the endpoint serves nothing, `silent`
    without predictions in the last 14 windows, else `well`.
    """
    from mainspring.operations.endpoint_health import health, summary

    found = [summary(row) for row in health(call.project)]

    def show(console: Console) -> None:
        from rich.text import Text

        if not found:
            console.print("No endpoint is declared: ms.Endpoint(NAME, model=MODEL).", markup=False)
            return
        rows = []
        for row in found:
            versions = ", ".join(
                version if share == 1 else f"{version} ({share:.0%})" for version, share in row.versions.items()
            )
            cells = (
                row.endpoint,
                Text(row.state, _STYLES[row.state]),
                versions or "–",
                f"{row.predictions:,}",
                "–" if row.p99_ms is None else f"{row.p99_ms:.1f}",
                "–" if row.value is None else f"{row.metric} {row.value:.3f}",
                "–" if row.drifted is None else f"{row.drifted} of {row.columns}",
            )
            rows.append(cells)
        columns = ("endpoint", "state", "version", "predictions", "p99 ms", "quality", "drifted")
        show_records(console, columns, rows, right=("predictions", "p99 ms"))
        if opened := {id for row in found for id in row.incidents}:
            console.print(f"Open incidents: {len(opened)}. See mainspring incidents list", style="dim")

    call.result(found, show)


@make("show", reads_only=True)
@click.argument("endpoint")
def show_(call: Call, *, endpoint: str) -> None:
    """Show ENDPOINT: what it serves, its quality, objectives, drift, and open incidents."""
    from mainspring.cli.commands.status import show_endpoint, show_incidents
    from mainspring.operations.status import endpoint_status, open_incidents

    found = endpoint_status(call.project, endpoint)
    incidents = open_incidents(call.project, endpoint)

    def show(console: Console) -> None:
        show_incidents(console, incidents)
        show_endpoint(console, found)
        console.print(f"  windows   mainspring monitor {endpoint}")

    call.result({"endpoint": found, "incidents": incidents}, show)


command.add_command(list_)
command.add_command(show_)
