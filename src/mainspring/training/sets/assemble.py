"""Assembly of a training set from pinned tables: observations, labels, point-in-time features, split by time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.features.offline import point_in_time
from mainspring.features.offline.observed import AT
from mainspring.features.offline.stored import Scan
from mainspring.training.frames import to_frame
from mainspring.training.inputs import all_groups, check_label, feature_types
from mainspring.training.label import label_keys
from mainspring.training.model import Model
from mainspring.training.sets.labelled import labelled
from mainspring.training.sets.labels import LABEL, LeftOut, label_numbers
from mainspring.training.sets.leakage import own_columns
from mainspring.training.sets.splits import Instants, check_parts, cut_by_time
from mainspring.training.sets.training_set import Split, TrainingSet


def labelled_observations(
    model: Model, scan: Scan, *, since: int | None, until: int | None
) -> tuple[pa.Table, LeftOut]:
    """Return the observations in `[since, until)` with features and `_label`, and the reasons for those left out.

    Only labels visible at `until` count. Rows are ordered by time; times are UTC epoch microseconds. The parts are
    checked for enough rows and classes before any feature is read.

    Raises:
        InvalidData: A part is empty, too small or has only one class, or the labels do not fit the task.
    """
    rows, left_out = labelled(model.observations, model.labels, scan, since=since, until=until)
    check_parts(model, instants(rows), label_values(rows.column(LABEL), model), left_out)
    return point_in_time(rows, all_groups(model), scan, schema=model.observations.source.columns, at=AT), left_out


def instants(table: pa.Table) -> Instants:
    """Return the times of a table's rows, shape (rows,), UTC epoch microseconds."""
    return np.asarray(table.column(AT).cast(pa.int64()).to_numpy())


def training_set(model: Model, table: pa.Table, left_out: LeftOut) -> tuple[TrainingSet, pa.Table]:
    """Return the training set with the columns of the model and its baseline, and the held-out rows as a table.

    Raises:
        InvalidData: A part is empty, or the labels do not fit the task.
    """
    dtypes = feature_types(model, (*model.columns, *model.baseline_columns))
    at = instants(table)
    cut = cut_by_time(at, model.holdout, embargo=model.embargo_us)
    labels = label_values(table.column(LABEL), model)
    frame = to_frame(table, dtypes)

    keys = table.select(label_keys(model.observations, model.label)).to_pandas()
    everything = Split(frame, labels, at, keys)
    train, validation, holdout = (everything.rows(part) for part in cut)
    counts, own = dict(left_out.counts), own_columns(model, table)
    made = TrainingSet(
        train, validation, holdout, dtypes, model.task, left_out.total, model.embargo_us, counts, own,
        model.label_columns,
    )  # fmt: skip
    held_out = table.slice(cut.holdout.start, cut.holdout.stop - cut.holdout.start).select([*dtypes, AT, LABEL])
    return made, held_out


def label_values(column: pa.ChunkedArray[Any], model: Model) -> np.ndarray[Any, Any]:
    """Return labels of shape (rows,): 0 and 1, numbers, or classes (int64 or strings); (rows, labels) for several.

    Raises:
        InvalidData: A label does not fit the task.
    """
    if check_label(model) == DType.String:
        return np.array(column.to_pylist(), object)
    numbers = label_numbers(column, model.label_columns)
    label = model.label.name
    if (wrong := np.flatnonzero(~np.isfinite(numbers.reshape(-1, len(model.labels))).all(axis=0))).size:
        name = model.labels[int(wrong[0])].name
        raise InvalidData(f"Label {name} has NaN or infinite values.", fix="check the source with ms.checks.in_range.")
    if model.task == "regression":
        return numbers
    whole = numbers.astype(np.int64)
    if not np.array_equal(whole, numbers):
        raise InvalidData(f"Label {label} has values such as {numbers[whole != numbers][0]}, which cannot be classes.")
    if model.task == "binary" and not np.isin(whole, (0, 1)).all():
        raise InvalidData(f"Label {label} has the values {_some(whole)}; a binary label is a Boolean, or 0 and 1.")
    return whole


def _some(values: np.ndarray[Any, Any]) -> list[Any]:
    return sorted(set(values.tolist()))[:5]
