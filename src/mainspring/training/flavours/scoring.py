"""Predictions of a bundle's model, in the shape of an estimator's: (rows, outputs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, MissingExtra, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.flavours import FLAVOURS
from mainspring.registry.model import Bundle
from mainspring.registry.providers import options_of, provider_of
from mainspring.training.flavours import Artefact, fresh
from mainspring.training.frames import Array, to_array, to_columns, to_feeds

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_BATCH = 8192


def open_session(content: bytes) -> Any:
    """Return an ONNX Runtime session with one thread, so that outputs are reproducible bit for bit, without spinning.

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
        raise NotConvertible(f"ONNX Runtime cannot run the model: {_first(error)}") from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def graph_inputs(session: Any) -> list[tuple[str, str]]:
    """Return (name, ONNX type) of each input of a session."""
    return [(each.name, each.type) for each in session.get_inputs()]


def session_scores(session: Any, frame: pd.DataFrame | Mapping[str, Array], outputs: Sequence[str], rows: int) -> Array:
    """Return a session's outputs, float64 of shape (rows, outputs)."""
    feeds = to_feeds(frame, graph_inputs(session))
    found = np.empty((rows, len(outputs)))
    for start in range(0, rows, _BATCH):
        part = {name: values[start : start + _BATCH] for name, values in feeds.items()}
        for position, values in enumerate(session.run(list(outputs), part)):
            found[start : start + _BATCH, position] = np.asarray(values).reshape(-1)
    return found


def artefact_scores(artefact: Artefact, frame: pd.DataFrame | Mapping[str, Array], names: Sequence[str]) -> Array:
    """Return a model's predictions, float64 of shape (rows, outputs).

    A model that was made for an execution provider of ONNX Runtime is run by it where it is here; else by the
    processor, whose answers are near.

    Args:
        frame: The columns by name, as from `training.frames.to_frame`.
        names: The model's input columns, in its order.

    Raises:
        NotConvertible: The provider cannot run the model.
    """
    curve = None if artefact.curve is None else msgspec.to_builtins(artefact.curve)
    answer = _loaded(artefact, curve)
    feeds = artefact_feeds(artefact, frame, names)
    return fresh.in_parts(answer, feeds, np.arange(len(next(iter(feeds.values())))), _BATCH)


def _loaded(artefact: Artefact, curve: dict[str, Any] | None) -> fresh.Answer:
    if artefact.provider:
        import onnxruntime as ort

        if artefact.provider in ort.get_available_providers():
            provider = artefact.provider, options_of(artefact.provider)
            try:
                return fresh.load(artefact.name, artefact.content, curve, artefact.categories, provider)
            except Exception as error:  # the runtime's errors have no common base
                raise NotConvertible(f"{artefact.provider} cannot run the model: {_first(error)}") from error
    return fresh.load(artefact.name, artefact.content, curve, artefact.categories)


def artefact_feeds(
    artefact: Artefact, frame: pd.DataFrame | Mapping[str, Array], names: Sequence[str]
) -> dict[str, Array]:
    """Return a model's inputs: name -> array of shape (rows, 1), in the model's order.

    Raises:
        NotConvertible: The runtime cannot run the model.
    """
    if artefact.native:
        return to_columns(frame, names)
    return to_feeds(frame, graph_inputs(open_session(artefact.content)))


def score_bundle(bundle: Bundle, table: pa.Table) -> Array:
    """Return a bundle's predictions for the rows of `table`, which has the bundle's inputs as columns.

    Shape (rows,), float64, for a model with one output (binary, regression); (rows, outputs) for several.

    Raises:
        Invalid: The table lacks an input.
        MissingExtra: The runtime of the bundle's flavour is not installed.
    """
    inputs = bundle.manifest.inputs
    missing = [column.name for column in inputs if column.name not in table.column_names]
    if missing:
        raise Invalid(f"The rows lack the inputs {missing} of bundle {bundle.digest[:12]}.")
    columns = {column.name: to_array(table.column(column.name), column.dtype) for column in inputs}
    flavour = bundle.manifest.flavour
    name = next(name for name in FLAVOURS[flavour].files if name in bundle.files)
    categories = {column.name: column.categories for column in inputs if column.dtype == DType.String}
    provider = provider_of(bundle.manifest)
    artefact = Artefact(flavour, name, bundle.files[name], bundle.manifest.curve, categories, provider)
    try:
        scores = artefact_scores(artefact, columns, list(columns))
    except ModuleNotFoundError as error:
        raise MissingExtra(f"The {flavour} model of bundle {bundle.digest[:12]}", flavour) from error
    return scores[:, 0] if scores.shape[1] == 1 else scores


def check_width(task: str, scores: Array, columns: Sequence[str]) -> None:
    """Raise if a regression's number of outputs differs from the model's number of labels.

    Args:
        scores: Shape (rows, outputs).
        columns: Column names of several labels; empty for one.

    Raises:
        NotConvertible: The numbers differ.
    """
    labels, width = max(1, len(columns)), scores.shape[1]
    if task == "regression" and width != labels:
        raise NotConvertible(
            f"The estimator returns {width} {'value' if width == 1 else 'values'} per row, but the model has "
            f"{labels} {'label' if labels == 1 else 'labels'}{': ' if columns else ''}{', '.join(columns)}.",
            fix="fit it on data.train.y unchanged, and return one value per label, in this order.",
        )
