"""The two reads for people: as of each row's time from the lake, and now from the online store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mainspring.app.choosing import Choice
from mainspring.app.feature_table import FeatureTable
from mainspring.app.frames import index_of
from mainspring.app.rows import AT, Rows
from mainspring.app.steps import Step, steps
from mainspring.core.errors import Invalid, InvalidData, NotFound
from mainspring.core.schema import DType, Schema
from mainspring.core.time import SECOND, format_instant, from_datetime, parse_instant
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.data.model import TableScan
from mainspring.features.layout import slot
from mainspring.features.offline import observe, point_in_time
from mainspring.features.offline.observed import as_read
from mainspring.features.online import OnlineReader
from mainspring.features.types import feature_dtype
from mainspring.training.labels import LABEL, join_labels
from mainspring.training.model import Model

if TYPE_CHECKING:
    from mainspring.app.project import Project

Scan = Callable[[str], TableScan]
STATUS = ".status"  # after a feature's name: the column of its statuses


@dataclass(frozen=True)
class How:
    """What does not change the result of an offline read."""

    memory_limit: str = "2GB"
    progress: bool = True


def instant(when: str | int | date | datetime | None) -> int | None:
    """Return an instant from an ISO 8601 text, an aware datetime, a date (its midnight UTC) or epoch microseconds.

    Raises:
        Invalid: It is naive, or none of these.
    """
    if when is None or (isinstance(when, int) and not isinstance(when, bool)):
        return when
    if isinstance(when, str):
        return parse_instant(when)
    if isinstance(when, datetime):
        return from_datetime(when)
    if isinstance(when, date):
        return parse_instant(when.isoformat())
    raise Invalid(f"{when!r} of type {type(when).__name__} is no instant.", fix='write "2013-07-01T00:00:00Z".')


def of_observations(
    project: Project, choice: Choice, model: Model, since: int | None, until: int | None, how: How
) -> FeatureTable:
    """Return the model's labelled observations made in `[since, until)`, by time, as training reads them.

    Raises:
        NotFound: A source has no table yet.
        InvalidData: There is no labelled observation in that time.
    """
    end = project.clock.now() if until is None else until
    with steps(choice.title, len(choice.views) + 1, how.progress) as step:
        step("observations")
        scan = pinned(project)
        observed = observe(model.observations, scan, since=since, until=end, memory_limit=how.memory_limit)
        labelled = join_labels(observed, model.observations, model.label, scan, until=end)
        dropped = observed.num_rows - labelled.num_rows
        if not labelled.num_rows:
            span = f"before {format_instant(end)}" + ("" if since is None else f" and since {format_instant(since)}")
            raise InvalidData(
                f"Model {model.name!r} has no labelled observation {span} ({dropped:,} without a label).",
                fix="choose another time with since= and until=, or land its data with `mainspring ingest`.",
            )
        schema = {name: model.observations.source.columns.get(name, choice.keys.get(name)) for name in choice.needed}
        typed = {name: dtype for name, dtype in schema.items() if dtype is not None}
        table = _offline(choice, labelled, typed, AT, scan, how, step)
    label = f"{model.label.source.name}.{model.label.column}"
    own = [name for name in observed.column_names if name != AT]
    table = table.select([*own, AT, *choice.columns, LABEL]).rename_columns([*own, AT, *choice.columns, label])
    notes = (f"{dropped:,} observations without a label are left out",) if dropped else ()
    return FeatureTable(choice.title, table, features=choice.columns, at=AT, label=label, notes=notes)


def beside(project: Project, choice: Choice, labels: Any, at: str | None, how: How) -> FeatureTable:
    """Return `labels`, in their order and with all their columns, and what was known of each at its time.

    Raises:
        InvalidData: A column is missing, of another type, or a time is naive.
    """
    rows = Rows(choice, labels, "The labels")
    name = rows.with_times(at)
    with steps(choice.title, len(choice.views), how.progress) as step:
        found = _offline(choice, rows.read, rows.schema, rows.at, pinned(project), how, step)
    table = rows.given if name in rows.given.column_names else rows.given.append_column(name, found.column(name))
    for column in choice.columns:
        table = table.append_column(column, found.column(column))
    return FeatureTable(choice.title, table, features=choice.columns, at=name, index=index_of(labels))


def now(project: Project, choice: Choice, given: Any, *, statuses: bool) -> FeatureTable:
    """Return the rows `given` with the features as the online store has them now.

    Raises:
        NotFound: A view has never been materialised.
        InvalidData: A column is missing or of another type.
        Unavailable: The store does not answer.
    """
    rows = Rows(choice, given, "The rows")
    moment = project.clock.now()
    through = _materialised(project, choice)
    instants = pa.chunked_array([pa.array([moment] * len(rows.given), INSTANT)])
    rows.read = as_read(rows.read.append_column(rows.at, instants), choice.groups, rows.schema, rows.at)
    read = OnlineReader(choice.groups, project.online, schema=rows.schema).read(rows.columns(), moment)
    dtypes = feature_dtypes(choice, rows.schema)
    table = rows.given
    for name in choice.columns:
        table = table.append_column(name, pa.array(read.features[name], ARROW_TYPES[dtypes[name]]))
        if statuses and name in read.statuses:
            table = table.append_column(name + STATUS, pa.array(read.statuses[name], pa.string()))
    notes = () if through is None else (f"materialised through {format_instant(through // SECOND * SECOND)}",)
    return FeatureTable(choice.title, table, features=choice.columns, notes=notes, index=index_of(given))


def _materialised(project: Project, choice: Choice) -> int | None:
    """Return through when all the views are materialised, `None` where no view is read."""
    positions = {view.name: project.online.position(slot(view)) for view in choice.views}
    missing = [name for name, position in positions.items() if position is None]
    if missing:
        raise NotFound(
            f"Nothing is stored online of {', '.join(missing)} as declared now.",
            fix=f"run `mainspring materialize {' '.join(missing)}`.",
        )
    return min((position for position in positions.values() if position is not None), default=None)


def feature_dtypes(choice: Choice, schema: Schema) -> dict[str, DType]:
    """Return full name -> type of every feature of the groups."""
    return {
        f"{group.name}.{name}": feature_dtype(group, name, schema) for group in choice.groups for name in group.names
    }


def pinned(project: Project) -> Scan:
    """Return how to read the lake, each table in the version that it has when it is first asked for."""
    return cache(project.lake.scan)


def _offline(choice: Choice, observed: pa.Table, schema: Schema, at: str, scan: Scan, how: How, step: Step) -> pa.Table:
    views = iter(choice.views)

    def told(source: str) -> TableScan:  # each view's source is asked for as the view begins
        view = next(views, None)
        if view is not None:
            step(view.name)
        return scan(source)

    return point_in_time(observed, choice.groups, told, schema=schema, at=at, memory_limit=how.memory_limit)
