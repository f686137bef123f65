"""`mainspring predictions`: logged predictions by conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.predictions import Listing


@click.group("predictions", cls=Group)
def command() -> None:
    """Logged predictions: list them by endpoint, key, score, label, version, status and time."""


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
    from mainspring.operations.predictions import Conditions, document, list_predictions

    found = list_predictions(call.project, Conditions(**conditions), limit=limit, before=before, labels=labels)
    rows = [dated(document(each, labels=found.labels), "at") for each in found.rows]
    result = dated({"predictions": rows, "next": found.next or None, "searched": found.searched}, "searched")
    call.result(result, lambda console: _show(console, found))


def _show(console: Console, found: Listing) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mainspring.core.time import format_instant
    from mainspring.operations.predictions import table

    if found.rows:
        head, rows = table(found)
        shown = Table(box=None, header_style="bold")
        for name in head:
            shown.add_column(name, overflow="fold")
        for row in rows:
            shown.add_row(*("–" if value is None else escape(_text(value)) for value in row))
        console.print(shown)
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


command.add_command(list_)
