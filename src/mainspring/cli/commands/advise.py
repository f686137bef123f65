"""`mainspring advise`: the next step that a project's use justifies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.core.errors import NotFound

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.advise.folder import FirstPage
    from mainspring.operations.advise.model import Advised

_MARKS = {"in place": "[green]✓[/]", "next": "[yellow]→[/]", "not needed yet": "[dim]·[/]"}


@make("advise", reads_only=True)
def command(call: Call) -> None:
    """Name the next step that the project's use justifies, with the evidence.

    Ten areas are looked at: data, baseline, gates, tracking, serving, tests, monitoring, automation, rollout and cost.
    A step is advised only if the measured use justifies it. In a folder without a project, tables and notebooks are
    looked at instead.
    """
    from mainspring.operations.advise import advise, collect, first_page

    try:
        project = call.project
    except NotFound:
        folder = call.folder or Path.cwd()
        if call.profile is not None or not folder.is_dir():
            raise
        page = first_page(folder)
        call.result(page, lambda console: _show_first(console, page))
        return
    advised = advise(collect(project))
    call.result(advised, lambda console: _show(console, advised))


def _show(console: Console, advised: Advised) -> None:
    following = advised.next
    if following is None:
        console.print(f"[bold]{escape(advised.project)}[/]: nothing more is justified by its use.")
    else:
        console.print(f"[bold]{escape(advised.project)}[/]: next is [bold]{following.area}[/].\n")
        console.print(f"  {escape(following.evidence)}", soft_wrap=True)
        console.print(f"  [bold]{escape(following.step)}[/] {escape(following.why)}\n", soft_wrap=True)
        for line in following.command.splitlines():
            console.print(f"    {line}", markup=False, soft_wrap=True)
    console.print()
    for each in advised.areas:
        mark = "[bold yellow]→[/]" if each is following else _MARKS[each.state]
        detail = each.evidence if each.state != "next" or each is following else f"{each.evidence} {each.step}"
        if each.state == "not needed yet":
            detail = f"{each.evidence} {each.why}"
        console.print(f"{mark} [bold]{each.area:<12}[/] {escape(detail)}", soft_wrap=True)


def _show_first(console: Console, page: FirstPage) -> None:
    from mainspring.operations.advise.folder import MOST_ROWS

    console.print(f"[bold]{_shown(page.folder)}[/] has no project yet.\n", soft_wrap=True)
    for table in page.tables:
        times = f", time: {', '.join(table.times)}" if table.times else ""
        label = f", to predict: {table.label}" if table.label else ""
        first = "the first " if table.rows == MOST_ROWS else ""
        told = f"{table.path}: {first}{table.rows:,} rows, {len(table.columns)} columns{times}{label}"
        console.print(f"  table     {_shown(told)}", soft_wrap=True)
    for notebook in page.notebooks:
        libraries = f": {', '.join(notebook.libraries)}" if notebook.libraries else ""
        console.print(f"  notebook  {_shown(notebook.path + libraries)}", soft_wrap=True)
    for path in page.unread:
        console.print(f"  [yellow]unread[/]    {_shown(path)}: not a table that can be read", soft_wrap=True)
    console.print()
    for number, step in enumerate(page.steps, 1):
        console.print(f"{number}. {_shown(step)}", soft_wrap=True)
    if page.source:
        console.print(f"\n{page.source}", markup=False, soft_wrap=True)


def _shown(text: str) -> str:
    """Return a text from a file as it is, without what moves a terminal's cursor or colours it."""
    return escape("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))
