"""Training sets of any size, from the lake or a file of labels to a Parquet file."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.core.errors import Denied, Invalid, NotFound
from mainspring.features.offline.pieces import write_whole
from mainspring.operations.features import reading
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.file import FeatureFile
from mainspring.operations.features.frames import as_arrow
from mainspring.operations.features.progress_bar import Step

if TYPE_CHECKING:
    from mainspring.project import Project

ROWS = "rows"  # the last step


class Paced:
    """Progress reports as text with the rows per second.

    Args:
        step: Called with the text, and whether a new step begins.
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
    """Return the rate as text, once it can be estimated; `began` is a value of `time.monotonic`."""
    seconds = time.monotonic() - began
    return f", {rows / seconds:,.0f} rows/s" if rows and seconds > 0.5 else ""


class TrainingSetWriter:
    """Writer of training sets to the file `to`; temporary files are in the project's state folder.

    Args:
        to: Path of the file; an existing file is replaced once the new one is complete.
        memory_limit: Memory that DuckDB may use before it spills.
        engine: One of `engines.ENGINES`; by default the profile's.

    Raises:
        Invalid: `to` is not a name of a Parquet file, or the engine cannot give one of the features.
        NotFound: There is no such folder.
        Denied: The folder is not writable.
    """

    def __init__(
        self,
        project: Project,
        choice: Choice,
        to: str | os.PathLike[str],
        memory_limit: str,
        told: reading.Told,
        engine: str | None = None,
    ) -> None:
        self._began = time.monotonic()
        self._choice, self._told = choice, told
        self._path = _target(to)
        self._reader = reading.Reader(project, choice, memory_limit, told, project.settings.state / "tmp", engine)
        self.engine = self._reader.engine

    def write(self, spine: reading.Spine) -> FeatureFile:
        """Write the result of `reading.read`.

        Raises:
            StorageFull: There is no space for the file or for temporary files; an existing file is unchanged.
            Others: As `reading.Reader.read`.
        """
        if spine.observations(self._choice) is None:
            given = isinstance(spine.labels, (str, os.PathLike))
            labels = self._labels(Path(spine.labels)) if given else as_arrow(spine.labels, reading.NAME)
            spine = replace(spine, labels=labels)
            self._told("observations", 0, None)
        with self._reader.read(spine) as found:
            return self._write(found)

    def _labels(self, path: Path) -> Path:
        path = path.expanduser()
        if path.exists() and self._path.exists() and path.samefile(self._path):
            raise Invalid(f"{path} is the file of the labels.", fix="write to another file.")
        return path

    def _write(self, found: reading.Found) -> FeatureFile:
        rows = write_whole(self._path, found.pieces, lambda done: self._told(ROWS, done, found.rows))
        return FeatureFile(
            self._choice.title, self._path, rows=rows, features=self._choice.columns, at=found.at, label=found.label,
            notes=(*found.notes, *self._reader.notes), seconds=time.monotonic() - self._began,
        )  # fmt: skip


def _target(to: str | os.PathLike[str]) -> Path:
    """Return the path to write, checked before the work begins."""
    path = Path(to).expanduser()
    if path.suffix != ".parquet" or path.is_dir():
        raise Invalid(f"{path} is not a Parquet file name.", fix="let it end in .parquet.")
    if not path.parent.is_dir():
        raise NotFound(f"There is no folder {path.parent}.", fix="create the folder, or write elsewhere.")
    if not os.access(path.parent, os.W_OK):
        raise Denied(f"No permission to write in {path.parent}.", fix="write elsewhere.")
    return path
