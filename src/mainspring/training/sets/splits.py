"""Splits by time: of a training set into its parts, and of rows into the folds of a cross-validation.

A model is evaluated on rows later than all that it was fitted on. Each part must have enough rows and classes, which is
checked before any feature is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import format_duration, format_instant, parse_duration

if TYPE_CHECKING:
    from mainspring.training.model import Model
    from mainspring.training.sets.labels import LeftOut

Instants = np.ndarray[Any, np.dtype[np.int64]]
FEWEST_ROWS = {"train": 1, "validation": 5, "holdout": 10}
_CLASSES_SHOWN = 5


class Cut(NamedTuple):
    """Row slices of a set ordered by time."""

    train: slice
    validation: slice
    holdout: slice


def cut_by_time(at: Instants, holdout: float | str, *, embargo: int = 0) -> Cut:
    """Return the split of rows at the ascending times `at`; rows of equal time are never separated.

    The holdout is the last part: a share of the rows, or a duration up to the last row. The validation part lies just
    before it and is half as large.

    Args:
        at: Shape (rows,), UTC epoch microseconds.
        embargo: Time before each later part in which rows are left out, µs, so that a label that takes at most this
            long to become known does not reach into the next part.

    Raises:
        InvalidData: A part is empty.
    """
    if len(at) == 0:
        raise InvalidData(
            "There are no labelled observations to train on.", fix="ingest more, or widen the time range."
        )
    if isinstance(holdout, str):
        length = parse_duration(holdout)
        end = int(at[-1]) + 1
        judged, checked = end - length, end - length - length // 2
    else:
        judged, checked = _instant_at(at, 1 - holdout), _instant_at(at, 1 - 1.5 * holdout)
    edges = np.searchsorted(at, [checked - embargo, checked, judged - embargo, judged])
    cut = Cut(slice(0, int(edges[0])), slice(int(edges[1]), int(edges[2])), slice(int(edges[3]), len(at)))
    for name, part in cut._asdict().items():
        if part.stop <= part.start:
            first, last = format_instant(int(at[0])), format_instant(int(at[-1]))
            raise InvalidData(
                f"The {name} part is empty: {len(at)} labelled observations from {first} to {last}, "
                f"holdout {holdout!r}.",
                fix="choose another holdout or embargo, or a longer time range.",
            )
    return cut


def _instant_at(at: Instants, share: float) -> int:
    return int(at[min(len(at) - 1, max(0, int(len(at) * share)))])


class FoldRows(NamedTuple):
    """Row slices of a set ordered by time."""

    train: slice
    validation: slice


def folds_by_time(at: Instants, count: int, *, embargo: int = 0, window: int | None = None) -> list[FoldRows]:
    """Return `count` folds of rows at the ascending times `at`; rows of equal time are never separated.

    The rows are cut into `count + 1` parts of nearly equal size. Fold k is validated on part k + 1 and trained on
    everything before it (an expanding window), or on the last `window` of it (a sliding one).

    Args:
        at: Shape (rows,), UTC epoch microseconds.
        embargo: Time before the validation in which rows are left out of the training, µs.
        window: Time that the training covers, µs, counted back from the start of the embargo.

    Raises:
        Invalid: `count` is less than 1.
        InvalidData: A fold would have no rows to train or to validate on.
    """
    if count < 1:
        raise Invalid(f"The number of folds is {count}.", fix="request at least 1.")
    if len(at) == 0:
        raise InvalidData("There are no labelled observations to split into folds.")
    cuts = [int(np.searchsorted(at, at[len(at) * part // (count + 1)])) for part in range(1, count + 1)]
    folds = []
    for number, (begin, end) in enumerate(zip(cuts, [*cuts[1:], len(at)], strict=True), start=1):
        cutoff = int(at[begin]) - embargo
        first = 0 if window is None else int(np.searchsorted(at, cutoff - window))
        rows = FoldRows(slice(first, int(np.searchsorted(at, cutoff))), slice(begin, end))
        for name, part in rows._asdict().items():
            if part.stop <= part.start:
                raise _empty(at, name, number, count)
        folds.append(rows)
    return folds


def _empty(at: Instants, name: str, number: int, count: int) -> InvalidData:
    span = f"{format_instant(int(at[0]))} to {format_instant(int(at[-1]))}"
    return InvalidData(
        f"The {name} part of fold {number} of {count} is empty: {len(at)} labelled observations from {span}.",
        fix="request fewer folds, a shorter embargo or a longer window.",
    )


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
        why = left_out if left_out.total else "there are no observations"
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
            f"The held-out rows of {model.name!r} have the classes {unseen[:_CLASSES_SHOWN]}, which do not occur "
            "in training.",
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
            f"{fix}; if one class becomes known sooner than the other, declare when labels mature: ms.Label(..., "
            'matures="40d", otherwise=False).'
        )
    return f"{fix}."


def _fix_none(model: Model, left_out: LeftOut) -> str:
    if left_out.all_immature:
        sources = ", ".join(dict.fromkeys(f"`mainspring ingest {each.source.name}`" for each in model.labels))
        return f"ingest label rows up to today ({sources}), or wait until labels mature."
    return "ingest more, or widen the time range."
