"""`mainspring stream`: run a stream endpoint in the foreground, and replay one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


@click.group("stream", cls=Group)
def command() -> None:
    """Stream endpoints: predictions for the messages of a topic."""


@make("run")
@click.argument("endpoint")
@click.option("--until-idle", is_flag=True, help="End once everything in the topic is processed and delivered.")
def run_(call: Call, *, endpoint: str, until_idle: bool) -> None:
    """Process the topic of the stream endpoint ENDPOINT in the foreground, until Ctrl-C.

    `mainspring up` does the same in the background.
    """
    import signal
    import threading

    from mainspring.cli.commands.endpoints import show_stream, stream_document
    from mainspring.operations.stream_endpoints.running import run
    from mainspring.operations.stream_endpoints.showing import status

    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    count = run(call.project, endpoint, stop, idle_s=1.0 if until_idle else None)
    found = status(call.project, endpoint)
    document = {"endpoint": endpoint, "messages": count, "status": stream_document(found)}

    def show(console: Console) -> None:
        console.print(f"{count:,} messages were processed.")
        show_stream(console, found)

    call.result(document, show)


@make("send")
@click.argument("endpoint")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
def send_(call: Call, *, endpoint: str, file: str) -> None:
    """Send the lines of FILE, JSON objects, to the topic of the stream endpoint ENDPOINT, with its key.

    FILE may be -. Topics of the endpoint that are not there are created, with one partition.
    """
    from mainspring.operations.stream_endpoints.sending import send

    with click.open_file(file, "rb") as lines:
        count = send(call.project, endpoint, lines)
    call.result(
        {"endpoint": endpoint, "messages": count}, lambda console: console.print(f"{count:,} messages were sent.")
    )


@make("replay", reads_only=True)
@click.argument("endpoint")
@click.option("--since", metavar="PARTITION:OFFSET", help="Begin there; by default with the first recorded batch.")
@click.option("--to", type=click.Path(dir_okay=False), help="Write the outputs to this file, a line of JSON each.")
def replay_(call: Call, *, endpoint: str, since: str | None, to: str | None) -> int:
    """Process the messages of the stream endpoint ENDPOINT again, and compare the outputs bit for bit.

    Features are those that were read the first time. Nothing is sent. Exits with 3 if an output differs.
    """
    from pathlib import Path

    from mainspring.operations.stream_endpoints.replaying import replay

    lines: list[bytes] = []
    found = replay(call.project, endpoint, since, lambda output: lines.append(output.document()) if to else None)
    if to:
        _write(Path(to), lines)

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


def _write(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


command.add_command(run_)
command.add_command(send_)
command.add_command(replay_)
