"""`mainspring data`: dataset commits and tags, profiles of tables, and the quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.data_history import diff, log, restore
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.data.profile import ColumnProfile, TableProfile

_KINDS = {"timestamp[us, tz=UTC]": "timestamp", "float": "float32", "double": "float64", "bool": "boolean"}
_WIDEST = 24  # characters of the sparkline
_BARS = "▁▂▃▄▅▆▇█"


@click.group("data", cls=Group)
def command() -> None:
    """Versions of the data: commits, tags, diff and restore; a table's profile; the quarantine."""


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
    if column.histogram is not None and len(column.histogram.counts) > 2:
        return sparkline(column.histogram.counts)
    return ", ".join(f"{_text(value, column)} {count:,}" for value, count in column.top[:3])


def sparkline(counts: Sequence[int]) -> str:
    """Return one character per count, as high as its share of the largest; a blank for 0."""
    most = max(counts, default=0)
    return "".join(_BARS[-(-count * len(_BARS) // most) - 1] if count else " " for count in counts)


@make("commit")
@click.option("--message", "-m", default="", help="Message of the commit.")
def commit(call: Call, *, message: str) -> None:
    """Record the current version of every table in one dataset commit."""
    from mainspring.operations.data.versions import commit_now

    made = commit_now(call.project, message)
    versions = ", ".join(f"{table} version {version}" for table, version in sorted(made.versions.items()))
    call.result(dated(made, "at"), lambda console: console.print(f"Dataset commit [bold]{made.id}[/]: {versions}"))


@make("tag")
@click.argument("name")
@click.argument("commit_id")
def tag(call: Call, *, name: str, commit_id: str) -> None:
    """Tag a dataset commit as NAME; vacuum keeps tagged data.

    COMMIT_ID is a commit's id or a prefix of it, another tag, or `now`, which makes a commit first.
    """
    from mainspring.operations.data.versions import tag as put

    found = put(call.project, name, commit_id)
    call.result({"tag": name, "commit": found}, lambda console: console.print(f"{name} names {found}."))


@make("untag")
@click.argument("name")
def untag(call: Call, *, name: str) -> None:
    """Delete a tag."""
    from mainspring.operations.data.versions import untag as remove

    remove(call.project, name)
    call.result({"untagged": name}, lambda console: console.print(f"{name} is forgotten."))


@make("vacuum")
@click.option("--dry-run", is_flag=True, help="Only count.")
def vacuum(call: Call, *, dry_run: bool) -> None:
    """Delete files that neither a tag, nor the newest commit, nor the newest version needs.

    Tiles of deleted rows, and of views that are no longer in use, are deleted first.
    """
    from mainspring.operations.data.versions import vacuum as run
    from mainspring.operations.features.live_views import ViewsInUse, tidy

    if not dry_run:
        tidy(call.project, ViewsInUse(call.project).by_slot())
    deleted = run(call.project, dry_run=dry_run)
    verb = "would be deleted" if dry_run else "deleted"
    call.result(
        {"dry_run": dry_run, "files": deleted},
        lambda console: console.print(f"{sum(deleted.values())} files {verb}: {deleted}"),
    )


@make("quarantine")
@click.argument("source")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--reveal", is_flag=True, help="Show the values of `pii` columns too; the audit log records the actor.")
def quarantine(call: Call, *, source: str, limit: int, reveal: bool) -> None:
    """Show the rows of SOURCE that failed a check, with the reason."""
    from msgspec import json

    from mainspring.operations.ingest import quarantined

    rows = quarantined(call.project, source, limit, reveal=reveal)

    def show(console: Console) -> None:
        for row in rows:
            console.print(f"{row['_reason']}", style="yellow", markup=False)
            own = {name: value for name, value in row.items() if not name.startswith("_")}
            console.print(f"    {json.encode(own).decode()}", markup=False)
        if not rows:
            console.print(f"No row of {source} is in the quarantine.")

    call.result(rows, show)


@make("publish")
@click.argument("source")
@click.option("--epsilon", type=float, required=True, help="What the numbers may cost of the source's budget together.")
@click.option("--count", is_flag=True, help="The number of rows.")
@click.option("--sum", "sums", multiple=True, metavar="COLUMN:LOW:HIGH", help="A sum of values within bounds.")
@click.option("--mean", "means", multiple=True, metavar="COLUMN:LOW:HIGH", help="A mean of values within bounds.")
@click.option(
    "--histogram", "histograms", multiple=True, metavar="COLUMN:VALUE,...", help="Rows by value, or by edges of bins."
)
def publish(
    call: Call,
    *,
    source: str,
    epsilon: float,
    count: bool,
    sums: tuple[str, ...],
    means: tuple[str, ...],
    histograms: tuple[str, ...],
) -> None:
    """Print aggregates of SOURCE that may be published, with differential privacy for its subjects.

    Bounds and values must not come from the data: from what is known of it without looking.
    """
    from mainspring.operations.publishing import Asked, asked_for, publish

    asked = [Asked("count")] if count else []
    asked += [asked_for("sum", text) for text in sums] + [asked_for("mean", text) for text in means]
    asked += [asked_for("histogram", text) for text in histograms]
    made = publish(call.project, source, asked, epsilon)

    def show(console: Console) -> None:
        rows = [
            (f"{each.aggregate} {each.column}".rstrip(), each.bucket, f"{each.value:,.6g}",
             "" if each.margin is None else f"± {each.margin:,.3g}")
            for each in made.published
        ]  # fmt: skip
        show_records(console, ("aggregate", "of", "about", "in 95 of 100 cases"), rows)
        left = made.budget - made.spent
        console.print(f"Spent {made.epsilon:g}; of the budget of {made.budget:g}, {left:g} is left.")

    call.result(made, show)


@make("batches")
@click.argument("source")
@click.argument("batch", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
def batches(call: Call, *, source: str, batch: str | None, limit: int) -> None:
    """List the batches of SOURCE, newest first; or what descends from BATCH: commits, features, models, endpoints."""
    from mainspring.core.time import format_instant
    from mainspring.operations.data.batches import batches as listed
    from mainspring.operations.data.batches import descent

    if batch is not None:
        found = descent(call.project, source, batch)

        def show(console: Console) -> None:
            console.print(f"{found.rows:,} rows of batch {batch} are in {source}.", markup=False)
            for name in ("commits", "sources", "features", "models", "unknown", "endpoints"):
                if names := getattr(found, name):
                    console.print(f"  {name:<10} {', '.join(names)}", markup=False)
            if found.unreadable:
                console.print(f"{found.unreadable} commits can no longer be read.")
            if found.models:
                console.print(f"Next: mainspring train MODEL --without {source}@{batch}", markup=False)

        call.result(asdict(found), show)
        return
    made = listed(call.project, source, limit)

    def table(console: Console) -> None:
        rows = [
            (each.id, f"{each.rows:,}", format_instant(each.first), format_instant(each.last), each.origin)
            for each in made
        ]
        of_warehouse = any(each.origin for each in made)
        names = ("batch", "rows", "first event", "last event", "from")[: None if of_warehouse else 4]
        show_records(console, names, [row[: len(names)] for row in rows])

    shown = [
        {**asdict(each), "first": format_instant(each.first), "last": format_instant(each.last)} for each in made
    ]  # fmt: skip
    call.result(shown, table)


@make("sign")
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key-file", type=click.Path(path_type=Path), help="The private key, made if missing; by default the project's."
)
def sign(call: Call, *, source: str, file: Path, key_file: Path | None) -> None:
    """Sign FILE for SOURCE, which takes it if its `signed_by` has the public key. The signature is FILE.sig."""
    from mainspring.operations.ingest import sign as sign_for

    signature, key = sign_for(call.project, source, file, key_file)
    call.result(
        {"signature": str(signature), "key": key},
        lambda console: console.print(f"{signature} by the public key {key}", soft_wrap=True),
    )


for _command in (batches, commit, log, diff, restore, tag, untag, vacuum, profile, quarantine, publish, sign):
    command.add_command(_command)
