"""Progress display of long work in code: a bar in a terminal (on standard error) or a notebook, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from mainspring.core.html import text


class Step(Protocol):
    def __call__(self, name: str, /, *, begins: bool = True) -> None:
        """Report the step in progress; with `begins=False`, a note on the step that has begun."""


@contextmanager
def steps(title: str, total: int, shown: bool = True) -> Iterator[Step]:
    """Show the progress over `total` steps. Call the yielded function with the name of each step as it begins."""
    if not shown or total < 1:
        yield _unseen
    elif _in_notebook():
        with _notebook(title, total) as step:
            yield step
    elif sys.stderr.isatty():
        with _terminal(title, total) as step:
            yield step
    else:
        yield _unseen


def by_stage(step: Step) -> Callable[[str, int, int], None]:
    """Return a callback that calls `step` once for each stage, as it begins."""
    begun: set[str] = set()

    def told(stage: str, _done: int, _total: int) -> None:
        if stage not in begun:
            begun.add(stage)
            step(stage)

    return told


def _unseen(_name: str, /, *, begins: bool = True) -> None:
    pass


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a kernel has imported it; no one else needs it
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

        def step(name: str, *, begins: bool = True) -> None:
            nonlocal begun
            begun += begins
            bars.update(task, completed=begun - 1, description=f"{title}: {name}")

        yield step


@contextmanager
def _notebook(title: str, total: int) -> Iterator[Step]:
    # Not rich's bar: in a notebook it needs ipywidgets, and warns without it.
    ipython: Any = import_module("IPython.display")

    def bar(done: int, name: str) -> Any:
        return ipython.HTML(f'<progress value="{done}" max="{total}"></progress> {text(title)}: {text(name)}')

    handle = ipython.display(bar(0, ""), display_id=True)
    begun = 0

    def step(name: str, *, begins: bool = True) -> None:
        nonlocal begun
        begun += begins
        handle.update(bar(begun - 1, name))

    try:
        yield step
    finally:
        handle.update(ipython.HTML(""))
