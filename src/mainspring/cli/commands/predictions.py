"""`mainspring predictions`: logged predictions by conditions, and one in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.ledger.model import Prediction
    from mainspring.operations.predictions import Listing
    from mainspring.project import Project


@click.group("predictions", cls=Group)
def command() -> None:
    """Logged predictions: list them by endpoint, key, score, label, version, status and time; show one."""


@make("list", reads_only=True)
@click.option("--endpoint", default="", help="Of this endpoint.")
@click.option("--version", default="", help="By this version.")
@click.option("--key", default="", help="NAME=VALUE of an entity key, or the VALUE of any; several by commas.")
@click.option("--score-from", default="", help="With at least this score.")
@click.option("--score-to", default="", help="With at most this score.")
@click.option("--label", default="", help="With this label; or `known`, or `unknown`.")
@click.option("--status", default="", help="With a stored feature of this status, such as MISSING.")
@click.option("--since", default="", help="From this instant or day on (ISO 8601).")
@click.option("--until", default="", help="Before this instant, or to the end of this day (ISO 8601).")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--before", default="", help="Continue at `next` of an earlier list.")
@click.option("--labels", is_flag=True, help="Join labels too.")
def list_(call: Call, *, limit: int, before: str, labels: bool, **conditions: str) -> None:
    """List logged predictions, newest first.

    A list ends early if very many predictions do not match: continue it with --before.
    """
    from mainspring.operations.predictions import Conditions, list_predictions, listed_document

    found = list_predictions(call.project, Conditions(**conditions), limit=limit, before=before, labels=labels)
    rows = [dated(listed_document(each), "at") for each in found.rows]
    result = dated({"predictions": rows, "next": found.next or None, "searched": found.searched}, "searched")
    call.result(result, lambda console: _show(console, found))


def _show(console: Console, found: Listing) -> None:

    from mainspring.core.time import format_instant
    from mainspring.operations.predictions import table

    if found.rows:
        head, rows = table(found)
        cells = [["–" if value is None else _text(value) for value in row] for row in rows]
        show_records(console, head, cells)
    else:
        console.print("No prediction matches.")
    if found.searched is not None:
        console.print(f"Searched down to {format_instant(found.searched)}.", style="dim")
    if found.next:
        console.print(f"More: --before {found.next}", style="dim")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@make("show", reads_only=True)
@click.argument("prediction_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show values that identify a person too; the audit log records the actor.")
def show_(call: Call, *, prediction_id: str, reveal: bool) -> None:
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


command.add_command(list_)
command.add_command(show_)
