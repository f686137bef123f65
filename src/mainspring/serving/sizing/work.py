"""Work of an ONNX graph for a row: operations of its products, bytes that its other operators move, and its nodes.

Shapes are those that ONNX infers for one row. Products that a runtime fuses from scales (QDQ) count as those of 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from mainspring.core.errors import MissingExtra

FP32, INT8 = "fp32", "int8"
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "QLinearMatMul", "MatMulInteger", "QGemm", "ConvInteger"})
_EIGHT_BITS = (2, 3)  # UINT8, INT8 of onnx.TensorProto
_UNMEASURED = (10, 11, 16)  # FLOAT16, DOUBLE, BFLOAT16: no rates of their products are measured
_WHOLE = frozenset({"QLinearMatMul", "MatMulInteger", "ConvInteger"})
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # of a value, by type
_FREE = frozenset({
    "Constant", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze", "Flatten", "Cast",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Product:
    """A product of `rows` rows for each row of a request, of length `inner`, with a matrix of `outer` columns."""

    kind: str  # FP32 or INT8
    rows: int
    inner: int
    outer: int
    constant: bool = True  # whether the matrix is a weight
    operator: str = "MatMul"

    @property
    def operations(self) -> int:
        """Multiplications and additions of a row."""
        return 2 * self.rows * self.inner * self.outer


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one row.

    Attributes:
        moved: Bytes that operators beside the products read and write.
        nodes: Operators that are run, whatever the rows.
        other: Operators whose work is unknown: name -> number. Trees are among them.
    """

    products: tuple[Product, ...] = ()
    moved: int = 0
    nodes: int = 0
    other: Mapping[str, int] = field(default_factory=dict)

    @property
    def operations(self) -> int:
        return sum(each.operations for each in self.products)

    @property
    def known(self) -> bool:
        """Whether a roofline of it means something: it has products, and nothing unknown."""
        return bool(self.products) and not self.other

    @property
    def not_in_int8(self) -> str:
        """Why its time in 8 bits cannot be predicted; empty if it can."""
        if not self.products:
            return "the model has no products of matrices"
        if any(each.kind == INT8 for each in self.products):
            return "the model has products of 8 bits already"
        if not all(each.constant for each in self.products):
            return "the model has products of activations, as attention has, which the runtime fuses or does not"
        if not all(each.operator in ("MatMul", "Gemm") for each in self.products):
            return "the model has convolutions, whose layout the runtime chooses by their neighbours"
        return ""


def work_of(content: bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Work:
    """Return the work of a row of a model's file.

    Args:
        shapes: Of inputs of one row, where the file leaves more than the batch free, such as the length of a text.

    Raises:
        MissingExtra: `onnx` is not installed.
    """
    try:
        import onnx
        from onnx import shape_inference
    except ModuleNotFoundError as error:
        raise MissingExtra("Counting a model's work", "sklearn") from error
    model = onnx.load_model_from_string(content)
    for value in model.graph.input:
        for place, each in enumerate(value.type.tensor_type.shape.dim):
            known_shape = (shapes or {}).get(value.name, ())
            if not each.dim_value:
                each.dim_value = known_shape[place] if 0 < place < len(known_shape) else 1
    del model.graph.value_info[:]
    for value in model.graph.output:  # its free dimensions follow
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    known: dict[str, list[int]] = {}
    kinds: dict[str, int] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        known[value.name] = [each.dim_value or 1 for each in tensor.shape.dim]
        kinds[value.name] = tensor.elem_type
    constants = {each.name: list(each.dims) for each in graph.initializer}
    kinds |= {each.name: each.data_type for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for each in node.attribute:
                if each.name == "value":
                    constants[node.output[0]], kinds[node.output[0]] = list(each.t.dims), each.t.data_type
    return _counted(graph.node, known | constants, kinds, set(constants))


def _counted(nodes: Any, shapes: dict[str, list[int]], kinds: dict[str, int], constants: set[str]) -> Work:
    eight = {
        node.output[0]
        for node in nodes
        if node.op_type == "DequantizeLinear" and kinds.get(node.input[0]) in _EIGHT_BITS
    }
    folded = constants | {
        node.output[0] for node in nodes if node.input and all(not each or each in constants for each in node.input)
    }
    fused = {each for node in nodes if node.op_type in _PRODUCTS for each in node.input if each in eight}
    products, moved, count, other = [], 0, 0, dict[str, int]()
    for node in nodes:
        if node.op_type in _FREE or node.output[0] in folded or node.output[0] in fused:
            continue
        count += 1
        of = kinds.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in _PRODUCTS and of not in _UNMEASURED:
            products.append(_product(node, shapes, eight, folded))
        elif node.domain == "ai.onnx.ml" or node.op_type in {"Loop", "Scan", "If"} | _PRODUCTS:
            other[node.op_type] = other.get(node.op_type, 0) + 1
        else:
            read = sum(_size(name, shapes, kinds) for name in node.input if name not in folded)
            moved += read + sum(_size(name, shapes, kinds) for name in node.output)
    return Work(tuple(products), moved, count, other)


def _product(node: Any, shapes: Mapping[str, list[int]], eight: set[str], constants: set[str]) -> Product:
    kind = INT8 if node.op_type in _WHOLE or set(node.input[:2]) <= eight else FP32
    weights = node.input[3] if node.op_type == "QLinearMatMul" else node.input[1]
    constant = weights in constants
    made, matrix = shapes.get(node.output[0], [1]), shapes.get(weights, [1])
    if node.op_type.startswith("Conv"):  # (outputs, inputs / groups, height, width)
        return Product(kind, prod(made[2:]), prod(matrix[1:]), matrix[0], constant, node.op_type)
    turned = node.op_type == "Gemm" and any(each.name == "transB" and each.i for each in node.attribute)
    inner, outer = matrix[-2:] if len(matrix) > 1 else (matrix[0], 1)
    if turned:
        inner, outer = outer, inner
    return Product(kind, max(1, prod(made) // max(1, outer)), inner, outer, constant, node.op_type)


def _size(name: str, shapes: Mapping[str, list[int]], kinds: Mapping[str, int]) -> int:
    return prod(shapes.get(name, [1])) * _BYTES.get(kinds.get(name, 1), 4)
