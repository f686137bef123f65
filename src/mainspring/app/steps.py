"""Progress of long work in code: a bar in a terminal (on standard error) or a notebook, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mainspring.core.html import text

Step = Callable[[str], None]


@contextmanager
def steps(title: str, total: int, shown: bool = True) -> Iterator[Step]:
    """Show how many of `total` steps are done. Call what is given with the name of each step as it begins."""
    if not shown or total < 1:
        yield lambda _name: None
    elif _in_notebook():
        with _notebook(title, total) as step:
            yield step
    elif sys.stderr.isatty():
        with _terminal(title, total) as step:
            yield step
    else:
        yield lambda _name: None


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a kernel has imported it; nobody else needs it
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def _terminal(title: str, total: int) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total)
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            bars.update(task, completed=begun, description=f"{title}: {name}")
            begun += 1

        yield step


@contextmanager
def _notebook(title: str, total: int) -> Iterator[Step]:
    # Not rich's bar: in a notebook it needs ipywidgets, and warns where that is missing.
    ipython: Any = import_module("IPython.display")

    def bar(done: int, name: str) -> Any:
        return ipython.HTML(f'<progress value="{done}" max="{total}"></progress> {text(title)}: {text(name)}')

    handle = ipython.display(bar(0, ""), display_id=True)
    begun = 0

    def step(name: str) -> None:
        nonlocal begun
        handle.update(bar(begun, name))
        begun += 1

    try:
        yield step
    finally:
        handle.update(ipython.HTML(""))
