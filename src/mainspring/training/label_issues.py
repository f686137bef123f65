"""Search of a model's training data for wrong labels, by the model itself: each row is judged by a fit without it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import format_instant
from mainspring.stats import label_issues
from mainspring.training.fitting import fit_model
from mainspring.training.flavours import estimator_scores
from mainspring.training.frames import Array
from mainspring.training.model import Model
from mainspring.training.row_table import csv_table, keys_of
from mainspring.training.runs.run import Run
from mainspring.training.sets.training_set import Split, TrainingSet

_VALIDATION = 0.1  # of the other rows, the last ones of a fit


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is probably wrong.

    Attributes:
        keys: The key columns of the label.
        at: Time of the prediction, UTC epoch microseconds.
        label: As it is given.
        suggested: As the other rows suggest it.
        confidence: Probability of the given label.
        repeats: Whether a row with the same features has the suggested label.
    """

    keys: dict[str, Any]
    at: int
    label: Any
    suggested: Any
    confidence: float
    repeats: bool


@dataclass(frozen=True, slots=True)
class Suspects:
    """Rows with labels that are probably wrong, the least plausible first.

    Attributes:
        rows: Number of rows that were judged.
        classes: The classes, in the order of `joint`.
        joint: Estimated number of rows by given and true class.
    """

    rows: int
    classes: tuple[Any, ...]
    joint: tuple[tuple[float, ...], ...]
    suspects: tuple[Suspect, ...]


def suspects(
    model: Model, data: TrainingSet, run: Run, *, folds: int = 5, tell: Callable[[str, float], None] = lambda *_: None
) -> Suspects:
    """Return the rows of all parts whose labels are probably wrong.

    The rows are parted in the order of time into blocks of equal size; each is judged by a fit on the others, before
    and after it, without those that lie within the model's embargo of it.

    Raises:
        Invalid: The task has no classes.
        InvalidData: There are fewer rows than blocks, one class, or a block's other rows lack a class.
        MainspringError: See `fit_model`.
    """
    if model.task not in ("binary", "multiclass"):
        raise Invalid(
            f"Labels of the task {model.task!r} are numbers, of which none is wrong by itself.",
            fix="search models of the tasks binary and multiclass.",
        )
    rows = Split.joined([data.train, data.validation, data.holdout])
    classes, given = np.unique(np.asarray(rows.y), return_inverse=True)
    if not 2 <= folds <= len(rows) or len(classes) < 2:
        raise InvalidData(
            f"{len(rows):,} rows with {len(classes)} classes cannot be judged in {folds} folds.",
            fix="take at least 2 folds, and rows of at least 2 classes.",
        )
    probabilities = np.empty((len(rows), len(classes)))
    edges = np.arange(folds + 1) * len(rows) // folds
    for number, (begin, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        tell(f"fold {number + 1} of {folds}", number / folds)
        part = _without(data, rows, begin, end)
        known = {*np.unique(np.asarray(part.train.y)).tolist()}
        if missing := [each for each in classes.tolist() if each not in known]:
            raise InvalidData(
                f"Without block {number + 1} of {folds} no row has the label {', '.join(map(str, missing))}.",
                fix="leave the class out, or judge in other folds: --folds.",
            )
        with run.prefixed(f"fold{number + 1}.") as prefixed:
            fitted = fit_model(model, part, prefixed)
        scores = estimator_scores(fitted.estimator, fitted.data.holdout.X, model.task)
        probabilities[begin:end] = _by_class(scores, fitted.outputs, classes.tolist(), model.task)
    found = label_issues.find(given.astype(np.int64), probabilities)
    return Suspects(
        len(rows),
        tuple(classes.tolist()),
        tuple(map(tuple, found.joint.tolist())),
        tuple(_told(rows, given, classes.tolist(), found)),
    )


def _without(data: TrainingSet, rows: Split, begin: int, end: int) -> TrainingSet:
    """Return a block of the rows as the holdout, and the others as training and validation."""
    at = np.asarray(rows.at)
    before = int(np.searchsorted(at, at[begin] - data.embargo_us)) if data.embargo_us else begin
    after = int(np.searchsorted(at, at[end - 1] + data.embargo_us, side="right")) if data.embargo_us else end
    rest = Split.joined([rows.rows(slice(0, min(before, begin))), rows.rows(slice(max(after, end), None))])
    cut = round(len(rest) * (1 - _VALIDATION))
    return replace(
        data,
        train=rest.rows(slice(0, cut)),
        validation=rest.rows(slice(cut, None)),
        holdout=rows.rows(slice(begin, end)),
    )


def _told(rows: Split, given: Array, classes: Sequence[Any], found: label_issues.LabelIssues) -> Iterator[Suspect]:
    """Yield the suspects, the least plausible first."""
    import pandas as pd

    places = found.rows
    hashes = pd.util.hash_pandas_object(rows.X, index=False).to_numpy()
    alike = np.flatnonzero(np.isin(hashes, hashes[places]))  # rows with the features of a suspect
    with_label = {*zip(hashes[alike].tolist(), given[alike].tolist(), strict=True)}
    for row, suggested, confidence, keys in zip(
        places.tolist(), found.suggested.tolist(), found.confidence.tolist(), keys_of(rows, places), strict=True
    ):
        yield Suspect(
            keys,
            int(rows.at[row]),
            classes[given[row]],
            classes[suggested],
            confidence,
            (hashes[row].item(), suggested) in with_label,
        )


def table_of(found: Suspects, *, hidden: Collection[str] = ()) -> bytes:
    """Return the suspects as CSV, without key columns that identify a person."""
    keys = [name for name in (found.suspects[0].keys if found.suspects else ()) if name not in hidden]
    rows = (
        (*(each.keys[name] for name in keys), format_instant(each.at), each.label, each.suggested,
         f"{each.confidence:.6g}", each.repeats)
        for each in found.suspects
    )  # fmt: skip
    return csv_table([*keys, "at", "label", "suggested", "confidence", "repeats"], rows)


def _by_class(scores: Array, outputs: Sequence[str], classes: Sequence[Any], task: str) -> Array:
    """Return probabilities of shape (rows, classes) in the order of `classes`."""
    if task == "binary":
        positive = np.asarray(scores)[:, 0]
        return np.column_stack([1.0 - positive, positive])
    places = {name: place for place, name in enumerate(outputs)}
    return np.asarray(scores)[:, [places[str(each)] for each in classes]]
