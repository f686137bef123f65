"""`mainspring features read`: features as they were at each row's time, to a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

_FILE = click.Path(dir_okay=False, path_type=Path)


@make("read")
@click.argument("of", nargs=-1, required=True, metavar="MODEL|VIEW|FEATURE...")
@click.option("--to", required=True, type=_FILE, help="The Parquet file to write; an existing file is replaced.")
@click.option("--labels", type=_FILE, help="A Parquet file of rows; by default the observations of MODEL.")
@click.option("--at", help="The column of --labels with the time of each row.")
@click.option("--since", help="Use observations of MODEL from this instant on (ISO 8601).")
@click.option("--until", help="Use observations of MODEL before this instant; by default now.")
@click.option(
    "--memory", default="2GB", show_default=True, help="Memory limit; larger intermediate results spill to disk."
)
def read(call: Call, *, of: tuple[str, ...], to: Path, labels: Path | None, at: str | None, since: str | None,
         until: str | None, memory: str) -> None:  # fmt: skip
    """Write the training set of MODEL, or VIEWs and FEATUREs at the times of --labels, to a Parquet file.

    The result may be larger than memory. The file is written completely or not at all.
    """
    from mainspring.operations.features import reading, writing
    from mainspring.operations.features.choosing import choose

    choice = choose(call.project.definitions, of[0] if len(of) == 1 else list(of))
    reading.check_asked(choice, labels, since, until)
    start, end = reading.instant(since), reading.instant(until)
    with call.progress() as progress:
        began: dict[str, float] = {}

        def told(name: str, done: int, total: int | None) -> None:
            if name not in began:
                for before in began:
                    progress.finish(before)
                began[name] = time.monotonic()
            progress.update(name, done, total, writing.pace(done, began[name]).lstrip(", "))

        writer = writing.TrainingSetWriter(call.project, choice, to, memory, told)
        if choice.model is None or labels is not None:
            written = writer.beside(labels, at)
        else:
            written = writer.of_observations(choice.model, start, end)
        progress.finish(writing.ROWS, f"{written.rows_per_second:,.0f} rows/s in all")

    def show(console: Console) -> None:
        console.print(repr(written), markup=False, highlight=False, soft_wrap=True)

    call.result(
        {"path": str(written.path), "rows": written.rows, "columns": written.columns, "features": written.features,
         "at": written.at, "label": written.label, "notes": written.notes, "seconds": round(written.seconds, 3)},
        show,
    )  # fmt: skip
