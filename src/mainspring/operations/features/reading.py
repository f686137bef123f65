"""Interactive offline read: features as of each row's time, from the lake."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import Schema
from mainspring.core.time import format_instant, from_datetime, parse_instant
from mainspring.data.model import TableScan
from mainspring.features.offline import point_in_time_pieces
from mainspring.features.offline.observed import AT
from mainspring.features.offline.pieces import Observed, count, pieces, workplace
from mainspring.features.offline.stored import Scan
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.deriving import derive
from mainspring.operations.features.engines import LAKE, WAREHOUSE, done, planned, stored_read
from mainspring.operations.features.frames import as_arrow, index_of
from mainspring.operations.features.progress_bar import steps
from mainspring.operations.features.rows import Rows
from mainspring.operations.features.table import FeatureTable
from mainspring.training.model import Model
from mainspring.training.sets.assemble import labelled, write_labelled
from mainspring.training.sets.labels import LABEL, LeftOut

if TYPE_CHECKING:
    from mainspring.project import Project

# Called with the current step, its rows done, and its total rows (`None` if unknown).
Told = Callable[[str, int, int | None], None]
When = str | int | date | datetime
NAME = "The labels"


@dataclass(frozen=True)
class How:
    """Options of an offline read that do not change its result.

    Attributes:
        engine: One of `engines.ENGINES`; by default the profile's.
    """

    memory_limit: str = "2GB"
    progress: bool = True
    engine: str | None = None


def instant(when: When | None) -> int | None:
    """Return an instant from an ISO 8601 text, an aware datetime, a date (midnight UTC) or epoch microseconds.

    Raises:
        Invalid: It is naive, or of another type.
    """
    if when is None or (isinstance(when, int) and not isinstance(when, bool)):
        return when
    if isinstance(when, str):
        return parse_instant(when)
    if isinstance(when, datetime):
        return from_datetime(when)
    if isinstance(when, date):
        return parse_instant(when.isoformat())
    raise Invalid(f"{when!r} of type {type(when).__name__} is not an instant.", fix='write "2013-07-01T00:00:00Z".')


@dataclass(frozen=True)
class Spine:
    """Rows to read features for: given ones, or a model's own labelled observations.

    Attributes:
        labels: The given rows, as `frames.as_arrow` takes them, or the path of a Parquet file.
        at: Column of `labels` with the times; `None` for the rule of the model's observations.
        since, until: Bounds of the observations, as `instant` takes them.
    """

    labels: Any = None
    at: str | None = None
    since: When | None = None
    until: When | None = None

    def observations(self, choice: Choice) -> tuple[Model, int | None, int | None] | None:
        """Return the model whose observations are read and their bounds; `None` if rows are given.

        Raises:
            Invalid: There are neither labels nor a model, there are both labels and bounds, or a bound is not an
                instant.
        """
        bounds = instant(self.since), instant(self.until)
        if self.labels is not None:
            if bounds != (None, None):
                raise Invalid(
                    "since= and until= apply only to a model's own observations.", fix="filter the labels instead."
                )
            return None
        if choice.model is None:
            raise Invalid(
                f"{choice.title} needs rows to read, but no labels are given.",
                fix="give labels=: rows with the columns "
                f"{choice.needed} and a time. Only a model has observations of its own.",
            )
        return (choice.model, *bounds)


@dataclass(frozen=True)
class Found:
    """Rows with the requested features, as they are read.

    Attributes:
        pieces: The rows in order, at least one table.
        rows: Number of rows.
        at: Name of the column with the instant of each row's features.
        label: Name of the label's column, if there is one; for several labels a tuple of names.
        notes: Notes on observations without a label.
    """

    pieces: Iterator[pa.Table]
    rows: int
    at: str
    label: str | tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class Reader:
    """Reader of features as of the time of each row of a spine.

    Args:
        memory_limit: Memory that DuckDB may use before it spills.
        told: Called when the read of the observations, and of each view, begins.
        temp: Folder for data that exceeds memory. Without one, the rows and the result are in memory, as one piece.
        engine: One of `engines.ENGINES`; by default the profile's.

    Raises:
        Invalid: There is no such engine, or it cannot give one of the features.
    """

    def __init__(
        self,
        project: Project,
        choice: Choice,
        memory_limit: str,
        told: Told,
        temp: Path | None = None,
        engine: str | None = None,
    ) -> None:
        self._project, self._choice, self._memory_limit, self._told = project, choice, memory_limit, told
        self._stored = stored_read(project, engine, told=lambda job: told(f"{WAREHOUSE}: {planned(job)}", 0, None))
        if self._stored is None:
            derive(project, choice.views)
        else:
            self._stored.check(choice.groups, choice.columns)
        self._scan = pinned(project)
        self._temp = temp

    @property
    def engine(self) -> str:
        """The engine that reads the features."""
        return LAKE if self._stored is None else WAREHOUSE

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was read elsewhere than in the lake."""
        return () if self._stored is None else tuple(done(self._stored))

    @contextmanager
    def read(self, spine: Spine) -> Iterator[Found]:
        """Read the rows of `spine`, whose labels are a table or, with a folder `temp`, a path.

        Observations are ordered by time, as in training; labels keep their order and all their columns.

        Raises:
            Invalid: As `Spine.observations`.
            NotFound: A source has no table yet, or there is no such file.
            InvalidData: There is no labelled observation in that time; a column of the labels is missing or of another
                type, or a time is naive.
        """
        own = spine.observations(self._choice)
        with self._beside(spine.labels, spine.at) if own is None else self._of_observations(*own) as found:
            yield found

    @contextmanager
    def _of_observations(self, model: Model, since: int | None, until: int | None) -> Iterator[Found]:
        choice = self._choice
        end = self._project.clock.now() if until is None else until
        labelled_by = model.observations, model.labels, self._scan
        self._told("observations", 0, None)
        with ExitStack() as stack:
            observed: Observed
            if self._temp is None:
                observed, left_out = labelled(*labelled_by, since=since, until=end, memory_limit=self._memory_limit)
                total = observed.num_rows
            else:
                folder = stack.enter_context(workplace(self._temp))
                observed, total, left_out = write_labelled(
                    folder / "observed.parquet", *labelled_by, since=since, until=end, memory_limit=self._memory_limit,
                    temp=self._temp,
                )  # fmt: skip
            if not total:
                raise none_labelled(model, since, end, left_out)
            features = stack.enter_context(closing(self._features(observed, _fields_of(choice, model), AT)))
            rows = (_as_trained(piece, choice, model) for piece in features)
            names = tuple(label.name for label in model.labels)
            notes = (str(left_out),) if left_out.total else ()
            yield Found(rows, total, AT, names if len(names) > 1 else names[0], notes)

    @contextmanager
    def _beside(self, labels: pa.Table | Path, at: str | None) -> Iterator[Found]:
        in_memory, choice = self._temp is None, self._choice

        def rows() -> Generator[Rows]:
            for piece in pieces(labels, whole=in_memory):
                piece_rows = Rows(choice, piece, NAME)
                piece_rows.with_times(at)
                yield piece_rows

        with closing(rows()) as opened:
            first = next(opened)
        name = first.at if at is None else at

        def key_columns() -> Iterator[pa.Table]:
            """Yield the columns of the labels that the engine needs."""
            for block in [first] if in_memory else rows():
                yield block.read.select([*choice.needed, block.at])

        feature_pieces = self._features(key_columns, first.schema, first.at)
        with closing(feature_pieces), closing(pieces(labels, whole=in_memory)) as label_pieces:
            pairs = zip(label_pieces, feature_pieces, strict=True)
            tables = (_with_found(as_arrow(piece, NAME), features, name, choice) for piece, features in pairs)
            yield Found(tables, count(labels), name)

    def _features(self, observed: Observed, schema: Schema, at: str) -> Generator[pa.Table]:
        def told(source: str) -> TableScan:
            for view in self._choice.views:
                if view.source.name == source:
                    self._told(view.name, 0, None)
            return self._scan(source)

        return point_in_time_pieces(
            observed, self._choice.groups, told, schema=schema, at=at, memory_limit=self._memory_limit,
            temp=self._temp, whole=self._temp is None, stored=self._stored,
            only=None if self._stored is None else self._choice.columns,
        )  # fmt: skip


def read(project: Project, choice: Choice, spine: Spine, how: How) -> FeatureTable:
    """Return the result of `Reader.read` in memory."""
    own = spine.observations(choice) is not None
    index = None if own else index_of(spine.labels)
    spine = spine if own else replace(spine, labels=as_arrow(spine.labels, NAME))
    with steps(choice.title, len(choice.views) + own, how.progress) as step:
        reader = Reader(project, choice, how.memory_limit, lambda name, _done, _total: step(name), engine=how.engine)
        with reader.read(spine) as result:
            table = pa.concat_tables(result.pieces)
            return FeatureTable(
                choice.title, table, features=choice.columns, at=result.at, label=result.label,
                notes=(*result.notes, *reader.notes), index=index,
            )  # fmt: skip


def pinned(project: Project) -> Scan:
    """Return a scan of the lake with each table pinned to its version at its first use."""
    return cache(project.lake.scan)


def _as_trained(table: pa.Table, choice: Choice, model: Model) -> pa.Table:
    """Return the observations' own columns, their time, the requested features, and each label by its full name."""
    names = [*model.observations.source.columns, AT, *choice.columns]
    result, truth = table.select(names), table.column(LABEL)
    for label in model.labels:
        result = result.append_column(
            label.name, pc.struct_field(truth, label.column) if model.label_columns else truth
        )
    return result


def _fields_of(choice: Choice, model: Model) -> Schema:
    """Return the types of the columns of the model's observations that the features read."""
    schema = {name: model.observations.source.columns.get(name, choice.keys.get(name)) for name in choice.needed}
    return {name: dtype for name, dtype in schema.items() if dtype is not None}


def none_labelled(model: Model, since: int | None, end: int, left_out: LeftOut) -> InvalidData:
    """Return the error that a model has no labelled observations in a time."""
    span = f"before {format_instant(end)}" + ("" if since is None else f" and since {format_instant(since)}")
    why = left_out if left_out.total else "there are no observations"
    return InvalidData(
        f"Model {model.name!r} has no labelled observations {span}: {why}.",
        fix="choose another period with since= and until=, or ingest data with `mainspring ingest`.",
    )


def _with_found(rows: pa.Table, features: pa.Table, at: str, choice: Choice) -> pa.Table:
    """Return the given rows with the features, and with the column `at` of their times if they lack it."""
    table = rows if at in rows.column_names else rows.append_column(at, features.column(at))
    for column in choice.columns:
        table = table.append_column(column, features.column(column))
    return table
