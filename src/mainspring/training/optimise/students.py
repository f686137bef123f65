"""Distillation of any model into boosted trees: they are fitted to its predictions, not to labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import MissingExtra, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours import convert_estimator
from mainspring.training.frames import Array
from mainspring.training.optimise.onnx_models import read

if TYPE_CHECKING:
    import pandas as pd

_LEAST = 1e-4  # distance of a probability from 0 and from 1, so that its log odds stay learnable
_LEAVES, _RATE = 31, 0.2


def tree_student(
    frame: pd.DataFrame,
    predictions: Array,
    inputs: Sequence[Input],
    outputs: Sequence[str],
    task: str,
    *,
    trees: int,
    wide: Collection[str] = (),
    double: bool = False,
    seed: int = 0,
) -> bytes:
    """Return boosted trees as ONNX that predict what a model does.

    Args:
        frame: Rows that the model was trained on; null numbers are NaN, null texts `None`.
        predictions: The model's, shape (rows,).
        outputs: Names of its outputs.
        trees: The largest number of trees.
        wide: Columns with values that are not exact in float32.
        double: Whether it answers in float64, as the model does.

    Raises:
        NotConvertible: The model has several outputs, or there are no rows, or it predicts NaN or infinity for one.
        MissingExtra: scikit-learn is not installed.
    """
    if task not in ("binary", "regression") or len(outputs) != 1:
        raise NotConvertible(f"A student of trees has one output, and the model has {len(outputs)}.")
    odd = int((~np.isfinite(predictions)).sum())
    if odd or not len(predictions):
        raise NotConvertible(
            f"A student learns what the model predicts for its training rows; of {len(predictions):,} predictions "
            f"{odd:,} are not finite."
        )
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ModuleNotFoundError as error:
        raise MissingExtra("A student of trees", "sklearn") from error
    known = np.clip(predictions, _LEAST, 1 - _LEAST)
    wanted = np.log(known / (1 - known)) if task == "binary" else predictions
    student: Any = HistGradientBoostingRegressor(
        max_iter=trees, max_leaf_nodes=_LEAVES, learning_rate=_RATE, early_stopping=False, random_state=seed
    )
    texts = [each.name for each in inputs if each.dtype == DType.String]
    if texts:
        student = _with_texts(student, texts)
    artefact = convert_estimator(student.fit(frame, wanted), inputs, "regression", wide=wide)
    return _answering(artefact.content, outputs[0], link="Sigmoid" if task == "binary" else "Identity", double=double)


def _with_texts(student: Any, texts: Sequence[str]) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(make_column_transformer((encoder, list(texts)), remainder="passthrough"), student)


def _answering(content: bytes, name: str, *, link: str, double: bool) -> bytes:
    """Return the model with a link function on its answer, under its name and in its type."""
    from onnx import TensorProto, helper

    model = read(content, "A student of trees")
    graph, kind = model.graph, TensorProto.DOUBLE if double else TensorProto.FLOAT
    (answer,) = (each.name for each in graph.output)
    last = next(node for node in graph.node if answer in node.output)
    last.output[list(last.output).index(answer)] = "__learnt"
    graph.node.append(helper.make_node(link, ["__learnt"], ["__linked"]))
    graph.node.append(helper.make_node("Cast", ["__linked"], [name], to=kind))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, kind, [None]))
    made: bytes = model.SerializeToString()
    return made
