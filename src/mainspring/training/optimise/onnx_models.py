"""Reading and writing of ONNX models that variants are made of: constants, products of matrices, standard operators."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.errors import MissingExtra, NotConvertible
from mainspring.registry.onnx_file import OPERATOR_DOMAINS, check_onnx

PRODUCTS = ("MatMul", "Gemm", "Conv")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Product:
    """A product of rows and a constant matrix.

    Attributes:
        node: A MatMul or a Gemm of the graph.
        weights: Shape (inputs, outputs), float32.
        bias: Name of the bias of a Gemm, or empty.
    """

    node: Any
    weights: Array
    bias: str


def read(content: bytes, action: str) -> Any:
    """Return a model.

    Raises:
        MissingExtra: `onnx` is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtra(action, "sklearn") from error
    return onnx.load_model_from_string(content)


def written(model: Any) -> bytes:
    """Return a model's file, which has standard operators alone.

    Raises:
        Corrupt: It has others.
    """
    used = {node.domain for node in model.graph.node}
    for each in [each for each in model.opset_import if each.domain not in used | OPERATOR_DOMAINS]:
        model.opset_import.remove(each)
    content: bytes = model.SerializeToString()
    check_onnx(content)
    return content


def version_of(model: Any) -> int:
    """Return the version of the standard operators."""
    return max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)


def expect_products(model: Any) -> None:
    """Raise if a model has nothing that 8 bits make smaller, or is quantised.

    Raises:
        NotConvertible: The message says which.
    """
    kinds = [node.op_type for node in model.graph.node]
    quantised = [kind for kind in kinds if kind in ("DequantizeLinear", "MatMulInteger", "QLinearMatMul")]
    if quantised:
        raise NotConvertible(f"The model is quantised already: it has {len(quantised)} {quantised[0]}.")
    if not any(kind in PRODUCTS for kind in kinds):
        raise NotConvertible("The model has no products of matrices, which is what INT8 makes smaller and faster.")


def products_of(model: Any, least: int) -> list[Product]:
    """Return the products with a constant float32 matrix of at least `least` inputs, in the order of the graph."""
    from onnx import numpy_helper

    constants = {each.name: each for each in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        options = {each.name: (each.f if each.type == each.FLOAT else each.i) for each in node.attribute}
        weights = numpy_helper.to_array(constants[node.input[1]])
        plain = options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0 and not options.get("transA")
        if weights.ndim != 2 or weights.dtype != np.float32 or not plain:
            continue
        weights = weights.T if options.get("transB") else weights
        if weights.shape[0] >= least:
            found.append(Product(node, weights, node.input[2] if len(node.input) > 2 else ""))
    return found


_LEAST_KEPT = 256  # numbers of a constant that is worth a word
_NAMED = 3


def not_quantised(content: bytes) -> str:
    """Return which operators of a quantised model stay in floating point, and why, for people; empty if none does.

    Named are those with weights, and products of two matrices that are both computed.
    """
    from onnx import TensorProto

    graph = read(content, "Quantisation").graph
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
    matrices = [each for each in graph.initializer if len(each.dims) > 2 or (len(each.dims) == 2 and each.dims[1] > 1)]
    constants = [each for each in matrices if each.data_type in floats]
    weights = {each.name: math.prod(each.dims) for each in constants}
    restored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    large, computed = [], []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" or restored & set(node.input):
            continue
        size = max((weights.get(name, 0) for name in node.input), default=0)
        said = f"{node.op_type} {node.name or node.output[0]!r}"
        if size >= _LEAST_KEPT:
            large.append(f"{said} ({size:,} weights)")
        elif node.op_type in PRODUCTS and not any(name in weights for name in node.input):
            computed.append(said)
    parts = []
    if large:
        parts.append(f"{_listed(large)} {'stays' if len(large) == 1 else 'stay'} in floating point")
    if computed:
        parts.append(f"{_listed(computed)} {'multiplies' if len(computed) == 1 else 'multiply'} computed matrices")
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def without_unused(model: Any) -> None:
    """Remove the constants that no node reads any more."""
    read_names = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    for each in [each for each in model.graph.initializer if each.name not in read_names]:
        model.graph.initializer.remove(each)


def folded(content: bytes) -> bytes:
    """Return the model as ONNX Runtime's basic level leaves it: constants folded, what has no effect removed.

    Its further levels join operators into ones of the runtime's own, which no bundle may hold: they are applied where
    the model is loaded.

    Raises:
        NotConvertible: The runtime cannot run the model.
        Corrupt: The result has operators that are not standard.
    """
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="mainspring-graph-") as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        options.log_severity_level = 4
        try:
            ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common base
            raise NotConvertible(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
        return written(read(Path(options.optimized_model_filepath).read_bytes(), "An optimised graph"))


def rows_at_once(rows: Mapping[str, Array], at_once: int) -> Iterator[dict[str, Array]]:
    """Yield rows in parts."""
    for start in range(0, len(next(iter(rows.values()))), at_once):
        yield {name: values[start : start + at_once] for name, values in rows.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the hints that the library logs about models that were not preprocessed."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    """Return the first line of an error of a library."""
    return f"{(str(error).strip().splitlines() or [type(error).__name__])[0]:.300}"
