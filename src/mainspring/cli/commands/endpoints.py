"""`mainspring endpoints`: all endpoints with their health, and one at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.stream_endpoints.showing import StreamStatus

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
    from mainspring.operations.stream_endpoints.showing import status

    found = endpoint_status(call.project, endpoint)
    incidents = open_incidents(call.project, endpoint)
    stream = status(call.project, endpoint) if endpoint in call.project.definitions.stream_endpoints else None

    def show(console: Console) -> None:
        show_incidents(console, incidents)
        show_endpoint(console, found)
        console.print(f"  windows   mainspring monitor {endpoint}")
        if stream is not None:
            show_stream(console, stream)

    call.result({"endpoint": found, "incidents": incidents, "stream": stream and stream_document(stream)}, show)


def stream_document(found: StreamStatus) -> dict[str, Any]:
    """Return the progress of a stream endpoint, with instants as texts."""
    from dataclasses import asdict

    document = asdict(found)
    document["partitions"] = [dated(each, "watermark", "at") for each in document["partitions"]]
    return document


def show_stream(console: Console, found: StreamStatus) -> None:
    """Print the progress of a stream endpoint."""
    from mainspring.core.time import format_instant

    console.print(f"  topic     {found.topic}, to {', '.join(found.to) or 'nobody'}", markup=False)
    if found.problem:
        console.print(f"  {found.problem}", markup=False, style="red")
    rows = [
        (
            str(each.partition),
            each.next,
            "–" if each.lag is None else f"{each.lag:,}",
            "–" if each.watermark is None else format_instant(each.watermark),
            f"{each.processed:,}",
            f"{each.emitted:,}",
            f"{each.late:,}",
            f"{each.dead:,}",
            f"{each.duplicates:,}",
            f"{max(each.waiting.values(), default=0):,}",
        )
        for each in found.partitions
    ]
    columns = ("partition", "next", "lag", "watermark", "processed", "sent", "late", "dead", "again", "waiting")
    if rows:
        show_records(console, columns, rows, right=("next", "lag", *columns[4:]))
    else:
        console.print("  Nothing was processed here yet.")


command.add_command(list_)
command.add_command(show_)
