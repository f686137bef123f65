"""`mainspring data profile`: what the columns of a table hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.data.profile import ColumnProfile, TableProfile

_KINDS = {"timestamp[us, tz=UTC]": "timestamp", "float": "float32", "double": "float64", "bool": "boolean"}
_WIDEST = 24  # characters of the picture


@make("profile")
@click.argument("source")
@click.option("--at", default="now", show_default=True, help="The commit or tag to read.")
def profile(call: Call, *, source: str, at: str) -> None:
    """Show statistics of each column of SOURCE: nulls, distinct values, range, distribution, most frequent values.

    Scans the table once, in bounded memory. For columns that identify a person, only counts are shown. --json adds the
    mean, standard deviation, seven quantiles and the histogram.
    """
    from mainspring.operations.data.versions import profile as profiled

    with call.progress() as progress:
        found = profiled(
            call.project, source, at, progress=lambda share: progress.update(source, round(share * 100), 100, "%")
        )
        progress.finish(source, f"{found.rows:,} rows")

    call.result(_document(found), lambda console: _show(console, source, found))


def _document(found: TableProfile) -> dict[str, Any]:
    """Return the profile with the instants of a timestamp as texts; its `sd` is in microseconds."""
    from msgspec import to_builtins

    document: dict[str, Any] = to_builtins(found)
    document["columns"] = [_instants(each) if each["dtype"].startswith("timestamp") else each
                           for each in document["columns"]]  # fmt: skip
    return document


def _instants(column: dict[str, Any]) -> dict[str, Any]:
    from mainspring.core.time import format_instant

    made = dated(column, "low", "high")
    made["mean"] = None if column["mean"] is None else format_instant(round(column["mean"]))
    made["quantiles"] = {name: format_instant(round(at)) for name, at in column["quantiles"].items()}
    made["top"] = [(format_instant(at), count) for at, count in column["top"]]
    if column["histogram"] is not None:
        made["histogram"] = {
            **column["histogram"],
            "edges": [format_instant(round(at)) for at in column["histogram"]["edges"]],
        }
    return made


def _show(console: Console, source: str, found: TableProfile) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]{source}[/] version {found.version}: {found.rows:,} rows")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("column", max_width=22)
    table.add_column("type")
    for name in ("nulls", "distinct", "min", "median", "max"):
        table.add_column(name, justify="right")
    table.add_column("distribution, or most frequent", max_width=_WIDEST + 8, overflow="ellipsis", no_wrap=True)
    for column in found.columns:
        nulls = (column.nulls + column.nans) / found.rows if found.rows else 0.0
        table.add_row(
            column.column,
            _KINDS.get(column.dtype, column.dtype),
            f"{nulls:.1%}",
            f"{column.distinct:,}",
            *(escape(_text(value, column)) for value in (column.low, column.quantiles.get("p50"), column.high)),
            escape(_picture(column)),
        )
    console.print(table)


def _text(value: Any, column: ColumnProfile) -> str:
    from mainspring.core.time import format_instant

    if value is None:
        return "hidden" if column.pii else ""
    if column.dtype.startswith("timestamp"):
        return format_instant(int(value))[:10]
    if isinstance(value, (bool, str)):
        text = str(value)
        return text if len(text) <= 10 else f"{text[:9]}…"
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**9 else f"{value:.4g}"


def _picture(column: ColumnProfile) -> str:
    from mainspring.cli.sparks import sparkline

    if column.histogram is not None and len(column.histogram.counts) > 2:
        return sparkline(column.histogram.counts)
    return ", ".join(f"{_text(value, column)} {count:,}" for value, count in column.top[:3])
