"""Scores of an estimator, and of a bundle's model, in one shape: (rows, outputs)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import Invalid, NotConvertible
from mainspring.registry.model import Bundle
from mainspring.training.frames import Array, to_array, to_feeds

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_BATCH = 8192


def output_names(estimator: Any, task: str) -> tuple[str, ...]:
    """Return the names of what a model answers: `probability` (of label 1), `value`, or the classes' names.

    Raises:
        NotConvertible: The estimator does not do the task.
    """
    kind = type(estimator).__name__
    if task == "regression":
        if hasattr(estimator, "classes_"):
            raise NotConvertible(f"{kind} is a classifier; the task is regression.", fix="return a regressor.")
        return ("value",)
    if not hasattr(estimator, "predict_proba"):
        raise NotConvertible(
            f"{kind} has no predict_proba, which the task {task!r} needs.", fix="use an estimator with probabilities."
        )
    classes = [_plain(value) for value in estimator.classes_]
    if task == "binary":
        if classes != [0, 1]:
            raise NotConvertible(f"{kind} was fitted on the labels {classes}, not on 0 and 1.")
        return ("probability",)
    return tuple(str(value) for value in classes)


def estimator_scores(estimator: Any, frame: pd.DataFrame, task: str) -> Array:
    """Return float64 of shape (rows, outputs): probabilities, or predictions of a regression."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of categories it was told to ignore
        if task == "regression":
            return np.asarray(estimator.predict(frame), np.float64).reshape(len(frame), -1)
        found = np.asarray(estimator.predict_proba(frame), np.float64)
    return found[:, 1:2] if task == "binary" else found


def open_session(content: bytes) -> Any:
    """Return an ONNX Runtime session of one thread, so that its answers repeat bit for bit, and without spinning.

    Raises:
        NotConvertible: The runtime cannot run the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common base
        raise NotConvertible(f"ONNX Runtime cannot run the model: {str(error).splitlines()[0]}") from error


def graph_inputs(session: Any) -> list[tuple[str, str]]:
    """Return (name, ONNX type) of each input of a session."""
    return [(each.name, each.type) for each in session.get_inputs()]


def session_scores(session: Any, frame: pd.DataFrame | Mapping[str, Array], outputs: Sequence[str], rows: int) -> Array:
    """Return float64 of shape (rows, outputs)."""
    feeds = to_feeds(frame, graph_inputs(session))
    found = np.empty((rows, len(outputs)))
    for start in range(0, rows, _BATCH):
        part = {name: values[start : start + _BATCH] for name, values in feeds.items()}
        for position, values in enumerate(session.run(list(outputs), part)):
            found[start : start + _BATCH, position] = np.asarray(values).reshape(-1)
    return found


def score_bundle(bundle: Bundle, table: pa.Table) -> Array:
    """Return a bundle's answers for the rows of `table`, which has its inputs as columns.

    Shape (rows,), float64, for a model of one output (binary, regression); (rows, outputs) for several.

    Raises:
        Invalid: The table lacks an input.
    """
    inputs = bundle.manifest.inputs
    missing = [each.name for each in inputs if each.name not in table.column_names]
    if missing:
        raise Invalid(f"The rows lack the inputs {missing} of bundle {bundle.digest[:12]}.")
    columns = {each.name: to_array(table.column(each.name), each.dtype) for each in inputs}
    session = open_session(bundle.files["model.onnx"])
    found = session_scores(session, columns, bundle.manifest.outputs, table.num_rows)
    return found[:, 0] if found.shape[1] == 1 else found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
