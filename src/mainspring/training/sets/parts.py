"""Checks that the parts of a training set have enough rows and classes, before any feature is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.core.errors import InvalidData
from mainspring.core.time import format_duration, format_instant
from mainspring.training.model import Model
from mainspring.training.sets.labels import LeftOut
from mainspring.training.sets.splits import Cut, Instants, cut_by_time

FEWEST_ROWS = {"train": 1, "validation": 5, "holdout": 10}
_CLASSES_SHOWN = 5


def check_parts(model: Model, at: Instants, labels: np.ndarray[Any, Any], left_out: LeftOut) -> Cut:
    """Return the split of labelled observations, if each part has enough rows and classes.

    A binary model needs both classes in every part: evaluation, early stopping and calibration need both. A multiclass
    model needs two classes to train on, and no class in the holdout that it never saw.

    Args:
        at: Shape (rows,), ascending, UTC epoch microseconds.
        labels: Shape (rows,), or (rows, labels) for several.
        left_out: The observations without a label.

    Raises:
        InvalidData: A part is empty, has too few rows, or lacks a class.
    """
    if not len(at):
        why = left_out if left_out.total else "there is no observation at all"
        raise InvalidData(
            f"Model {model.name!r} has no labelled observation to train on: {why}.", fix=_fix_none(model, left_out)
        )
    try:
        cut = cut_by_time(at, model.holdout, embargo=model.embargo_us)
    except InvalidData as error:
        raise InvalidData(f"Of {model.name!r}: {error.what} {left_out}.", fix=_fix(model)) from None
    for name, part in cut._asdict().items():
        rows = labels[part]
        if len(rows) < FEWEST_ROWS[name]:
            problem = f"has {len(rows)} rows and needs {FEWEST_ROWS[name]}"
        elif model.task == "binary" and len(np.unique(rows)) < 2:
            problem = f"has {len(rows)} rows, and every one has the label {rows[0]!s}; both classes are needed"
        elif model.task == "multiclass" and name == "train" and len(set(rows.tolist())) < 2:
            problem = f"has {len(rows)} rows, and every one has the label {rows[0]!r}; two classes are needed"
        else:
            continue
        raise InvalidData(f"The {name} part of {model.name!r} {problem}. {_told(at, labels, cut, model, left_out)}",
                          fix=_fix(model))  # fmt: skip
    if model.task == "multiclass":
        _check_seen(model, labels, cut)
    return cut


def _check_seen(model: Model, labels: np.ndarray[Any, Any], cut: Cut) -> None:
    seen = {*labels[cut.train].tolist(), *labels[cut.validation].tolist()}
    unseen = sorted({str(each) for each in set(labels[cut.holdout].tolist()) - seen})
    if unseen:
        raise InvalidData(
            f"The held-out rows of {model.name!r} have the classes {unseen[:_CLASSES_SHOWN]}, "
            "which training never saw.",
            fix="choose a longer time range or a shorter holdout.",
        )


def _told(at: Instants, labels: np.ndarray[Any, Any], cut: Cut, model: Model, left_out: LeftOut) -> str:
    parts = []
    for name, part in cut._asdict().items():
        span = f"{format_instant(int(at[part][0]))} to {format_instant(int(at[part][-1]))}"
        classes = "" if model.task == "regression" else f", {_classes(labels[part])}"
        parts.append(f"{name} {len(at[part])} rows from {span}{classes}")
    embargo = f", embargo {format_duration(model.embargo_us)}" if model.embargo_us else ""
    return f"{len(at)} labelled observations: {'; '.join(parts)} (holdout {model.holdout!r}{embargo}). {left_out}."


def _classes(labels: np.ndarray[Any, Any]) -> str:
    names, counts = np.unique(labels.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_CLASSES_SHOWN]
    return ", ".join(f"{counts[each]} of {names[each]}" for each in order)


def _fix(model: Model) -> str:
    fix = "choose a longer holdout (validation is half as long), a shorter embargo, or a longer time range"
    if model.task == "binary" and model.label.matures_us is None:
        return (
            f"{fix}; where one class becomes known sooner than the other, say when labels are settled: "
            'ms.Label(..., matures="40d", otherwise=False).'
        )
    return f"{fix}."


def _fix_none(model: Model, left_out: LeftOut) -> str:
    if left_out.all_immature:
        sources = ", ".join(dict.fromkeys(f"`mainspring ingest {each.source.name}`" for each in model.labels))
        return f"land label rows up to today ({sources}), or wait until labels mature."
    return "ingest more, or widen the time range."
