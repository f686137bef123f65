"""`mainspring topics`: the project's log of messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console


@click.group("topics", cls=Group)
def command() -> None:
    """Look into the log of messages, whose place is the setting `streams`."""


@make("list")
def list_(call: Call) -> None:
    """List topics."""
    from mainspring.operations.topics import list_topics

    found = list_topics(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print("No topics yet. Next: mainspring topics create NAME")
            return
        rows = [(each.topic, str(each.partitions)) for each in found]
        show_records(console, ("topic", "partitions"), rows, right=("partitions",))

    call.result(found, show)


@make("create")
@click.argument("topic")
@click.option("--partitions", default=1, show_default=True, help="Number of partitions; a topic can get more.")
def create(call: Call, *, topic: str, partitions: int) -> None:
    """Create TOPIC, or give it more partitions."""
    from mainspring.operations.topics import create_topic

    made = create_topic(call.project, topic, partitions)
    call.result(made, lambda console: console.print(f"{made.topic}: {made.partitions} partitions", markup=False))


@make("show")
@click.argument("topic")
@click.option("--group", help="Show also the offsets that this group committed.")
def show(call: Call, *, topic: str, group: str | None) -> None:
    """Show the offsets that the partitions of TOPIC hold."""
    from mainspring.operations.topics import show_topic

    found = show_topic(call.project, topic, group)
    columns = ("partition", "first", "next", "committed")

    def told(console: Console) -> None:
        rows = [(str(each.partition), each.first, each.next, each.committed) for each in found]
        show_records(console, columns, rows, right=columns)

    call.result(found, told)


@make("tail")
@click.argument("topic")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1_000), help="Number of messages.")
def tail(call: Call, *, topic: str, limit: int) -> None:
    """Print the newest messages of TOPIC."""
    from mainspring.operations.topics import tail_topic

    found = tail_topic(call.project, topic, limit)

    def told(console: Console) -> None:
        for each in found:
            head = f"{each.at} {each.partition}:{each.offset}"
            console.print(f"{head} {each.key or ''} {each.value or ''}", markup=False, soft_wrap=True)

    call.result(found, told)


@make("produce")
@click.argument("topic")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--key", help="The field of a line whose value is the key of its message.")
def produce(call: Call, *, topic: str, file: Path, key: str | None) -> None:
    """Write each line of FILE, a JSON object, to TOPIC; `-` is standard input."""
    from mainspring.operations.topics import produce_lines

    with click.open_file(str(file), "rb") as lines:
        done = produce_lines(call.project, topic, lines, key)
    call.result(done, lambda console: console.print(f"{done.messages} messages written to {topic}", markup=False))


for _each in (list_, create, show, tail, produce):
    command.add_command(_each)
