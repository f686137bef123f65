"""`mainspring endpoints`: all endpoints with their health, and one at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records, size_text

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


@make("callers", reads_only=True)
@click.argument("endpoint")
@click.option("--last", default="1d", show_default=True, help="Time to look back, a duration.")
def callers_(call: Call, *, endpoint: str, last: str) -> None:
    """Show who asked for how much of ENDPOINT, and whose rows are unlike all others'.

    The distance says how much farther a caller's rows are from all others than those are from one another: 0.5 if they
    are alike. From 0.8 on the caller may be copying the model.
    """
    from mainspring.core.time import parse_duration
    from mainspring.operations.callers import RESTRICTED, callers

    now = call.project.clock.now()
    found = callers(call.project, endpoint, now - parse_duration(last), now + 1)

    def show(console: Console) -> None:
        if not found:
            console.print(f"Nobody asked for {endpoint} within {last}.", markup=False)
            return
        rows = [
            (each.who, f"{each.rows:,}", f"{each.share:.0%}", f"{each.distinct:,}",
             "–" if each.distance is None else f"{each.distance:.2f}", "yes" if each.unlike else "",
             RESTRICTED.get(each.restricted, ""))
            for each in found
        ]  # fmt: skip
        columns = ("caller", "rows", "share", "compared", "distance", "unlike", "gets")
        show_records(console, columns, rows, right=("rows", "share", "compared", "distance"))
        if all(each.distance is None for each in found):
            console.print("Too few callers with enough distinct rows to compare.", style="dim")

    call.result(found, show)


@make("scaling", reads_only=True)
@click.argument("endpoint", required=False)
@click.option("--last", default="1d", show_default=True, help="Time to look back, a duration.")
def scaling_(call: Call, *, endpoint: str | None, last: str) -> None:
    """Show executors and memory of models, by default of all endpoints, and every decision on them with its reason.

    Decisions are of this machine's gateway: models that were loaded, left the memory or were refused, and changed
    numbers of executors, with the load that they follow from.
    """
    from mainspring.core.time import parse_duration
    from mainspring.operations.scaling import scaling

    found = scaling(call.project, call.project.wall.now() - parse_duration(last), endpoint)

    def show(console: Console) -> None:
        if found.memory_limit is not None:
            said = f"{size_text(found.memory)} of {size_text(found.memory_limit)}"
            many = "process" if found.processes == 1 else "processes"
            console.print(f"Models take {said} in {found.processes} {many}.")
        rows = [
            (each.endpoint, str(each.executors), f"{each.least} to {each.most}", size_text(each.model_bytes),
             "–" if each.cache is None else f"{each.cache.hits + each.cache.shared:,} of "
             f"{each.cache.hits + each.cache.shared + each.cache.misses + each.cache.refused:,}")
            for each in found.endpoints
        ]  # fmt: skip
        columns = ("endpoint", "executors", "limits", "memory", "from its cache")
        show_records(console, columns, rows, right=("executors", "memory"))
        for each in found.endpoints:
            for device in each.devices:
                console.print(f"{each.endpoint}: {device.said()}")
        if not found.processes:
            console.print("No gateway of this machine answers: run mainspring up", style="dim")
        if not found.decisions:
            console.print(f"Nothing was decided within {last}.")
            return
        told = [
            (each.at, each.what, ", ".join(each.endpoints) or each.digest[:12],
             f"{each.executors_before} → {each.executors_after}",
             f"{size_text(each.memory_before)} → {size_text(each.memory_after)}",
             "–" if each.queue_delay_ms is None else f"{each.queue_delay_ms:.1f}",
             "–" if each.lost is None else str(each.lost), each.why)
            for each in found.decisions
        ]  # fmt: skip
        titles = ("at", "decision", "endpoint", "executors", "memory", "waited ms", "refused", "why")
        show_records(console, titles, told, right=("waited ms", "refused"))

    call.result(found, show)


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
command.add_command(callers_)
command.add_command(scaling_)
