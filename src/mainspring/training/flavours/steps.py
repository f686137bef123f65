"""Exact ONNX converters of preprocessing steps: encoders with nulls and unseen categories, imputers, scalers.

A null string is "" in a bundle, but `None` for the estimator. So an encoder with `None` (or NaN) among its categories
is converted from a copy with "" instead. skl2onnx's own conversion of OrdinalEncoder loses `encoded_missing_value` for
strings and an `unknown_value` of 0; those of imputers and scalers are float32 only, or round differently.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.training.flavours.graph import Nodes

_UNSEEN = {"OneHotEncoder": "ignore", "OrdinalEncoder": "use_encoded_value"}


def parts(estimator: Any) -> Iterator[Any]:
    """Yield `estimator` and every estimator nested in it: steps, transformers, members."""
    yield estimator
    for value in vars(estimator).values() if hasattr(estimator, "__dict__") else ():
        yield from _inside(value)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _inside(item)
    elif isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 2:  # GradientBoosting's trees
        return
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield from parts(value)


def check_encoders(estimator: Any) -> None:
    """Raise if a part cannot handle every category that a request may contain.

    Raises:
        NotConvertible: An encoder raises on an unseen category, or a HistGradientBoosting splits on categories itself,
            which no converter reproduces.
    """
    for part in parts(estimator):
        kind = type(part).__name__
        wanted = _UNSEEN.get(kind)
        if wanted is not None and part.handle_unknown != wanted and _strings(part):
            raise NotConvertible(
                f"{kind}(handle_unknown={part.handle_unknown!r}) fails on a category that training did not see.",
                fix=f"give it handle_unknown={wanted!r}" + (", unknown_value=-1." if kind == "OrdinalEncoder" else "."),
            )
        categorical = getattr(part, "is_categorical_", None)
        if kind.startswith("HistGradientBoosting") and categorical is not None and np.any(categorical):
            raise NotConvertible(
                f"{kind} with categorical_features={getattr(part, 'categorical_features', None)!r} does not "
                "convert exactly: ONNX does not support its splits on categories.",
                fix="encode the categories with OneHotEncoder or OrdinalEncoder, and leave categorical_features out.",
            )


def with_empty_nulls(estimator: Any) -> Any:
    """Return `estimator`, or a copy whose encoders have "" in place of a null category.

    Raises:
        NotConvertible: An encoder has both as categories, which a bundle cannot distinguish.
    """
    if not any(_keeps_null(part) for part in parts(estimator)):
        return estimator
    copied = copy.deepcopy(estimator)
    for part in parts(copied):
        if _keeps_null(part):
            part.categories_ = [_emptied(categories) for categories in part.categories_]
    return copied


def _strings(encoder: Any) -> bool:
    return any(categories.dtype == object for categories in getattr(encoder, "categories_", []))


def _keeps_null(part: Any) -> bool:
    return type(part).__name__ == "OneHotEncoder" and any(
        categories.dtype == object and any(_is_null(value) for value in categories)
        for categories in getattr(part, "categories_", [])
    )


def _emptied(categories: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if categories.dtype != object:
        return categories
    emptied = np.array(["" if _is_null(value) else value for value in categories], object)
    if len(set(emptied)) < len(emptied):
        raise NotConvertible("A column has both null and '' (or None and NaN) among its categories.", fix="keep one.")
    return emptied


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def ordinal_shape(operator: Any) -> None:
    """Shape calculator of OrdinalEncoder for skl2onnx: one float per column."""
    from skl2onnx.common.data_types import FloatTensorType

    first = operator.inputs[0].type.shape[0]
    operator.outputs[0].type = FloatTensorType([first, len(operator.raw_operator.categories_)])


def ordinal_converter(scope: Any, operator: Any, container: Any) -> None:
    """Converter of OrdinalEncoder for skl2onnx: one look-up table per column, filled by calling the encoder."""
    from skl2onnx.common.data_types import StringTensorType
    from skl2onnx.proto import onnx_proto

    encoder = operator.raw_operator
    columns = [(source, position) for source in operator.inputs for position in range(source.type.shape[1])]
    encoded = []
    for number, (variable, position) in enumerate(columns):
        strings = isinstance(variable.type, StringTensorType)
        keys, values, otherwise = _table(encoder, number, strings=strings)
        index, column, looked_up = (
            scope.get_unique_variable_name(name) for name in ("ordinal_index", "ordinal_column", "ordinal_value")
        )
        container.add_initializer(index, onnx_proto.TensorProto.INT64, [1], [position])
        container.add_node("Gather", [variable.onnx_name, index], column, axis=1)
        if not strings:
            cast = scope.get_unique_variable_name("ordinal_float")
            container.add_node("Cast", column, cast, to=onnx_proto.TensorProto.FLOAT)
            column = cast
        container.add_node(
            "LabelEncoder",
            column,
            looked_up,
            op_domain="ai.onnx.ml",
            op_version=2,
            values_floats=values,
            default_float=otherwise,
            **{"keys_strings" if strings else "keys_floats": keys},
        )
        encoded.append(looked_up)
    container.add_node("Concat", encoded, operator.outputs[0].full_name, axis=1)


def _table(encoder: Any, column: int, *, strings: bool) -> tuple[list[Any], list[float], float]:
    """Return the keys of one column's look-up table, their values, and the default value."""
    import pandas as pd

    categories = encoder.categories_[column]
    rows = np.empty((len(categories), len(encoder.categories_)), object)
    for other, known in enumerate(encoder.categories_):
        rows[:, other] = known[0]
    rows[:, column] = categories
    given: Any = rows
    if hasattr(encoder, "feature_names_in_"):
        given = pd.DataFrame(rows, columns=encoder.feature_names_in_, dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = np.asarray(encoder.transform(given), np.float64)[:, column]
    answers = encoder.handle_unknown == "use_encoded_value"  # otherwise the column is numeric: see check_encoders
    otherwise = float(encoder.unknown_value) if answers else float("nan")
    if not strings:
        return [float(value) for value in categories], [float(value) for value in values], otherwise
    keys = ["" if _is_null(value) else str(value) for value in categories]
    if len(set(keys)) < len(keys):
        raise NotConvertible("A column has both null and '' (or None and NaN) among its categories.", fix="keep one.")
    return [key.encode() for key in keys], [float(value) for value in values], otherwise


def imputer_converter(scope: Any, operator: Any, container: Any) -> None:
    """Converter of SimpleImputer for skl2onnx; float64 columns use IsNaN and Where, as ONNX's Imputer is float32
    only.
    """
    from skl2onnx.operator_converters.imputer_op import convert_sklearn_imputer

    if not (_wide(operator) and _fills_nan_with_numbers(operator.raw_operator)):
        convert_sklearn_imputer(scope, operator, container)
        return
    nodes = Nodes(scope, container)
    given = _side_by_side(scope, operator, container)
    filling = nodes.constant(operator.raw_operator.statistics_.astype(np.float64))
    nodes.add("Where", [nodes.add("IsNaN", [given]), filling, given], output=operator.outputs[0].full_name)


def scaler_converter(scope: Any, operator: Any, container: Any) -> None:
    """Converter of StandardScaler and RobustScaler for skl2onnx.

    Both subtract and divide, where skl2onnx multiplies. On float32 columns, StandardScaler's parameters are float32
    too; RobustScaler's are float64, and each step's result is rounded.
    """
    from onnx import TensorProto

    scaler = operator.raw_operator
    nodes, scaled = Nodes(scope, container), _side_by_side(scope, operator, container)
    wide, robust = _wide(operator), type(scaler).__name__ == "RobustScaler"
    operations = (("Sub", scaler.center_ if robust else scaler.mean_), ("Div", scaler.scale_))
    for kind, numbers in operations:
        if numbers is None or (kind == "Sub" and not getattr(scaler, "with_mean", True)):
            continue
        if robust and not wide:
            scaled = nodes.add("Cast", [scaled], to=TensorProto.DOUBLE)
        constant = nodes.constant(numbers.astype(np.float64 if wide or robust else np.float32))
        scaled = nodes.add(kind, [scaled, constant])
        if robust and not wide:
            scaled = nodes.add("Cast", [scaled], to=TensorProto.FLOAT)
    nodes.add("Identity", [scaled], output=operator.outputs[0].full_name)


def _side_by_side(scope: Any, operator: Any, container: Any) -> str:
    from skl2onnx.operator_converters.common import concatenate_variables

    name: str = concatenate_variables(scope, operator.inputs, container)
    return name


def _wide(operator: Any) -> bool:
    from skl2onnx.common.data_types import DoubleTensorType

    return any(isinstance(each.type, DoubleTensorType) for each in operator.inputs)


def _fills_nan_with_numbers(imputer: Any) -> bool:
    nan = isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)
    numbers = imputer.statistics_.dtype.kind == "f" and np.isfinite(imputer.statistics_).all()
    return bool(nan and numbers and not imputer.add_indicator)
