"""Labels of a model: source columns with the ground truth, and the meaning of a missing value."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import format_duration, parse_duration
from mainspring.data.model import Source, SourceColumn
from mainspring.features.model import Entity, Observations

_VALUES: dict[DType, tuple[type, ...]] = {
    DType.Boolean: (bool,),
    DType.Int32: (int,),
    DType.Int64: (int,),
    DType.Float32: (int, float),
    DType.Float64: (int, float),
    DType.String: (str,),
}
_BOUNDS: dict[DType, tuple[float, float]] = {
    DType.Int32: (-(2**31), 2**31 - 1),
    DType.Int64: (-(2**63), 2**63 - 1),
    DType.Float32: (-3.4028235e38, 3.4028235e38),
    DType.Float64: (-sys.float_info.max, sys.float_info.max),
}


@dataclass(frozen=True, eq=False, init=False)
class Label(SourceColumn):
    """A column of a source as a model's label.

    Without `matures`, an observation's label is the newest value known when the training set is built, and an
    observation without a label is left out. With `matures`, an observation is labelled only once it is mature: once
    `matures` has passed since its own time, and label rows up to that time have arrived. Its label is the value known
    at maturity, or `otherwise` if there is none (why: docs/adr/0024-label-maturity.md).

    Args:
        column: The column, such as `chargebacks.fraud`.
        matures: Duration after an observation until its label is settled.
        otherwise: Label of a mature observation without a value; by default, such an observation is left out.
        entity: The entity whose keys join labels to observations; by default the one that the sources declare.

    Raises:
        Invalid: `matures` is not a positive duration, or the source declares no recorded time; `otherwise` is not a
            value of the column's type, or is given without `matures`.
    """

    matures_us: int | None = None
    otherwise: bool | int | float | str | None = None
    entity: Entity | None = None

    def __init__(
        self,
        column: SourceColumn,
        *,
        matures: str | int | None = None,
        otherwise: bool | int | float | str | None = None,
        entity: Entity | None = None,
    ) -> None:
        if not isinstance(column, SourceColumn):
            raise Invalid(
                f"A label refers to {column!r}, which is not a column of a source.",
                fix="write ms.Label(source.column, ...).",
            )
        if entity is not None and not isinstance(entity, Entity):
            raise Invalid(
                f"Label {column.name} has the entity {entity!r}, which is not an entity.", fix="give an ms.Entity."
            )
        object.__setattr__(self, "source", column.source)
        object.__setattr__(self, "column", column.column)
        object.__setattr__(self, "matures_us", None if matures is None else _maturity(column, matures))
        object.__setattr__(self, "otherwise", otherwise)
        object.__setattr__(self, "entity", entity)
        if otherwise is not None:
            _check_otherwise(column, otherwise, matures)

    def known_after(self, age_us: int) -> Label:
        """Return the label as it is known `age_us` after an observation; before it matures it is only what is known."""
        made = copy(self)
        settled = self.matures_us is not None and age_us >= self.matures_us
        object.__setattr__(made, "matures_us", age_us)
        object.__setattr__(made, "otherwise", self.otherwise if settled else None)
        return made

    @property
    def rule(self) -> str:
        """The declared maturity rule as text; empty if there is none."""
        if self.matures_us is None:
            return ""
        otherwise = "" if self.otherwise is None else f", otherwise {self.otherwise}"
        return f"matures after {format_duration(self.matures_us)}{otherwise}"


def as_label(given: Any) -> Label:
    """Return a `Label` as it is, or a column as a label without maturity.

    Raises:
        Invalid: `given` is neither.
    """
    return given if isinstance(given, Label) else Label(given)


def as_labels(model: str, declared: Any, task: str, observations: Observations) -> tuple[Label, ...]:
    """Return the labels of a model, from one label or from a list of several numeric ones.

    Raises:
        Invalid: The list is empty, or has an element that is not a source's column. Several labels need a regression,
            numeric columns with distinct names, and the same join keys.
    """
    if not isinstance(declared, (list, tuple)):
        return (as_label(declared),)
    if not declared:
        raise Invalid(f"Model {model!r} has an empty list of labels.", fix="name a source's column: payments.fraud.")
    for element in declared:
        if not isinstance(element, SourceColumn):
            raise Invalid(
                f"One of the labels of model {model!r} is {element!r}, of type {type(element).__name__}.",
                fix="name a source's column, without quotes: payments.fraud.",
            )
    labels = tuple(map(as_label, declared))
    if len(labels) > 1:
        _check_together(model, labels, task, observations)
    return labels


def _check_together(model: str, labels: Sequence[Label], task: str, observations: Observations) -> None:
    names = [label.name for label in labels]
    subject = f"Model {model!r} of the task {task!r} has {len(labels)} labels, {', '.join(names)}"
    if task != "regression":
        raise Invalid(
            f"{subject}; only a regression can have several.",
            fix="declare one model per label, in a loop if they share features and function.",
        )
    columns = [label.column for label in labels]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise Invalid(
            f"{subject}, but {', '.join(twice)} is the name of more than one. The outputs are named after the columns.",
            fix="name each column once; if two sources use the same name, rename one column.",
        )
    dtypes = {label.name: label.source.columns[label.column] for label in labels}
    if other := {name: dtype for name, dtype in dtypes.items() if not dtype.numeric}:
        raise Invalid(
            f"{subject}, but {', '.join(f'{name} is a {dtype!r}' for name, dtype in other.items())}, which is not "
            "a number.",
            fix="use numbers, or declare another model with another task.",
        )
    keys = {label.name: label_keys(observations, label) for label in labels}
    if len({tuple(key_names) for key_names in keys.values()}) > 1:
        shown = ", ".join(f"{name} by {' and '.join(key_names)}" for name, key_names in keys.items())
        raise Invalid(
            f"{subject}, which have different keys: {shown}.",
            fix="use labels of one entity, or declare it: ms.Label(..., entity=...).",
        )


def _maturity(column: SourceColumn, matures: str | int) -> int:
    duration = parse_duration(matures)
    if duration <= 0:
        raise Invalid(
            f"Label {column.name} has the invalid duration matures={matures!r}.", fix='write a duration such as "40d".'
        )
    if column.source.recorded_time is None:
        raise Invalid(
            f"Label {column.name} matures after {format_duration(duration)}, but source {column.source.name!r} "
            "does not declare when its rows became known.",
            fix="declare the column, recorded_time=...; it may be the event time itself, "
            f"recorded_time={column.source.event_time!r}, if labels are known as they happen.",
        )
    return duration


def _check_otherwise(column: SourceColumn, otherwise: Any, matures: Any) -> None:
    dtype = column.source.columns[column.column]
    fits = _VALUES.get(dtype, ())
    if not isinstance(otherwise, fits) or (isinstance(otherwise, bool) and bool not in fits):
        raise Invalid(
            f"Label {column.name} is a {dtype!r}, but otherwise={otherwise!r} has the type {type(otherwise).__name__}.",
            fix="give a value of the column's type.",
        )
    if isinstance(otherwise, float) and not math.isfinite(otherwise):
        raise Invalid(f"Label {column.name} has otherwise={otherwise!r}.", fix="give a finite number.")
    if dtype in _BOUNDS and isinstance(otherwise, int | float):
        low, high = _BOUNDS[dtype]
        if not low <= otherwise <= high:
            raise Invalid(
                f"Label {column.name} is a {dtype!r}, from {low} to {high}, but otherwise={otherwise!r} is out of "
                "range.",
                fix="give a value in the column's range, or widen the column's type.",
            )
    if matures is None:
        raise Invalid(
            f"Label {column.name} has otherwise={otherwise!r} but never matures, so a missing label cannot be "
            "told from a late one.",
            fix='declare how long a label can take: ms.Label(..., matures="40d").',
        )


def label_keys(observations: Observations, label: SourceColumn) -> list[str]:
    """Return the columns that join labels to observations: the keys of the label's entity.

    That is the label's `entity` if given; else the entities that identify a row of the label's source (by its id or a
    unique check); else those that identify a row of the observations' source. If neither source declares any, it is
    every entity whose keys the label's source has.

    Raises:
        Invalid: The label's source lacks the keys of every entity, or those of the label's `entity`.
    """
    columns = label.source.columns
    entity = label.entity if isinstance(label, Label) else None
    if entity is not None:
        _check_entity(observations, label, entity)
        return list(entity.keys)
    shared = [candidate for candidate in observations.keys if all(key in columns for key in candidate.keys)]
    if not shared:
        raise Invalid(
            f"Source {label.source.name!r} of the label has no keys of "
            f"{sorted(candidate.name for candidate in observations.keys)}.",
            fix=f"its columns are {sorted(columns)}; give it the key columns of one entity.",
        )
    for source in (label.source, observations.source):
        for unique in _unique(source):
            matching = [candidate for candidate in shared if unique.issuperset(candidate.keys)]
            if matching and unique == {key for candidate in matching for key in candidate.keys}:
                return list(dict.fromkeys(key for candidate in matching for key in candidate.keys))
    return list(dict.fromkeys(key for candidate in observations.keys for key in candidate.keys if key in columns))


def _unique(source: Source) -> list[set[str]]:
    """Return the sets of columns declared to identify a row of the source."""
    unique = [set(check.columns) for check in source.checks if check.kind == "unique"]
    return [set(source.id), *unique] if source.id else unique


def _check_entity(observations: Observations, label: SourceColumn, entity: Entity) -> None:
    for source, what in ((label.source, "the label's source"), (observations.source, "the observations' source")):
        missing = [key for key in entity.keys if key not in source.columns]
        if missing:
            raise Invalid(
                f"Label {label.name} has the entity {entity.name!r}, but {what} {source.name!r} lacks its keys "
                f"{missing}.",
                fix=f"its columns are {sorted(source.columns)}; name another entity.",
            )
