"""Freshness of the data: the newest event of each source, and the materialisation progress of each feature view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import from_datetime
from mainspring.data.model import Source, TableScan
from mainspring.features.layout import slot
from mainspring.features.model import FeatureView, views_of
from mainspring.project import Project

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Freshness:
    """One source or view. `newest` is None if there is no data yet; `late` if it exceeds its maximum age."""

    name: str
    kind: str  # source, view
    newest: int | None  # UTC epoch microseconds
    rows: int | None
    allowed_us: int | None  # maximum age, if declared
    late: bool
    problem: str | None = None

    @property
    def state(self) -> str:
        """`late`, `empty`, `materialised` (a view in time), `fresh` (a source within its check) or `unchecked`."""
        if self.late:
            return "late"
        if self.newest is None:
            return "empty"
        if self.kind == "view":
            return "materialised"
        return "unchecked" if self.allowed_us is None else "fresh"


def freshness(project: Project, model: str, now: int) -> tuple[Freshness, ...]:
    """Return the sources and views of a model, or of the whole project where the model is not declared."""
    definitions = project.definitions
    known = definitions.models.get(model)
    if known is None:
        views, sources = list(definitions.views.values()), list(definitions.sources.values())
    else:
        views = views_of(known.features)
        labels = [label.source for label in known.labels]
        wanted = [known.observations.source, *(view.source for view in views), *labels]
        sources = list({source.name: source for source in wanted}.values())
    return (
        *(_source(project, source, now) for source in sources),
        *(_view(project, view, project.settings.materialise_every_us, now) for view in views),
    )


def _source(project: Project, source: Source, now: int) -> Freshness:
    allowed = min((check.within for check in source.checks if check.kind == "fresh"), default=None)
    try:
        newest, rows = _newest(project.lake.scan(source.name), source.event_time)
    except NotFound:
        return Freshness(source.name, "source", None, None, allowed, allowed is not None)
    except MainspringError as error:
        return Freshness(source.name, "source", None, None, allowed, True, str(error))
    late = allowed is not None and (newest is None or now - newest > allowed)
    return Freshness(source.name, "source", newest, rows, allowed, late)


def _view(project: Project, view: FeatureView, every: int, now: int) -> Freshness:
    # Twice the schedule: one round may be under way.
    allowed = 2 * every
    try:
        through = project.online.position(slot(view))
    except MainspringError as error:
        return Freshness(view.name, "view", None, None, allowed, True, str(error))
    return Freshness(view.name, "view", through, None, allowed, through is None or now - through > allowed)


def _newest(scan: TableScan, column: str) -> tuple[int | None, int]:
    """Return the largest value of a timestamp column, and the number of rows."""
    if scan.rows is not None:
        return _largest(scan.rows, column), scan.rows.num_rows
    found = [_footer(file, column) for file in scan.files or ()]
    return max((newest for newest, _ in found if newest is not None), default=None), sum(rows for _, rows in found)


@lru_cache(maxsize=10_000)
def _footer(file: str, column: str) -> tuple[int | None, int]:
    """The same for one Parquet file, from its footer alone. A file of the lake never changes."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    groups = (_statistics(metadata.row_group(index), column) for index in range(metadata.num_row_groups))
    largest = [each.max for each in groups if each is not None and each.has_min_max and each.max is not None]
    return max(map(from_datetime, largest), default=None), metadata.num_rows


def _statistics(group: pa.parquet.RowGroupMetaData, column: str) -> pa.parquet.Statistics | None:
    columns = (group.column(index) for index in range(group.num_columns))
    return next((each.statistics for each in columns if each.path_in_schema == column), None)


def _largest(rows: pa.Table, column: str) -> int | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    value = pc.max(rows[column].cast(pa.int64())).as_py() if rows.num_rows else None
    return None if value is None else int(value)
