"""`mainspring bench`: measure the capacity of an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.serving.model import Baseline

_WIDTH = 32


@make("bench")
@click.argument("endpoint")
@click.option(
    "--by",
    type=click.Choice(["keys", "features"]),
    help="Content of a request: entity keys, or all feature values; by default keys if the model has entities.",
)
@click.option("--rows", default=1, show_default=True, help="Rows a request.")
@click.option("--connections", default=64, show_default=True, help="Maximum number of concurrent requests.")
@click.option("--seconds", default=3.0, show_default=True, help="Duration of each load, in seconds.")
def command(call: Call, *, endpoint: str, by: str | None, rows: int, connections: int, seconds: float) -> None:
    """Find the highest load at which ENDPOINT meets its deadline, and store it as the endpoint's baseline.

    Starts a separate gateway, whose predictions are not logged. Takes about a minute. A load meets the deadline if 99%
    of the requests that were due are answered within it.
    """
    from msgspec import to_builtins

    from mainspring.operations.bench.load import How, bench

    with call.progress() as progress:
        found = bench(call.project, endpoint, How(by, rows, connections, seconds), progress.say)
    call.result(dated(to_builtins(found), "measured_at"), lambda console: _show(console, found))


def _show(console: Console, found: Baseline) -> None:
    from rich import box
    from rich.table import Table

    per_request = "" if found.rows == 1 else f" of {found.rows} rows"
    limit = found.deadline_us / 1000
    if found.capacity is None:
        console.print(f"No tested load met the deadline of {limit:g} ms.", style="bold red")
    else:
        console.print(
            f"[bold]{found.capacity:,.0f}[/] requests/s{per_request} within {limit:g} ms, by {found.asked_by}"
        )
    console.print(
        f"unloaded: p50 {found.alone_p50_us / 1000:.2f} ms, p99 {found.alone_p99_us / 1000:.2f} ms", style="dim"
    )
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("offered/s", "answered/s", "in time", "refused", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_column(f"p99 against the deadline of {limit:g} ms")
    for each in found.points:
        p50, p99 = (f"{value / 1000:.2f}" if value is not None else "" for value in (each.p50_us, each.p99_us))
        style = "" if each.met else "red"
        table.add_row(
            f"{each.offered:,.0f}", f"{each.answered:,.0f}", f"{each.in_time:.1%}", f"{each.refused:.1%}", p50, p99,
            _bar(each.p99_us, found.deadline_us), style=style,
        )  # fmt: skip
    console.print(table)
    if grown := [each for each in found.points if each.grew]:
        least = min(each.offered for each in grown)
        console.print(
            f"from {least:,.0f} requests/s on the queue grew: a longer load would have been late", style="dim"
        )
    if found.stages_us:
        stages = ", ".join(f"{stage} {mean:,.0f} µs" for stage, mean in found.stages_us.items())
        batches = "" if found.batch_rows is None else f"; {found.batch_rows:.1f} rows a batch"
        console.print(f"at the highest load within the deadline: {stages}{batches}", style="dim")
    console.print(found.machine, style="dim")


def _bar(value: float | None, limit: float) -> str:
    """Return a bar whose full width is the limit; a value beyond it ends with an arrow."""
    if value is None:
        return ""
    share = value / limit
    return "█" * _WIDTH + "▶" if share > 1 else "█" * max(1, round(share * _WIDTH))
