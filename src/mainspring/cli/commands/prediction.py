"""`mainspring prediction`: show one logged prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.ledger.model import Prediction
    from mainspring.project import Project


@make("prediction", reads_only=True)
@click.argument("prediction_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show values that identify a person too; the audit log records the actor.")
def command(call: Call, *, prediction_id: str, reveal: bool) -> None:
    """Show the prediction ID: its keys, features, outputs, model version and caller."""
    from msgspec import json

    from mainspring.core.time import format_instant
    from mainspring.operations import prediction

    project = call.project
    found = prediction.reveal(project, prediction_id) if reveal else project.predictions.find(prediction_id)
    document = _document(project, found)
    hidden = "encrypted; show it with --reveal" if found.withheld == "encrypted" else "not logged"

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row("made", f"{format_instant(found.at)} in {found.latency_us / 1000:.1f} ms for {found.principal}")
        table.add_row("by", f"{found.model} {found.version} behind {found.endpoint}")
        if found.rollout:
            table.add_row("assigned", f"by rollout {found.rollout}, with probability {found.weight:g}")
        if found.share < 1:
            table.add_row("stands for", f"{1 / found.share:.4g} predictions")
        for kind in ("keys", "request", "features", "outputs"):
            for name, value in document[kind].items():
                text = value if isinstance(value, str) else json.encode(value).decode()
                table.add_row(f"{kind}: {escape(name)}", escape(text))
        for name in found.personal:
            table.add_row(f"personal: {escape(name)}", hidden)
        console.print(table)

    call.result(document, show)


def _document(project: Project, found: Prediction) -> dict[str, Any]:
    """Return the prediction with its instants as texts, including those of the request if the model is declared."""
    document = dated({name: getattr(found, name) for name in found.__struct_fields__ if name != "sealed"}, "at")
    moments = _moments(project, found.model)
    return {
        **document,
        "keys": dated(found.keys, *moments),
        "request": dated(found.request, *moments),
        "withheld": found.withheld,
    }


def _moments(project: Project, model: str) -> list[str]:
    from mainspring.core.errors import MainspringError
    from mainspring.core.schema import DType

    try:
        definition = project.definitions.models.get(model)
    except MainspringError:  # a prediction can be shown while the definitions are broken
        return []
    columns = definition.observations.source.columns if definition else {}
    return [name for name, dtype in columns.items() if dtype is DType.Timestamp]
