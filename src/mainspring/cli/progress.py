"""Progress display on standard error: live bars in a terminal, else one line per finished stage."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress:
    """Progress of named stages. `update` may be called at any rate."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            TextColumn("  {task.description:<28}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._finished: set[str] = set()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop updating the bars; later output appears below them."""
        if self._bars.live.is_started:
            self._bars.stop()

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Report that `done` of `total` of a stage is complete; `None` for an unknown total."""
        if stage not in self._tasks:
            self._began[stage] = time.monotonic()
            self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)

    def in_turn(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Update a stage of work whose stages follow each other: those before it are complete."""
        for earlier in self._tasks.keys() - self._finished - {stage}:
            self.finish(earlier)
        self.update(stage, done, total, note)

    def finish_all(self) -> None:
        """Report that every stage is complete."""
        for stage in self._tasks.keys() - self._finished:
            self.finish(stage)

    def say(self, text: str) -> None:
        """Print lines for people, above the bars."""
        self._bars.console.print(text, soft_wrap=True, markup=False)

    def finish(self, stage: str, note: str = "") -> None:
        """Report that a stage is complete."""
        if stage not in self._tasks:
            self.update(stage, 1, 1)
        if stage in self._finished:
            return
        self._finished.add(stage)
        task = self._bars.tasks[self._tasks[stage]]
        self._bars.update(task.id, completed=task.total or task.completed or 1, total=task.total or task.completed or 1)
        self._bars.update(task.id, note=note)
        if not self._console.is_terminal:
            took = time.monotonic() - self._began[stage]
            self._console.print(f"  {stage:<28} {took:6.1f} s  [dim]{note}", soft_wrap=True)
