"""`mainspring streams`: streams of sources and stream endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.streams.reports import StreamReport

_STYLES = {"running": "green", "behind": "yellow", "failing": "red", "stopped": "yellow"}


@click.group("streams", cls=Group, default="list")
def command() -> None:
    """Streams: topics whose messages are rows of a source, or get predictions from a stream endpoint.

    A stream has the name of its source or endpoint. `mainspring up` runs them all.
    """


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List the streams with their state, lag, watermark and freshness.

    A state is `failing` with a problem, `stopped` if no process reads the stream, `behind` if messages wait for longer
    than its `max_lag` or events for longer than its `freshness`, else `running`.
    """
    from mainspring.operations.streams.reports import listed

    found = listed(call.project)

    def show(console: Console) -> None:
        from rich.text import Text

        if not found:
            console.print("No streams are declared: see `ms.Stream` and `ms.StreamEndpoint`.")
            return
        rows = [
            (
                each.stream, each.kind, each.topic, Text(each.state, _STYLES[each.state]), f"{len(each.partitions)}",
                _count(each.lag), _seconds(each.lag_s), _at(each.watermark), _seconds(each.freshness_p99),
                f"{each.rate:,.1f}", f"{each.dead_letters:,}", each.problem,
            )
            for each in found
        ]  # fmt: skip
        columns = (
            "stream", "kind", "topic", "state", "partitions", "lag", "waiting for", "watermark", "freshness p99",
            "a second", "dead letters", "problem",
        )  # fmt: skip
        right = ("partitions", "lag", "waiting for", "freshness p99", "a second", "dead letters")
        show_records(console, columns, rows, right=right)

    call.result([_document(each) for each in found], show)


@make("show", reads_only=True)
@click.argument("stream")
def show(call: Call, *, stream: str) -> None:
    """Show how far the partitions of STREAM are, and which worker reads each."""
    from mainspring.operations.streams.reports import shown

    found = shown(call.project, stream)

    def show(console: Console) -> None:
        style = _STYLES[found.state]
        console.print(
            f"[bold]{found.stream}[/], {found.kind}, of topic {found.topic} ({found.format}): [{style}]{found.state}[/]"
        )
        console.print(
            f"lag {_count(found.lag)}, waiting for {_seconds(found.lag_s)} of at most {found.max_lag_s:,.0f} s"
        )
        console.print(f"watermark {_at(found.watermark)}; {found.dead_letters:,} dead letters")
        rows = [
            (
                f"{p.partition}", p.position, p.end or "–", _count(p.lag), _seconds(p.lag_s), _at(p.newest_event),
                _seconds(p.freshness_p99), p.worker,
            )
            for p in found.partitions
        ]  # fmt: skip
        right = ("partition", "position", "end", "lag", "waiting for", "freshness p99")
        columns = ("partition", "position", "end", "lag", "waiting for", "newest event", "freshness p99", "worker")
        show_records(console, columns, rows, right=right)
        for each in found.workers:
            console.print(
                f"{each.worker}: {each.messages:,} messages, {each.rate:,.1f} a second; freshness "
                f"{_seconds(each.freshness_p50)}, p99 {_seconds(each.freshness_p99)}"
            )
        if found.problem:
            console.print(found.problem, markup=False, style="yellow")

    call.result(_document(found), show)


def _document(found: StreamReport) -> dict[str, Any]:
    import msgspec

    made = dated(msgspec.structs.asdict(found), "watermark")
    made["partitions"] = [dated(msgspec.structs.asdict(each), "newest_event") for each in found.partitions]
    made["workers"] = [dated(msgspec.structs.asdict(each), "through") for each in found.workers]
    return made


def _count(lag: int | None) -> str:
    return "–" if lag is None else f"{lag:,}"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:,.2f} s"


def _at(instant: int | None) -> str:
    from mainspring.core.time import format_instant

    return "–" if instant is None else format_instant(instant // 1_000_000 * 1_000_000)


@make("dead-letters", reads_only=True)
@click.argument("stream")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def dead_letters(call: Call, *, stream: str, limit: int) -> None:
    """List messages of STREAM that could not be processed, newest first, with the reason."""
    from mainspring.operations.streams import reports

    rows = [dated(each, "at") for each in reports.dead_letters(call.project, stream, limit)]

    def show(console: Console) -> None:
        if not rows:
            console.print("No dead letters.")
            return
        columns = ("partition", "offset", "bytes", "reason", "at")
        show_records(console, columns, [tuple(str(row[name]) for name in columns) for row in rows])

    call.result(rows, show)


@make("run")
@click.argument("streams", nargs=-1)
@click.option("--to-end", is_flag=True, help="End once every message is processed and delivered.")
def run(call: Call, *, streams: tuple[str, ...], to_end: bool) -> None:
    """Process STREAMS in the foreground, by default all, until Ctrl-C.

    Several stream endpoints run in a process each; one that fails stops no other stream, and is started again.
    Workers of one catalog share the partitions of a stream: run it on as many machines as you like.
    """
    import signal
    import threading

    from mainspring.operations.streams.reports import names
    from mainspring.processes.streams import run_streams, run_streams_to_the_end

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    process = run_streams_to_the_end if to_end else run_streams
    counts = process(call.project, streams or names(call.project), stop)

    def show(console: Console) -> None:
        for name, count in counts.items():
            console.print(f"[bold]{name}[/]: {count:,} messages")

    call.result(counts, show)


@make("send")
@click.argument("endpoint")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
def send(call: Call, *, endpoint: str, file: str) -> None:
    """Send the lines of FILE, JSON objects, to the topic of the stream endpoint ENDPOINT, with its key.

    FILE may be -. Topics of the endpoint that are not there are created, with one partition.
    """
    from mainspring.operations.stream_endpoints.sending import send

    with click.open_file(file, "rb") as lines:
        count = send(call.project, endpoint, lines)
    call.result(
        {"endpoint": endpoint, "messages": count}, lambda console: console.print(f"{count:,} messages were sent.")
    )


@make("seek")
@click.argument("source")
@click.option("--to", type=click.Choice(["first", "next"]), required=True, help="Message of the log to go on at.")
def seek(call: Call, *, source: str, to: str) -> None:
    """Make the stream of SOURCE go on at the first message of the log, or at the next one.

    Use it when the log lost messages. Messages that are read again land again.
    """
    from mainspring.operations.streams import running

    offsets = {str(partition): str(offset) for partition, offset in running.seek(call.project, source, to).items()}

    def show(console: Console) -> None:
        console.print(f"{source} goes on at {', '.join(f'{p}: {offset}' for p, offset in offsets.items())}.")

    call.result(offsets, show)


@make("replay", reads_only=True)
@click.argument("endpoint")
@click.option("--since", metavar="PARTITION:OFFSET", help="Begin there; by default with the first recorded batch.")
@click.option("--to", type=click.Path(dir_okay=False), help="Write the outputs to this file, a line of JSON each.")
def replay(call: Call, *, endpoint: str, since: str | None, to: str | None) -> int:
    """Process the messages of the stream endpoint ENDPOINT again, and compare the outputs bit for bit.

    Features are those that were read the first time. Nothing is sent. Exits with 3 if an output differs.
    """
    from pathlib import Path

    from mainspring.operations.stream_endpoints.replaying import replay

    lines: list[bytes] = []
    found = replay(call.project, endpoint, since, lambda output: lines.append(output.document()) if to else None)
    if to:
        Path(to).write_bytes(b"".join(line + b"\n" for line in lines))

    def show(console: Console) -> None:
        for each in found:
            console.print(
                f"Partition {each.partition}, offsets {each.since} to {each.until}: {each.messages:,} messages, "
                f"{each.outputs:,} outputs, "
                + (f"{len(each.different)} batches differ." if each.different else "all as before.")
            )
            for first, until, why in each.different[:10]:
                console.print(f"  differs: offsets {first} to {until} {why}", markup=False)

    call.result(found, show)
    return exits.GATE if any(each.different for each in found) else exits.OK


for each in (list_, show, dead_letters, run, send, seek, replay):
    command.add_command(each)
