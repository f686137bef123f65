"""`mainspring data`: versions of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.data_history import diff, log, restore
from mainspring.cli.commands.data_profile import profile
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console


@click.group("data", cls=Group)
def command() -> None:
    """Versions of the data: commits, tags, diff and restore; a table's profile; the quarantine."""


@make("commit")
@click.option("--message", "-m", default="", help="Message of the commit.")
def commit(call: Call, *, message: str) -> None:
    """Record the current version of every table in one dataset commit."""
    from mainspring.data.commits import commit as make_commit

    made = make_commit(call.project.lake, call.project.snapshots, call.project.wall, message)
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
    call.project.snapshots.untag(name)
    call.result({"untagged": name}, lambda console: console.print(f"{name} is forgotten."))


@make("vacuum")
@click.option("--dry-run", is_flag=True, help="Only count.")
def vacuum(call: Call, *, dry_run: bool) -> None:
    """Delete files that neither a tag, nor the newest commit, nor the newest version needs.

    Tiles of deleted rows, and of views that are no longer in use, are deleted first.
    """
    from mainspring.data.commits import vacuum as run
    from mainspring.operations.features.live_views import ViewsInUse
    from mainspring.operations.features.tidying import tidy

    if not dry_run:
        tidy(call.project, ViewsInUse(call.project).by_slot())
    deleted = run(call.project.lake, call.project.snapshots, dry_run)
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


for _command in (commit, log, diff, restore, tag, untag, vacuum, profile, quarantine):
    command.add_command(_command)
