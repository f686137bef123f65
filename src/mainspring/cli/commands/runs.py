"""`mainspring runs`: list, show, compare, rename and note training runs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.registry.searching import RunRow

_OWN_TAGS = ("mainspring.", "mlflow.")
_SHORT = 12  # characters of an id in a heading
_ERROR = 200  # characters of a failed run's error; --json prints all of it
# Terminal width that fits a run's metrics side by side, and its start to the second.
_WIDE, _TIMED = 140, 100


@click.group("runs", cls=Group, default="list")
def command() -> None:
    """Training runs: list them, show one, compare several, rename one or note on it."""


@make("list")
@click.argument("model", required=False)
@click.option(
    "--filter", "filter_", default="", help="Only runs that match, such as 'metrics.auc > 0.8 and depth = 3'."
)
@click.option("--order", default="", help="Sort order, such as 'metrics.auc desc'; by default the newest first.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def list_(call: Call, *, model: str | None, filter_: str, order: str, limit: int) -> None:
    """List the training runs of MODEL, or of all models, newest first, with the errors of failed runs."""
    from mainspring.core.time import format_instant
    from mainspring.operations.runs import HELD_OUT, find_runs
    from mainspring.registry.runs import ERROR, PURPOSE

    runs = find_runs(call.project, model, filter_=filter_, order=order, limit=limit, by_hand=True)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        if not runs:
            console.print("No run matches." if filter_ else "No runs yet. Next: mainspring train MODEL")
            return
        apart, is_narrow = console.width >= _WIDE, console.width < _TIMED
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1 if apart else 0, 0, 1))
        for column in ("run", "model", "status", "started", "held out"):
            # Ids and numbers must not be cut off; other long values continue in the next line.
            table.add_column(column, no_wrap=column in ("run", "status", "started"), overflow="fold")
        for run in runs:
            judged = {
                name.removeprefix(HELD_OUT): run.metrics[name] for name in run.metrics if name.startswith(HELD_OUT)
            }
            metrics = ("  " if apart else "\n").join(f"{name} {value:.4f}" for name, value in judged.items())
            started = format_instant(run.started_at // 1_000_000 * 1_000_000)[: 10 if is_narrow else None]
            failed = run.tags.get(ERROR, "")
            told = f"[red]{escape(textwrap.shorten(failed, _ERROR))}[/]" if failed else metrics
            if PURPOSE in run.tags and not told:
                told = f"[dim]no training: {escape(run.tags[PURPOSE])}[/]"
            table.add_row(run.id, run.model, run.status, started, told)
        console.print(table)

    call.result([_document(run) for run in runs], show)


@make("show")
@click.argument("run")
def show_(call: Call, *, run: str) -> None:
    """Show RUN, by its id or the beginning of it: times, parameters, metrics, tags, and the error if it failed."""
    from mainspring.core.time import format_duration, format_instant
    from mainspring.operations.runs import close_ended, note_of, run_of
    from mainspring.registry.runs import ERROR

    close_ended(call.project)
    found = run_of(call.project, run)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("run", found.id)
        table.add_row("name", escape(found.name) or "–")
        table.add_row("model", escape(found.model) or "–")
        table.add_row("status", found.status)
        took = "" if found.duration is None else f" in {format_duration(max(found.duration, 1))}"
        table.add_row("started", format_instant(found.started_at) + took)
        if note := note_of(found):
            table.add_row("note", escape(note))
        if ERROR in found.tags:
            table.add_row("error", f"[red]{escape(found.tags[ERROR])}[/]")
        for title, values in (("parameter", found.params), ("metric", found.metrics), ("tag", found.tags)):
            for name, value in sorted(values.items()):
                if not name.startswith(_OWN_TAGS):
                    text = value if isinstance(value, str) else f"{value:.6g}"
                    table.add_row(f"{title} {escape(name)}", escape(text))
        console.print(table)

    call.result(_document(found), show)


@make("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
def compare(call: Call, *, runs: tuple[str, ...]) -> None:
    """Compare runs, by their ids or the beginnings of them: the parameters and metrics that differ."""
    from mainspring.core.errors import Invalid
    from mainspring.operations.runs import close_ended, compared_columns, run_of
    from mainspring.registry.searching import Kind

    close_ended(call.project)
    found = list({run.id: run for run in (run_of(call.project, each) for each in runs)}.values())
    if len(found) < 2:
        raise Invalid("One run cannot be compared.", fix="name two or more: `mainspring runs list` lists them.")
    rows = [each for each in compared_columns(found) if each.differs and each.column.kind is not Kind.TAG]

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", overflow="fold")
        for each in found:
            table.add_column(each.id[:_SHORT], justify="right", overflow="fold")
        table.add_row("model", *(escape(each.model) for each in found))
        table.add_row("status", *(each.status for each in found))
        for row in rows:
            table.add_row(escape(str(row.column)), *map(_value, row.values))
        console.print(table)
        if not rows:
            console.print("Their parameters and metrics are the same.")

    differing = [{"column": str(row.column), "values": list(row.values)} for row in rows]
    call.result({"runs": [_document(each) for each in found], "differing": differing}, show)


@make("rename")
@click.argument("run")
@click.argument("name")
def rename(call: Call, *, run: str, name: str) -> None:
    """Give RUN, by its id or the beginning of it, another NAME; the audit log records the actor."""
    _describe(call, run, name=name)


@make("note")
@click.argument("run")
@click.argument("text")
def note(call: Call, *, run: str, text: str) -> None:
    """Write the note of RUN, by its id or the beginning of it; an empty TEXT removes it. The audit log records the
    actor.
    """
    _describe(call, run, note=text)


def _describe(call: Call, run: str, *, name: str | None = None, note: str | None = None) -> None:
    from mainspring.operations.models.curating import actor
    from mainspring.operations.runs import describe_run, run_of

    found = run_of(call.project, run)
    describe_run(call.project, found.id, name=name, note=note, by=actor(call.project))
    changed = run_of(call.project, found.id)
    told = f"The note of {found.id} is {'written' if note else 'removed'}."
    told = told if name is None else f"{found.id} is named {changed.name}."
    call.result(_document(changed), lambda console: console.print(told, markup=False, highlight=False))


def _value(value: str | float | None) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    return escape(value) if isinstance(value, str) else f"{value:.6g}"


def _document(run: RunRow) -> dict[str, Any]:
    from mainspring.registry.runs import ERROR

    return {**dated(run, "started_at", "ended_at"), "error": run.tags.get(ERROR)}


command.add_command(list_)
command.add_command(show_)
command.add_command(compare)
command.add_command(rename)
command.add_command(note)
