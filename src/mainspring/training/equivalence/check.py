"""Equivalence check: a model is refused, with the differing rows, unless its predictions match the estimator's.

The estimator predicts in the process that trained it, the model in a fresh process; only arrays without pickle pass
between them. The rows of `rows.proof_rows` are compared, each in a large batch and in a small one, some also one by
one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.files import disk_errors
from mainspring.registry.model import Input
from mainspring.training.equivalence.rows import HELD_OUT, MADE, NEAR_THRESHOLD, ProofRows
from mainspring.training.flavours import Artefact, estimator_scores, fresh, output_names
from mainspring.training.flavours.scoring import artefact_feeds, check_width
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
_ALONE = 16
_FAR_OFF = 1000  # mean over standard deviation, beyond which float32 sums err by the tolerance
_FAR = (
    "the predictions are far from zero, where float32 is coarse: subtract a constant from the label, or use "
    "XGBoost, LightGBM or CatBoost, which are served natively."
)
_OTHERWISE = (
    "impute nulls before the estimator, leave scalers out before trees, declare such columns ms.Float32, or use "
    "another estimator."
)
_KINDS = (HELD_OUT, MADE, "threshold", "null", "unseen")
_OWN_ROW = "use statistics that training stores (BatchNorm with running statistics), and no dropout in predictions."
_LIMIT_S = 120
_WHOLE, _MIXED = 4096, 61  # rows of a batch


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of a comparison: the number of rows, of probes among them, and the largest difference.

    Args:
        by: Kind of rows (held out, made of held-out values, null, unseen, threshold) or of batching (in small batches,
            one by one) -> the largest difference.
        none: Whether the model accepts an empty batch.
    """

    rows: int
    probes: int
    worst: float
    by: Mapping[str, float] = field(default_factory=dict)
    none: bool = False


def prove(
    estimator: Any,
    artefact: Artefact,
    rows: ProofRows,
    inputs: Sequence[Input],
    task: str,
    *,
    tolerance: float = TOLERANCE,
    labels: Sequence[str] = (),
) -> Proof:
    """Compare an estimator with its converted model.

    Args:
        artefact: The model from `flavours.convert_estimator`.
        tolerance: Largest difference of an output that counts as equal. Absolute for probabilities. For a regression,
            in units of the output's standard deviation (at least 1), because the rounding error of a float32 sum grows
            with its terms.
        labels: Column names of several labels; empty for one.

    Raises:
        NotConvertible: A row differs by more, or its prediction depends on the other rows of the batch, or the
            estimator fails on it or predicts NaN; the message has the row's values.
    """
    import pandas as pd

    names = [column.name for column in inputs]
    frame = pd.concat([rows.plain, rows.probes], ignore_index=True)
    descriptions = [*rows.kinds, *rows.words]
    expected = _expected(estimator, frame, rows.probes, rows.words, task)
    check_width(task, expected, labels)
    outputs = output_names(estimator, task, labels)
    _check_finite(expected, frame, descriptions, outputs)
    _check_alone(estimator, frame, expected, task, tolerance)
    answers = answer_afresh(artefact, artefact_feeds(artefact, frame, names))
    unit: Array = np.maximum(1.0, np.std(expected, axis=0)) if task == "regression" else np.ones(1)
    largest: dict[str, float] = {}
    for actual, numbers, batching in (
        (answers["whole"], np.arange(len(frame)), "in one batch"),
        (answers["mixed"], np.arange(len(frame)), "in small batches"),
        (answers["alone"], answers["alone_rows"], "one by one"),
    ):
        compared, described = frame.iloc[numbers], [descriptions[row] for row in numbers]
        _compare(actual, expected[numbers], compared, described, batching, outputs, tolerance, unit)
        largest[batching] = float(np.max(_difference(actual, expected[numbers]) / unit))
    worst = largest.pop("in one batch")
    largest |= _by_probe((_difference(answers["whole"], expected) / unit).max(axis=1), descriptions)
    return Proof(len(frame), len(rows.probes), worst, largest, "none" in answers)


def _by_probe(worst: Array, what: Sequence[str]) -> dict[str, float]:
    kinds = np.array([next((kind for kind in _KINDS if kind in word), "") for word in what])
    return {kind: float(worst[kinds == kind].max()) for kind in _KINDS if (kinds == kind).any()}


def answer_afresh(
    artefact: Artefact, feeds: Mapping[str, Array], *, whole: int = _WHOLE, mixed: int = _MIXED, limit_s: int = _LIMIT_S
) -> dict[str, Array]:
    """Score rows with a model in a fresh process; see `fresh` for the arrays' names and shapes.

    Args:
        feeds: Input -> array of shape (rows, ...).
        whole: Rows of a large batch.
        mixed: Rows of a small batch.

    Raises:
        NotConvertible: The process failed.
    """
    stored = {name: values.astype(str) if values.dtype == object else values for name, values in feeds.items()}
    with tempfile.TemporaryDirectory(prefix="mainspring-proof-") as name, disk_errors(name):
        folder = Path(name)
        (folder / artefact.name).write_bytes(artefact.content)
        if artefact.curve is not None:
            (folder / "curve.json").write_bytes(msgspec.json.encode(artefact.curve))
        if artefact.categories:
            (folder / "categories.json").write_bytes(msgspec.json.encode(artefact.categories))
        np.savez(folder / "inputs.npz", allow_pickle=False, **stored)
        _run_afresh(folder, whole, mixed, limit_s)
        with np.load(folder / "answers.npz", allow_pickle=False) as answers:
            return {each: answers[each] for each in answers.files}


def _run_afresh(folder: Path, whole: int, mixed: int, limit_s: int) -> None:
    command = [sys.executable, "-P", str(fresh.__file__), str(folder), str(whole), str(mixed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotConvertible(f"The model did not respond within {limit_s} s in a fresh process.") from error
    if done.returncode != 0:
        raise NotConvertible(f"The model does not run in a fresh process: {_said(done.stderr, done.returncode)}")


def _said(stderr: str, code: int) -> str:
    """Return the line of a traceback that names the error, without the lines that follow it."""
    lines = [line for line in stderr.splitlines() if re.match(r"[A-Za-z_][\w.]*: ", line)]
    return (lines or [f"it ended with {code}"])[-1][:400]


def _expected(estimator: Any, frame: pd.DataFrame, probes: pd.DataFrame, words: Sequence[str], task: str) -> Array:
    try:
        return estimator_scores(estimator, frame, task)
    except NotConvertible:
        raise
    except Exception as error:  # find the kind of row that it fails on
        for row, word in enumerate(words):
            if NEAR_THRESHOLD in word:
                continue
            try:
                estimator_scores(estimator, probes.iloc[[row]], task)
            except Exception as refused:
                raise NotConvertible(
                    f"The estimator fails on a row with {word}: {_first_line(refused)}",
                    fix="such rows occur in serving: put a SimpleImputer, or an encoder that ignores unknown "
                    "categories, before it.",
                ) from refused
        raise NotConvertible(f"The estimator failed on held-out rows: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_finite(expected: Array, frame: pd.DataFrame, what: Sequence[str], outputs: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(expected).all(axis=1))
    if not len(wrong):
        return
    row = int(wrong[0])
    output = int(np.flatnonzero(~np.isfinite(expected[row]))[0])
    raise NotConvertible(
        f"The estimator predicts {expected[row, output]} as {outputs[output]} for {len(wrong)} of {len(expected)} "
        f"rows, such as one {_with(what[row])}: {_values(frame, row)}.",
        fix="such rows occur in serving: replace nulls before the estimator, in a feature or in a pipeline step.",
    )


def _check_alone(estimator: Any, frame: pd.DataFrame, expected: Array, task: str, tolerance: float) -> None:
    """Raise if the estimator's own prediction for a row differs alone and in a batch, as with batch statistics."""
    for row in np.linspace(0, len(frame) - 1, _ALONE).astype(int):
        try:
            alone = estimator_scores(estimator, frame.iloc[[row]], task)
        except Exception as error:  # for example batch statistics of a single row
            raise NotConvertible(f"The estimator fails on a single row: {_first_line(error)}", fix=_OWN_ROW) from error
        if not np.allclose(alone[0], expected[row], rtol=tolerance, atol=tolerance):
            raise NotConvertible(
                "The estimator's prediction for a row depends on the rows beside it, or on chance: alone "
                f"{alone[0].tolist()}, in a batch {expected[row].tolist()}, for {_values(frame, int(row))}.",
                fix=_OWN_ROW,
            )


def _with(what: str) -> str:
    return what if what in (HELD_OUT, MADE) else f"with {what}"


def _values(frame: pd.DataFrame, row: int) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in frame.iloc[row].items())


def _compare(
    given: Array,
    expected: Array,
    frame: pd.DataFrame,
    what: Sequence[str],
    how: str,
    outputs: Sequence[str],
    tolerance: float,
    unit: Array,
) -> None:
    if given.shape != expected.shape:
        raise NotConvertible(f"The model returns {given.shape[1]} outputs, the estimator {expected.shape[1]}.")
    difference = _difference(given, expected) / unit
    by_row = difference.max(axis=1)
    wrong = int(np.sum(by_row > tolerance))
    if not wrong:
        return
    row = int(by_row.argmax())
    output = int(difference[row].argmax())
    raise NotConvertible(
        f"The bundle's predictions differ from the estimator's for {wrong} of {len(by_row)} rows ({how}). The "
        f"worst ({what[row]}): {outputs[output]} is {given[row, output]:.9g}, but {expected[row, output]:.9g} by "
        f"the estimator, for {_values(frame, row)}.",
        fix=_FAR if _far(expected) else _OTHERWISE,
    )


def _far(expected: Array) -> bool:
    return bool(np.any(np.abs(expected.mean(axis=0)) > _FAR_OFF * np.maximum(1.0, expected.std(axis=0))))


def _difference(given: Array, expected: Array) -> Array:
    difference: Array = np.abs(given - expected)
    difference[np.isnan(given) & np.isnan(expected)] = 0.0
    difference[np.isnan(difference)] = np.inf
    return difference


def _shown(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)
