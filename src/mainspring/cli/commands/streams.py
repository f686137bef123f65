"""`mainspring streams`: list, show, land in the foreground, see dead letters, seek."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@click.group("streams", cls=Group)
def command() -> None:
    """Streams: topics whose messages are rows of a source. The worker lands them while `mainspring up` runs."""


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List the declared streams with their lag, watermark and freshness."""
    from mainspring.operations.streams.reports import listed

    found = listed(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print("No streams are declared: see `ms.Stream`.")
            return
        rows = [
            (
                each.source, each.topic, each.format, f"{len(each.partitions)}", f"{each.lag:,}",
                "" if each.watermark is None else each.watermark[:19],
                ", ".join(f"{one.freshness_p99:.2f} s" for one in each.workers if one.freshness_p99 is not None),
                f"{each.dead_letters:,}", f"{len(each.workers)}", each.problem,
            )
            for each in found
        ]  # fmt: skip
        columns = (
            "source", "topic", "format", "partitions", "lag", "watermark", "freshness p99", "dead letters", "workers",
            "problem",
        )  # fmt: skip
        show_records(console, columns, rows, right=("partitions", "lag", "dead letters", "workers"))

    call.result(found, show)


@make("show", reads_only=True)
@click.argument("source")
def show(call: Call, *, source: str) -> None:
    """Show how far the partitions of SOURCE's stream are, and which worker reads each."""
    from mainspring.operations.streams.reports import shown

    found = shown(call.project, source)

    def show(console: Console) -> None:
        console.print(f"[bold]{found.source}[/] from topic {found.topic} ({found.format}); lag {found.lag:,}")
        console.print(f"watermark {found.watermark or 'unknown'}; {found.dead_letters:,} dead letters")
        rows = [
            (f"{p.partition}", p.position, p.end, f"{p.lag:,}", p.newest_event or "", p.worker)
            for p in found.partitions
        ]
        columns = ("partition", "position", "end", "lag", "newest event", "worker")
        show_records(console, columns, rows, right=("partition", "position", "end", "lag"))
        for each in found.workers:
            if each.freshness_p99 is not None:
                console.print(
                    f"{each.worker}: {each.messages:,} messages; event to readable {each.freshness_p50:.2f} s, "
                    f"p99 {each.freshness_p99:.2f} s"
                )
        if found.problem:
            console.print(found.problem, markup=False, style="yellow")

    call.result(found, show)


@make("letters", reads_only=True)
@click.argument("source")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def letters(call: Call, *, source: str, limit: int) -> None:
    """List messages of SOURCE's stream that are no rows, newest first, with the reason."""
    from mainspring.operations.streams import reports

    found = reports.letters(call.project, source, limit)

    def show(console: Console) -> None:
        if not found:
            console.print("No dead letters.")
            return
        columns = ("partition", "offset", "bytes", "reason", "at")
        show_records(console, columns, [tuple(str(row[name]) for name in columns) for row in found])

    call.result(found, show)


@make("run")
@click.argument("sources", nargs=-1)
@click.option("--to-end", is_flag=True, help="End once every message is landed.")
def run(call: Call, *, sources: tuple[str, ...], to_end: bool) -> None:
    """Land the streams of SOURCES, by default of all, in the foreground.

    Workers of one catalog share the partitions: run it on as many machines as you like.
    """
    from mainspring.operations.streams.running import land_to_the_end, run_until

    names = [call.project.definitions.stream(name).name for name in sources] or sorted(call.project.definitions.streams)
    counts: dict[str, int] = {}
    if to_end:
        counts = land_to_the_end(call.project, names)
    else:
        run_until(call.project, names, threading.Event())

    def show(console: Console) -> None:
        for name, count in counts.items():
            console.print(f"[bold]{name}[/]: {count:,} messages")

    call.result(counts, show)


@make("seek")
@click.argument("source")
@click.option("--to", type=click.Choice(["first", "next"]), required=True, help="Message of the log to go on at.")
def seek(call: Call, *, source: str, to: str) -> None:
    """Make SOURCE's stream go on at the first message of the log, or at the next one.

    Use it when the log lost messages. Messages that are read again land again.
    """
    from mainspring.operations.streams import running

    offsets = {str(partition): str(offset) for partition, offset in running.seek(call.project, source, to).items()}

    def show(console: Console) -> None:
        console.print(f"{source} goes on at {', '.join(f'{p}: {offset}' for p, offset in offsets.items())}.")

    call.result(offsets, show)


for each in (list_, show, letters, run, seek):
    command.add_command(each)
