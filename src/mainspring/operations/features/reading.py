"""The offline read for people: features as of each row's time, from the lake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import Schema
from mainspring.core.time import format_instant, from_datetime, parse_instant
from mainspring.data.model import TableScan
from mainspring.features.offline import observe, point_in_time
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.frames import index_of
from mainspring.operations.features.progress_bar import Step, steps
from mainspring.operations.features.rows import AT, Rows
from mainspring.operations.features.table import FeatureTable
from mainspring.training.model import Model
from mainspring.training.sets.labels import LABEL, LeftOut, join_labels

if TYPE_CHECKING:
    from mainspring.project import Project

Scan = Callable[[str], TableScan]


@dataclass(frozen=True)
class How:
    """Options of an offline read that do not change its result."""

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
    raise Invalid(f"{when!r} of type {type(when).__name__} is not an instant.", fix='write "2013-07-01T00:00:00Z".')


def check_asked(choice: Choice, labels: Any, since: Any, until: Any) -> None:
    """Raise `Invalid` where there are no rows to read for, or a part of them is chosen that cannot be."""
    if labels is not None and (since is not None or until is not None):
        raise Invalid("since= and until= apply only to a model's own observations.", fix="filter the labels instead.")
    if labels is None and choice.model is None:
        raise Invalid(
            f"{choice.title} needs rows to read, but no labels are given.",
            fix="give labels=: rows with the columns "
            f"{choice.needed} and a time. Only a model has observations of its own.",
        )


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
        labelled, left_out = join_labels(observed, model.observations, model.labels, scan, until=end)
        if not labelled.num_rows:
            raise none_labelled(model, since, end, left_out)
        table = _offline(choice, labelled, fields_of(choice, model), AT, scan, how, step)
    return FeatureTable(
        choice.title, as_trained(table, choice, model), features=choice.columns, at=AT, label=label_of(model),
        notes=notes_of(left_out),
    )  # fmt: skip


def as_trained(table: pa.Table, choice: Choice, model: Model) -> pa.Table:
    """Return the observations' own columns, their time, the features asked for and each label by its full name."""
    own = [*model.observations.source.columns, AT, *choice.columns]
    found, truth = table.select(own), table.column(LABEL)
    for label in model.labels:
        found = found.append_column(label.name, pc.struct_field(truth, label.column) if model.label_columns else truth)
    return found


def label_of(model: Model) -> str | tuple[str, ...]:
    names = tuple(each.name for each in model.labels)
    return names if len(names) > 1 else names[0]


def fields_of(choice: Choice, model: Model) -> Schema:
    """Return the types of the columns of the model's observations that the features read."""
    schema = {name: model.observations.source.columns.get(name, choice.keys.get(name)) for name in choice.needed}
    return {name: dtype for name, dtype in schema.items() if dtype is not None}


def none_labelled(model: Model, since: int | None, end: int, left_out: LeftOut) -> InvalidData:
    span = f"before {format_instant(end)}" + ("" if since is None else f" and since {format_instant(since)}")
    why = left_out if left_out.total else "there is no observation at all"
    return InvalidData(
        f"Model {model.name!r} has no labelled observations {span}: {why}.",
        fix="choose another period with since= and until=, or ingest data with `mainspring ingest`.",
    )


def notes_of(left_out: LeftOut) -> tuple[str, ...]:
    """Return notes on observations without a label."""
    return (str(left_out),) if left_out.total else ()


def beside(project: Project, choice: Choice, labels: Any, at: str | None, how: How) -> FeatureTable:
    """Return `labels`, in their order and with all their columns, and what was known of each at its time.

    Raises:
        InvalidData: A column is missing, of another type, or a time is naive.
    """
    rows = Rows(choice, labels, "The labels")
    name = rows.with_times(at)
    with steps(choice.title, len(choice.views), how.progress) as step:
        found = _offline(choice, rows.read, rows.schema, rows.at, pinned(project), how, step)
    table = with_found(rows.given, found, name, choice)
    return FeatureTable(choice.title, table, features=choice.columns, at=name, index=index_of(labels))


def with_found(given: pa.Table, found: pa.Table, at: str, choice: Choice) -> pa.Table:
    """Return rows as they were given, with the column `at` of their times where they lack it, and the features."""
    table = given if at in given.column_names else given.append_column(at, found.column(at))
    for column in choice.columns:
        table = table.append_column(column, found.column(column))
    return table


def pinned(project: Project) -> Scan:
    """Return how to read the lake, each table in the version that it has when it is first asked for."""
    return cache(project.lake.scan)


def view_by_view(choice: Choice, scan: Scan, begins: Callable[[str], None]) -> Scan:
    """Return `scan`; as it is asked for a source, `begins` is told each view that is read of that."""

    def told(source: str) -> TableScan:
        for view in choice.views:
            if view.source.name == source:
                begins(view.name)
        return scan(source)

    return told


def _offline(choice: Choice, observed: pa.Table, schema: Schema, at: str, scan: Scan, how: How, step: Step) -> pa.Table:
    told = view_by_view(choice, scan, step)
    return point_in_time(observed, choice.groups, told, schema=schema, at=at, memory_limit=how.memory_limit)
