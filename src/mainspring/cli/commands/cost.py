"""`mainspring cost`: what the project used of its machines, and what that cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import figure, in_column, show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.cost.reporting import CostReport

_BY = (
    "kind", "endpoint", "run", "step", "view", "batch", "job", "table", "language-model", "version", "model", "key",
    "team", "measure", "day",
)  # fmt: skip
_SHOWN = 40


@click.group("cost", cls=Group)
def command() -> None:
    """Use of machines by the project's work, and its cost."""


@make("show", reads_only=True)
@click.option("--by", type=click.Choice(_BY), default="kind", show_default=True, help="How costs are told apart.")
@click.option("--since", default="30d", show_default=True, help="Age of the first day that counts.")
@click.option(
    "--spread", "spread", multiple=True, type=click.Choice(["platform", "idle"]),
    help="Divide the cost of Mainspring itself, or of idle, among direct costs; repeatable.",
)  # fmt: skip
def show_(call: Call, *, by: str, since: str, spread: tuple[str, ...]) -> None:
    """Show where the money goes, the dearest first; days, which are of UTC, the newest first."""
    from mainspring.core.time import parse_duration
    from mainspring.operations.cost.reporting import report

    found = report(call.project, by, since=call.project.wall.now() - parse_duration(since), spread_out=spread)
    call.result(found, lambda console: _show(console, found))


@make("export", reads_only=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--since", default="30d", show_default=True, help="Age of the first day that counts.")
def export_(call: Call, *, file: Path, since: str) -> None:
    """Write costs as FOCUS 1.2, a table of the FinOps Foundation, to a Parquet FILE."""
    from mainspring.core.time import parse_duration
    from mainspring.operations.cost.focus import export

    found = export(call.project, file, since=call.project.wall.now() - parse_duration(since))

    def show(console: Console) -> None:
        told = f"{found.rows:,} rows, {figure(found.cost, 6)} {found.currency} from {found.since} on, in {found.file}"
        console.print(told, markup=False)

    call.result(found, show)


def _show(console: Console, found: CostReport) -> None:
    if not found.lines:
        console.print("Nothing was metered yet: the worker of `mainspring up` meters this machine.")
        return
    shown = [*found.lines[:_SHOWN], found.total]
    columns = {
        found.by: [each.name for each in shown],
        "cost": in_column([each.cost for each in shown]),
        "share": ["" if each.share is None else f"{each.share:.1%}" for each in shown],
        "core h": in_column([each.cpu_hours for each in shown]),
        "GiB h": in_column([each.memory_gib_hours for each in shown]),
        "GPU h": in_column([each.gpu_hours or None for each in shown]),
        "predictions": [f"{each.rows:,}" if each.rows else "" for each in shown],
        "per 1,000": ["" if each.per_thousand is None else figure(each.per_thousand) for each in shown],
    }
    if not found.total.gpu_hours:
        del columns["GPU h"]
    names = list(columns)
    show_records(console, names, list(zip(*columns.values(), strict=True)), right=names[1:])
    if len(found.lines) > _SHOWN:
        console.print(f"{len(found.lines) - _SHOWN} more lines: --json has them.", style="dim")
    priced = f"{found.currency}, by: {found.source}, " if found.currency else ""
    console.print(f"{priced}since {found.since[:10]}", style="dim", markup=False)
    if found.unpriced:
        console.print(f"Without a price: {', '.join(found.unpriced)}; see `mainspring prices show`.", markup=False)


command.add_command(show_)
command.add_command(export_)
