"""Flavour of scikit-learn's estimators and pipelines: an ONNX model with one input per feature, by skl2onnx.

Every input has shape (rows, 1) and the feature's full name; every output has shape (rows,) and a name of
`Flavour.outputs`. Null numbers are NaN, null strings are "".
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators, imported
from mainspring.training.flavours.flavour import Artefact, framework_of
from mainspring.training.flavours.graph import constant_model, content_of, name_inputs, name_outputs
from mainspring.training.flavours.scoring import open_session
from mainspring.training.flavours.steps import (
    check_encoders,
    imputer_converter,
    ordinal_converter,
    ordinal_shape,
    parts,
    scaler_converter,
    with_empty_nulls,
)
from mainspring.training.flavours.tree_graph import newest_trees, regressor_shape, tree_converter, tree_types
from mainspring.training.frames import Array, check_feature_types

if TYPE_CHECKING:
    import pandas as pd

_OPSETS = {"": 18, "ai.onnx.ml": 3}
_DOUBLE = 11  # onnx.TensorProto.DOUBLE
_SAMPLE = 2000  # rows from which a column's scaling is estimated


class SklearnFlavour(Estimators):
    def convert(
        self, estimator: Any, inputs: Sequence[Input], task: str, wide: Collection[str], labels: Sequence[str] = ()
    ) -> Artefact:
        return Artefact("onnx", "model.onnx", to_onnx(estimator, inputs, task, wide=wide, labels=labels))

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        return split_thresholds(estimator, held_out, numeric)


def to_onnx(
    estimator: Any, inputs: Sequence[Input], task: str, *, wide: Collection[str] = (), labels: Sequence[str] = ()
) -> bytes:
    """Convert the estimator to an ONNX model.

    Args:
        estimator: Fitted on a frame from `training.frames.to_frame`, with the columns `inputs` in this order.
        wide: Names of columns whose values are not exact in float32. If there are any, all numbers are float64 inputs.
        labels: Column names of several labels, which become the output names; empty for one.

    Raises:
        NotConvertible: The estimator, or a part of it, has no exact counterpart.
        MissingExtra: skl2onnx is not installed.
    """
    skl2onnx = _import("skl2onnx")
    check_feature_types({column.name: column.dtype for column in inputs})
    outputs = FLAVOUR.outputs(estimator, task, labels)
    last = _last_step(estimator)
    _check_last(last, estimator)
    if type(last).__name__ in ("DummyClassifier", "DummyRegressor"):
        return _constant(last, inputs, task, outputs)
    _check_columns(estimator, inputs)
    check_encoders(estimator)
    types = _tensor_types(inputs, wide=bool(wide))
    options = {"zipmap": False} if task != "regression" else None
    prepared = _from_columns(with_empty_nulls(estimator), inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converters, shapes = _own(last, task)
            model = skl2onnx.convert_sklearn(
                prepared,
                initial_types=types,
                options=options,
                target_opset=_OPSETS,
                custom_conversion_functions=converters,
                custom_shape_calculators=shapes,
            )
    except NotConvertible:
        raise
    except Exception as error:  # converters raise arbitrary errors
        raise _refused(last, wide, error) from error
    answer = model.graph.output[-1]  # a classifier's outputs are (label, probabilities)
    double = task == "regression" and answer.type.tensor_type.elem_type == _DOUBLE
    name_inputs(model, [column.name for column in inputs])
    columns = [1] if task == "binary" else range(len(outputs))
    name_outputs(model, answer.name, list(columns), outputs, double=double)
    newest_trees(model)
    content = content_of(model)
    if wide:  # some operators exist in float32 only, which shows only in the runtime
        try:
            open_session(content)
        except NotConvertible as error:
            raise _refused(last, wide, error) from error
    return content


def _own(last: Any, task: str) -> tuple[dict[type, Any], dict[type, Any]]:
    """Return class -> converter, and class -> shape calculator, for classes whose skl2onnx conversion is not exact."""
    preprocessing, impute = _import("sklearn.preprocessing"), _import("sklearn.impute")
    converters = {
        preprocessing.OrdinalEncoder: ordinal_converter,
        preprocessing.StandardScaler: scaler_converter,
        preprocessing.RobustScaler: scaler_converter,
        impute.SimpleImputer: imputer_converter,
        **dict.fromkeys(tree_types(), tree_converter),
    }
    shapes = {preprocessing.OrdinalEncoder: ordinal_shape}
    if task == "regression" and type(last) in tree_types():
        shapes[type(last)] = regressor_shape
    return converters, shapes


def _check_last(last: Any, estimator: Any) -> None:
    framework = framework_of(last)
    if last is not estimator and framework not in ("sklearn", None):
        raise NotConvertible(
            f"{type(last).__name__} at the end of a {type(estimator).__name__} cannot be converted exactly: "
            f"{framework} runs its own models, but a pipeline becomes ONNX.",
            fix=f"return the {type(last).__name__} itself, and compute the earlier steps as features; CatBoost "
            "accepts texts directly.",
        )


def _check_columns(estimator: Any, inputs: Sequence[Input]) -> None:
    names = [each.name for each in inputs]
    fitted = list(getattr(estimator, "feature_names_in_", names))
    if fitted != names or getattr(estimator, "n_features_in_", len(names)) != len(names):
        raise NotConvertible(
            f"{type(estimator).__name__} was fitted on {fitted}, but the model's features are {names}.",
            fix="fit on data.train.X unchanged, and choose columns with a ColumnTransformer in a Pipeline.",
        )


def _from_columns(estimator: Any, inputs: Sequence[Input]) -> Any:
    """Return `estimator` behind a step that joins the columns into a matrix, unless its first step selects columns."""
    steps = getattr(estimator, "steps", [("estimator", estimator)])
    if type(steps[0][1]).__name__ == "ColumnTransformer":
        return estimator
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    names = [each.name for each in inputs]
    side_by_side = ColumnTransformer([("columns", "passthrough", names)])
    side_by_side.fit(pd.DataFrame(0.0, index=range(2), columns=names))
    return Pipeline([("columns", side_by_side), *steps])


def _refused(estimator: Any, wide: Collection[str], error: Exception) -> NotConvertible:
    kind, reason = type(estimator).__name__, (str(error).strip() or type(error).__name__).splitlines()[0]
    if wide:
        return NotConvertible(
            f"{kind} converts in float32 only, which cannot represent the training values of {sorted(wide)}: {reason}",
            fix="declare or cast those features as ms.Float32, subtract a constant from them, or use "
            "HistGradientBoosting, which takes them as float64.",
        )
    return NotConvertible(
        f"{kind} cannot be converted to ONNX: {reason}", fix="use an estimator that skl2onnx converts."
    )


def _import(module: str) -> Any:
    return imported(module, "Converting a scikit-learn estimator to ONNX", "sklearn")


def _tensor_types(inputs: Sequence[Input], *, wide: bool) -> list[tuple[str, Any]]:
    types = _import("skl2onnx.common.data_types")
    number = types.DoubleTensorType if wide else types.FloatTensorType
    return [
        (each.name, (types.StringTensorType if each.dtype == DType.String else number)([None, 1])) for each in inputs
    ]


def _last_step(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if steps else estimator


def _constant(estimator: Any, inputs: Sequence[Input], task: str, outputs: tuple[str, ...]) -> bytes:
    from onnx import TensorProto

    kind = type(estimator).__name__
    if task == "regression":
        values = [float(value) for value in estimator.constant_.reshape(-1)]
    elif estimator.strategy in ("stratified", "uniform"):
        raise NotConvertible(
            f"{kind}(strategy={estimator.strategy!r}) predicts at random.", fix="use strategy='prior'."
        )
    else:
        probabilities = estimator.predict_proba([[0.0]])[0]
        values = [float(value) for value in (probabilities[1:] if task == "binary" else probabilities)]
    kinds = [
        (column.name, TensorProto.STRING if column.dtype == DType.String else TensorProto.FLOAT) for column in inputs
    ]
    return content_of(constant_model(kinds, values, outputs))


def split_thresholds(estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
    """Return numeric column -> split values in the column's own unit, for the columns that trees split on."""
    thresholds: dict[str, Array] = {}
    before, last = (estimator.steps[:-1], estimator.steps[-1][1]) if hasattr(estimator, "steps") else ([], estimator)
    sample = held_out.iloc[:: max(1, len(held_out) // _SAMPLE)]
    names, matrix = _transformed(estimator, sample) if before else (list(held_out.columns), None)
    splits: dict[int, list[Array]] = defaultdict(list)
    for features, values in _splits(last, len(names)):
        for feature in np.unique(features):
            splits[int(feature)].append(values[features == feature])
    for feature, cuts in splits.items():
        column = next(
            (name for name in numeric if names[feature] == name or names[feature].endswith(f"__{name}")), None
        )
        if column is None:
            continue
        cut_values: Array = np.unique(np.concatenate(cuts))
        if matrix is not None:
            scale = _affine(sample[column].to_numpy(np.float64), matrix[:, feature])
            if scale is None:
                continue
            cut_values = (cut_values - scale[1]) / scale[0]
        thresholds[column] = cut_values
    return thresholds


def _transformed(pipeline: Any, sample: pd.DataFrame) -> tuple[list[str], Array | None]:
    """Return names and values of the last step's input; no names if a step does not provide them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = pipeline[:-1]
            names = [str(name) for name in steps.get_feature_names_out()]
            matrix = steps.transform(sample)
    except Exception:  # a step without names: the columns' quantiles are probed instead
        return [], None
    return names, np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, np.float64)


def _affine(column: Array, transformed: Array) -> tuple[float, float] | None:
    """Return (slope, offset) if `transformed` is an affine function of `column`, else `None`."""
    finite = np.isfinite(column) & np.isfinite(transformed)
    if finite.sum() < 2 or np.ptp(column[finite]) == 0:
        return None
    low, high = column[finite].argmin(), column[finite].argmax()
    x, y = column[finite], transformed[finite]
    slope = (y[high] - y[low]) / (x[high] - x[low])
    offset = y[low] - slope * x[low]
    if slope == 0 or not np.allclose(slope * x + offset, y, rtol=1e-4, atol=1e-6 * (1 + np.ptp(y))):
        return None
    return float(slope), float(offset)


def _splits(estimator: Any, width: int) -> Iterator[tuple[Array, Array]]:
    """Yield (feature index, threshold) of each tree in the parts of an estimator that take `width` columns."""
    for part in parts(estimator):
        if getattr(part, "n_features_in_", None) != width:
            continue
        for stage in getattr(part, "_predictors", ()):
            for tree in stage:
                inner = tree.nodes[tree.nodes["is_leaf"] == 0]
                yield inner["feature_idx"].astype(np.int64), inner["num_threshold"].astype(np.float64)
        members = getattr(part, "estimators_", None)
        trees = [part] if members is None else list(np.ravel(np.asarray(members, object)))
        for member in trees:
            tree = getattr(member, "tree_", None)
            if tree is not None:
                inner = tree.feature >= 0
                yield tree.feature[inner].astype(np.int64), tree.threshold[inner].astype(np.float64)


FLAVOUR = SklearnFlavour()
