"""Exact ONNX converters for preprocessing steps: skl2onnx's own are float32 only, or round differently."""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.training.flavours.nodes import Nodes


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
    nodes, found = Nodes(scope, container), _side_by_side(scope, operator, container)
    wide, robust = _wide(operator), type(scaler).__name__ == "RobustScaler"
    given = (("Sub", scaler.center_ if robust else scaler.mean_), ("Div", scaler.scale_))
    for kind, numbers in given:
        if numbers is None or (kind == "Sub" and not getattr(scaler, "with_mean", True)):
            continue
        if robust and not wide:
            found = nodes.add("Cast", [found], to=TensorProto.DOUBLE)
        constant = nodes.constant(numbers.astype(np.float64 if wide or robust else np.float32))
        found = nodes.add(kind, [found, constant])
        if robust and not wide:
            found = nodes.add("Cast", [found], to=TensorProto.FLOAT)
    nodes.add("Identity", [found], output=operator.outputs[0].full_name)


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
