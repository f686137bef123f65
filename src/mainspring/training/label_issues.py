"""Search of a model's training data for wrong labels, by the model itself: each row is judged by a fit without it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
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
    and after it.

    Raises:
        Invalid: The task has no classes, or `folds` is less than 2.
        InvalidData: A block's other rows lack a class.
        MainspringError: See `fit_model`.
    """
    if model.task not in ("binary", "multiclass"):
        raise Invalid(
            f"Labels of the task {model.task!r} are numbers, of which none is wrong by itself.",
            fix="search models of the tasks binary and multiclass.",
        )
    if folds < 2:
        raise Invalid(f"Rows cannot be judged by others in {folds} fold.", fix="take at least 2.")
    everything = _joined([data.train, data.validation, data.holdout])
    labels = np.asarray(everything.y)
    classes, given = np.unique(labels, return_inverse=True)
    probabilities = np.empty((len(labels), len(classes)))
    edges = np.arange(folds + 1) * len(labels) // folds
    for number, (begin, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        tell(f"fold {number + 1} of {folds}", number / folds)
        rest = _joined([everything.rows(slice(0, begin)), everything.rows(slice(end, None))])
        cut = round(len(rest) * (1 - _VALIDATION))
        block = everything.rows(slice(begin, end))
        if len(known := np.unique(np.asarray(rest.y)[:cut])) < len(classes):
            missing = sorted(map(str, {*classes.tolist()} - {*known.tolist()}))
            raise InvalidData(
                f"Without block {number + 1} of {folds} no row has the label {', '.join(missing)}.",
                fix="leave the class out, or judge in other folds: --folds.",
            )
        part = replace(data, train=rest.rows(slice(0, cut)), validation=rest.rows(slice(cut, None)), holdout=block)
        with run.prefixed(f"fold{number + 1}.") as prefixed:
            fitted = fit_model(model, part, prefixed)
        scores = estimator_scores(fitted.estimator, fitted.data.holdout.X, model.task)
        probabilities[begin:end] = _by_class(scores, fitted.outputs, classes.tolist(), model.task)
    found = label_issues.find(given.astype(np.int64), probabilities)
    twins, names = _twins(everything, given), classes.tolist()
    rows = [
        Suspect(
            {} if everything.keys is None else everything.keys.iloc[row].to_dict(),
            int(everything.at[row]),
            names[given[row]],
            names[suggested],
            float(confidence),
            int(suggested) in twins[row],
        )
        for row, suggested, confidence in zip(
            found.rows.tolist(), found.suggested.tolist(), found.confidence.tolist(), strict=True
        )
    ]
    return Suspects(len(labels), tuple(names), tuple(map(tuple, found.joint.tolist())), tuple(rows))


def table_of(found: Suspects, *, hidden: Collection[str] = ()) -> bytes:
    """Return the suspects as CSV, without key columns that identify a person."""
    keys = [name for name in (found.suspects[0].keys if found.suspects else ()) if name not in hidden]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*keys, "at", "label", "suggested", "confidence", "repeats"])
    for each in found.suspects:
        told = (format_instant(each.at), each.label, each.suggested, f"{each.confidence:.6g}", each.repeats)
        writer.writerow([*(each.keys[name] for name in keys), *told])
    return text.getvalue().encode()


def _joined(parts: Sequence[Split]) -> Split:
    import pandas as pd

    keys = [part.keys for part in parts if part.keys is not None]
    return Split(
        pd.concat([part.X for part in parts], ignore_index=True),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.at for part in parts]),
        pd.concat(keys, ignore_index=True) if len(keys) == len(parts) else None,
    )


def _by_class(scores: Array, outputs: Sequence[str], classes: Sequence[Any], task: str) -> Array:
    """Return probabilities of shape (rows, classes) in the order of `classes`."""
    if task == "binary":
        positive = np.asarray(scores)[:, 0]
        return np.column_stack([1.0 - positive, positive])
    places = {name: place for place, name in enumerate(outputs)}
    return np.asarray(scores)[:, [places[str(each)] for each in classes]]


def _twins(rows: Split, given: Array) -> list[frozenset[int]]:
    """Return for each row the classes of the rows with the same features, its own included."""
    import pandas as pd

    hashes = pd.util.hash_pandas_object(rows.X, index=False).to_numpy()
    _, group = np.unique(hashes, return_inverse=True)
    of_group: dict[int, set[int]] = {}
    for number, label in zip(group.tolist(), given.tolist(), strict=True):
        of_group.setdefault(number, set()).add(label)
    frozen = {number: frozenset(found) for number, found in of_group.items()}
    return [frozen[number] for number in group.tolist()]
