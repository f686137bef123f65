"""`mainspring data log`, `diff` and `restore`: history of the data, and how to undo it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.data.diff import ColumnDiff, TableDiff
    from mainspring.data.history import TableChange


@make("log")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
def log(call: Call, *, limit: int) -> None:
    """List dataset commits, newest first, with the tables, row counts and columns that changed."""
    from mainspring.core.time import format_instant
    from mainspring.data import history

    found = history.log(call.project.lake, call.project.snapshots, limit)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        for each in found:
            tags = "".join(f" [yellow]{tag}[/]" for tag in each.tags)
            console.print(f"[bold]{each.commit.id}[/] {format_instant(each.commit.at // 1_000_000 * 1_000_000)}{tags}")
            if each.commit.message:
                console.print(f"  {escape(each.commit.message)}")
            changes = Table.grid(padding=(0, 2))
            for change in each.changes:
                rows = "" if change.rows is None else f"of {change.rows:,}"
                changes.add_row(
                    "", change.table, f"@{change.version}", _more(change), rows, escape(", ".join(change.schema))
                )
            console.print(changes)
        if not found:
            console.print("No dataset commits yet. Each training makes one, and so does `mainspring data commit`.")

    document = {
        "commits": [
            {**dated(each.commit, "at"), "changes": [asdict(change) for change in each.changes]} for each in found
        ],
        "tags": dict(call.project.snapshots.tags()),
    }
    call.result(document, show)


def _more(change: TableChange) -> str:
    if change.rows is None or change.rows_before is None:
        return "? rows"
    return f"{change.rows - change.rows_before:+,} rows"


@make("diff")
@click.argument("before")
@click.argument("after", default="now")
@click.option("--table", help="Only this table.")
def diff(call: Call, *, before: str, after: str, table: str | None) -> None:
    """Show how the data differs between BEFORE and AFTER: commits, tags, or `now`.

    Shows added and removed rows, changed columns, and columns whose distribution shifted: by the Kolmogorov-Smirnov
    test and a test of the mean, or a test of the category shares, where the effect is also large enough.
    """
    from mainspring.operations.data.versions import diff as differences

    with call.progress() as progress:
        found = differences(
            call.project,
            before,
            after,
            table=table,
            progress=lambda name, done, total: progress.update("tables", done, total, name),
        )

    def show(console: Console) -> None:
        for each in found:
            _show_table(console, each)
        if not found:
            console.print(f"{before} and {after} refer to the same data.")

    call.result({"before": before, "after": after, "tables": [asdict(each) for each in found]}, show)


def _show_table(console: Console, each: TableDiff) -> None:
    from rich.table import Table

    def version(number: int | None) -> str:
        return "none" if number is None else f"@{number}"

    console.print(
        f"[bold]{each.table}[/] {version(each.before)} -> {version(each.after)}: {each.rows_before:,} -> "
        f"{each.rows:,} rows, [green]{each.added:,} added[/], [red]{each.removed:,} removed[/]"
    )
    for line in each.schema:
        console.print(f"    {line}", style="yellow", markup=False)
    differing = [column for column in each.columns if column.differs]
    same = len(each.columns) - len(differing)
    if differing:
        columns = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        columns.add_column("    column", max_width=28)
        for name in ("nulls", "mean, or largest shares", "distance", "q"):
            columns.add_column(name, justify="left" if "," in name else "right")
        for column in differing:
            nulls = f"{column.null_share_before:.1%} -> {column.null_share:.1%}"
            columns.add_row(
                f"    {column.column}", nulls, _values(column), f"{column.distance:.3f}", f"{column.q_value:.2g}"
            )
        console.print(columns)
    if same:
        console.print(f"    {same} columns have not shifted." if differing else "    No column has shifted.")


def _values(column: ColumnDiff) -> str:
    from rich.markup import escape

    if column.mean is not None and column.mean_before is not None:
        shift = "" if column.shift_sd is None else f" ({column.shift_sd:+.2f} sd)"
        return f"{column.mean_before:.4g} -> {column.mean:.4g}{shift}"
    return escape(", ".join(f"{name} {was:.1%} -> {now:.1%}" for name, was, now in column.shares[:2]))


@make("restore")
@click.argument("name")
@click.option("--table", "source", help="Only the table of this source, with its quarantine.")
def restore(call: Call, *, name: str, source: str | None) -> None:
    """Restore every source's table to NAME, a commit or a tag.

    Writes new versions, so nothing is lost: the command prints the commit of the previous state, to undo the restore.
    Batches that were ingested after NAME can be ingested again. Online features follow. Run an interrupted restore
    again to complete it.
    """
    from mainspring.operations.data.versions import restore as run
    from mainspring.operations.materialize import materialise

    with call.progress() as progress:
        report = run(
            call.project,
            name,
            source=source,
            progress=lambda done, total: progress.update("tables", done, total),
        )
        progress.finish("tables", f"{len(report.tables)} tables")
        changed = {each.table for each in report.tables if each.version is not None}
        views = [
            view
            for view in call.project.definitions.views.values()
            if view.source.name in changed and call.project.materialiser.position(view) is not None
        ]
        materialise(
            call.project, views, progress=lambda view, done, total, *_: progress.update(view, done, total, "entities")
        )
        for view in views:
            progress.finish(view.name)

    def show(console: Console) -> None:
        for each in report.tables:
            if each.version is None:
                console.print(f"[bold]{each.table}[/] is already in this state: {each.rows:,} rows.")
            else:
                was = "empty (it did not exist then)" if each.target is None else f"as version {each.target}"
                console.print(
                    f"[bold]{each.table}[/] version {each.version} is {was}:"
                    f" {each.rows_before:,} -> {each.rows:,} rows."
                )
        if report.left:
            console.print(f"Not restored, because ingestion does not write them: {', '.join(report.left)}.")
        console.print(f"Dataset commit [bold]{report.commit}[/].")
        if report.before not in (None, report.commit):
            console.print(f"Undo with `mainspring data restore {report.before}`.")

    call.result(asdict(report), show)
