"""`mainspring promote`: deploy a version if it passes its gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("promote")
@click.argument("model")
@click.argument("version", required=False)
@click.option("--reason", default="", help="Reason, for the promotion history.")
def command(call: Call, *, model: str, version: str | None, reason: str) -> int:
    """Promote VERSION (by default the newest) to MODEL@champion if it passes the model's gates; else exit with 3."""
    from mainspring.operations.promote import promote

    promotion = promote(call.project, model, version, reason=reason)

    def show(console: Console) -> None:
        for result in promotion.results:
            console.print(f"  {'[green]✓[/]' if result.passed else '[red]✗[/]'} {result}")
        if promotion.promoted and promotion.previous == promotion.version:
            console.print(f"[bold green]{promotion.model} version {promotion.version} is champion[/] already.")
        elif promotion.promoted:
            before = f", instead of version {promotion.previous}" if promotion.previous else ""
            console.print(f"[bold green]{promotion.model} version {promotion.version} is champion[/]{before}.")
        else:
            stays = f"version {promotion.previous} stays champion" if promotion.previous else "there is no champion yet"
            console.print(f"[bold red]{promotion.model} version {promotion.version} was not promoted[/]; {stays}.")

    call.result(promotion, show)
    return exits.OK if promotion.promoted else exits.GATE
