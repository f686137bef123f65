"""`mainspring promote`: deploy a version if it passes its gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mainspring.delivery.model import GateResult


@make("promote")
@click.argument("model")
@click.argument("version", required=False)
@click.option("--reason", default="", help="Reason, for the promotion history.")
def command(call: Call, *, model: str, version: str | None, reason: str) -> int:
    """Promote VERSION (by default the newest) to MODEL@champion if it passes the model's gates; else exit with 3."""
    return promoted(call, model, version, reason)


def promoted(call: Call, model: str, version: str | None, reason: str) -> int:
    """Promote a version, show its gates, and return the exit code."""
    from mainspring.operations.promote import promote

    promotion = promote(call.project, model, version, reason=reason)

    def show(console: Console) -> None:
        if promotion.results:
            show_gates(console, promotion.results)
        if promotion.promoted and promotion.previous == promotion.version:
            console.print(f"[bold green]{promotion.model} version {promotion.version} is champion[/] already.")
        elif promotion.promoted:
            if not promotion.results:
                declared = model in {**call.project.definitions.models, **call.project.definitions.answers}
                why = "declares no gate that this version could be judged by" if declared else "is not declared here"
                console.print(f"[yellow]No gate was judged[/]: {promotion.model} {why}.")
            before = f", instead of version {promotion.previous}" if promotion.previous else ""
            console.print(f"[bold green]{promotion.model} version {promotion.version} is champion[/]{before}.")
        else:
            stays = f"version {promotion.previous} stays champion" if promotion.previous else "there is no champion yet"
            console.print(f"[bold red]{promotion.model} version {promotion.version} was not promoted[/]; {stays}.")

    call.result(promotion, show)
    return exits.OK if promotion.promoted else exits.GATE


def show_gates(console: Console, results: Sequence[GateResult]) -> None:
    """Print a row for each result, then the notes in full."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "gate", "against", "value", "needed", "missing"):
        table.add_column(column, overflow="fold")
    for result in results:
        mark = "[green]✓[/]" if result.passed else "[yellow]~[/]" if result.waived else "[red]✗[/]"
        where = f"{result.against}, {result.slice}" if result.slice else result.against
        value = "" if result.value is None else _number(result.value)
        if result.interval is not None:
            value += f" ({' to '.join(map(_number, result.interval))})"
        needed = "" if result.needed is None else _number(result.needed)
        missing = f"{result.short_by:.4g}" if result.short_by else ""
        table.add_row(mark, escape(result.gate), escape(where), value, needed, missing)
    console.print(table, highlight=False)
    for result in results:
        for note in filter(None, (result.note, result.waived and f"waived by {result.waived}")):
            console.print(f"  {result.gate}: {note}", markup=False, highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    """Return four decimals, or for a large number its digits before the point."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
