"""Training sets of any size: from the lake, and from a file of labels, to a Parquet file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mainspring.core.errors import Denied, Invalid, NotFound
from mainspring.core.schema import Schema
from mainspring.features.offline.outsize import point_in_time_pieces
from mainspring.features.offline.pieces import Observed, count, pieces, workplace, write_whole
from mainspring.operations.features import reading
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.file import FeatureFile
from mainspring.operations.features.frames import as_arrow
from mainspring.operations.features.progress_bar import Step
from mainspring.operations.features.rows import AT, Rows
from mainspring.training.model import Model
from mainspring.training.sets.outsize import labelled, write_labelled

if TYPE_CHECKING:
    from mainspring.project import Project

# Called with what is done now, how many rows of it are done, and of how many (`None`: it cannot be said).
Told = Callable[[str, int, int | None], None]
ROWS = "rows"  # the last of what is done
_NAME = "The labels"


class Paced:
    """Progress reports, as text with the rows a second.

    Args:
        step: Called with the words, and whether something new begins.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._now = ""
        self._began = 0.0

    def __call__(self, name: str, done: int, total: int | None) -> None:
        begins = name != self._now
        if begins:
            self._now, self._began = name, time.monotonic()
        words = name if total is None else f"{done:,} of {total:,} rows{pace(done, self._began)}"
        self._step(words, begins=begins)


def pace(rows: int, began: float) -> str:
    """Return how fast it goes, in words, once that can be said; `began` is of `time.monotonic`."""
    seconds = time.monotonic() - began
    return f", {rows / seconds:,.0f} rows/s" if rows and seconds > 0.5 else ""


class TrainingSetWriter:
    """Writes training sets of some features to `to`, in the folder of the project's state what is on its way.

    Args:
        to: A file that is there is replaced, once the new one is whole.
        memory_limit: What DuckDB may use before it spills.

    Raises:
        Invalid: `to` is no name of a Parquet file.
        NotFound: There is no such folder.
        Denied: Nothing may be written there.
    """

    def __init__(
        self, project: Project, choice: Choice, to: str | os.PathLike[str], memory_limit: str, told: Told
    ) -> None:
        self._began = time.monotonic()
        self._project, self._choice, self._memory_limit, self._told = project, choice, memory_limit, told
        self._scan = reading.pinned(project)
        self._temp = project.settings.state / "tmp"
        self._path = _target(to)

    def of_observations(self, model: Model, since: int | None, until: int | None) -> FeatureFile:
        """Write what `reading.of_observations` returns.

        Raises:
            StorageFull: There is no room for the file, or for what is on its way to it; it is as it was.
            Others: As `reading.of_observations`.
        """
        choice = self._choice
        end = self._project.clock.now() if until is None else until
        self._told("observations", 0, None)
        with workplace(self._temp) as folder:
            observed = folder / "observed.parquet"
            total, left_out = write_labelled(
                observed, model, self._scan, since=since, until=end, memory_limit=self._memory_limit, temp=self._temp
            )
            if not total:
                raise reading.none_labelled(model, since, end, left_out)
            with closing(self._found(partial(labelled, observed), reading.fields_of(choice, model), AT)) as found:
                rows = self._write((reading.as_trained(piece, choice, model) for piece in found), total)
        return self._file(rows, AT, label=reading.label_of(model), notes=reading.notes_of(left_out))

    def beside(self, labels: Any, at: str | None) -> FeatureFile:
        """Write what `reading.beside` returns.

        Args:
            labels: Also the path of a Parquet file.

        Raises:
            NotFound: There is no such file.
            StorageFull: There is no room for the file, or for what is on its way to it; it is as it was.
            Others: As `reading.beside`.
        """
        choice = self._choice
        source = as_arrow(labels, _NAME) if not isinstance(labels, (str, os.PathLike)) else self._labels(Path(labels))
        self._told("observations", 0, None)
        with closing(pieces(source)) as begun:
            first = Rows(choice, next(begun), _NAME)
        name = first.with_times(at)

        def asked() -> Iterator[pa.Table]:
            """Yield of the labels what the engine needs; their other columns it never sees."""
            for piece in pieces(source):
                rows = Rows(choice, piece, _NAME)
                rows.with_times(at)
                yield rows.read.select([*choice.needed, rows.at])

        with closing(self._found(asked, first.schema, first.at)) as found, closing(pieces(source)) as given:
            both = zip(given, found, strict=True)
            tables = (reading.with_found(as_arrow(piece, _NAME), features, name, choice) for piece, features in both)
            rows = self._write(tables, count(source))
        return self._file(rows, name)

    def _labels(self, path: Path) -> Path:
        path = path.expanduser()
        if path.exists() and self._path.exists() and path.samefile(self._path):
            raise Invalid(f"{path} is the file of the labels.", fix="write to another file.")
        return path

    def _found(self, observed: Observed, schema: Schema, at: str) -> Generator[pa.Table]:
        scan = reading.view_by_view(self._choice, self._scan, lambda view: self._told(view, 0, None))
        return point_in_time_pieces(
            observed, self._choice.groups, scan, schema=schema, at=at, memory_limit=self._memory_limit, temp=self._temp
        )

    def _write(self, tables: Iterator[pa.Table], total: int) -> int:
        return write_whole(self._path, tables, lambda done: self._told(ROWS, done, total))

    def _file(
        self, rows: int, at: str, *, label: str | tuple[str, ...] | None = None, notes: tuple[str, ...] = ()
    ) -> FeatureFile:
        return FeatureFile(
            self._choice.title, self._path, rows=rows, features=self._choice.columns, at=at, label=label, notes=notes,
            seconds=time.monotonic() - self._began,
        )  # fmt: skip


def _target(to: str | os.PathLike[str]) -> Path:
    """Return the path to write, checked before the work begins, not after an hour of it."""
    path = Path(to).expanduser()
    if path.suffix != ".parquet" or path.is_dir():
        raise Invalid(f"{path} is not a Parquet file name.", fix="let it end in .parquet.")
    if not path.parent.is_dir():
        raise NotFound(f"There is no folder {path.parent}.", fix="create the folder, or write elsewhere.")
    if not os.access(path.parent, os.W_OK):
        raise Denied(f"No permission to write in {path.parent}.", fix="write elsewhere.")
    return path
