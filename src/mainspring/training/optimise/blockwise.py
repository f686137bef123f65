"""Weights of 8 or 4 bits, in blocks of 32 with a scale each, as standard ONNX says them: DequantizeLinear and MatMul.
Tables of embeddings have 8 bits, with a scale for each row.

ONNX Runtime joins the two into one operator, which quantises what it multiplies to 8 bits as it comes: each row by
scales of its own, so that a row's answer does not depend on its batch. Other runtimes restore the weights first.
The join needs the product alone before its bias, so a bias is written as a subtraction: added, ONNX Runtime would make
it a Gemm, whose weights it restores at every call (14 to 50 times slower for one row, measured).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.training.optimise.onnx_models import (
    Array,
    Product,
    expect_products,
    first_line,
    folded,
    products_of,
    read,
    version_of,
    without_unused,
    written,
)

BLOCK = 32
_TABLE = 256  # rows of a table of embeddings from which it is worth quantising
_IN_BLOCKS = 21  # version of the operators from which DequantizeLinear takes blocks and 4 bits


def in_blocks(content: bytes, bits: int) -> bytes:
    """Return the model with the matrices of its products in 8 or 4 bits.

    Raises:
        NotConvertible: It has no product of at least 32 inputs with a constant matrix, or an operator that cannot be
            raised to a version of ONNX that has blocks; the message names it.
        MissingExtra: `onnx` is not installed.
    """
    expect_products(read(content, "Quantisation"))
    model = _raised(read(folded(content), "Quantisation"))
    products = products_of(model, BLOCK)
    nodes = _tables_small(model)
    if not products and len(nodes) == len(model.graph.node):
        raise NotConvertible(f"No product of the model has a constant FP32 matrix of {BLOCK} or more inputs.")
    by_output = {each.node.output[0]: each for each in products}
    quantised = []
    for node in nodes:
        known = by_output.get(node.output[0]) if len(node.output) else None
        quantised += [node] if known is None else _in_blocks(model, known, bits)
    nodes = _bias_apart(model, quantised, set(by_output))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    without_unused(model)
    return written(model)


def _raised(model: Any) -> Any:
    if version_of(model) >= _IN_BLOCKS:
        return model
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, _IN_BLOCKS)
    except Exception as error:  # the converter's errors have no common base
        raise NotConvertible(
            f"The model cannot be raised from version {version_of(model)} of ONNX's operators to {_IN_BLOCKS}, which "
            f"has weights in blocks: {first_line(error)}"
        ) from error


def _tables_small(model: Any) -> list[Any]:
    """Return the nodes with tables of embeddings in 8 bits, each of whose rows has a scale of its own."""
    from onnx import TensorProto, helper, numpy_helper

    constants, nodes = {each.name: each for each in model.graph.initializer}, []
    for node in model.graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Gather" and len(node.input) == 2 else None
        rows = table.dims[0] if table is not None and len(table.dims) == 2 else 0
        along = next((each.i for each in node.attribute if each.name == "axis"), 0)
        if table is None or rows < _TABLE or along != 0 or table.data_type != TensorProto.FLOAT:
            nodes.append(node)
            continue
        values, name = numpy_helper.to_array(table), node.output[0]
        scales = np.abs(values).max(axis=1, keepdims=True) / 127
        scales[scales == 0] = 1.0
        whole = np.rint(values / scales).astype(np.int8)
        made = {f"{name}__table": whole, f"{name}__table_scales": scales.astype(np.float32)}
        model.graph.initializer.extend(numpy_helper.from_array(each, key) for key, each in made.items())
        looked_up = [f"{key}_of_row" for key in made]
        nodes += [
            helper.make_node("Gather", [key, node.input[1]], [output], axis=0)
            for key, output in zip(made, looked_up, strict=True)
        ]
        nodes.append(helper.make_node("Cast", looked_up[:1], [f"{name}__whole"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}__whole", looked_up[1]], [name]))
    return nodes


def _in_blocks(model: Any, product: Product, bits: int) -> list[Any]:
    from onnx import TensorProto, helper, numpy_helper

    name = f"{product.node.output[0]}__weights"
    whole, scales = _quantised(product.weights, bits)
    if bits == 8:
        constant = numpy_helper.from_array(whole, f"{name}_{bits}")
    else:
        constant = helper.make_tensor(f"{name}_{bits}", TensorProto.INT4, whole.shape, _nibbles(whole), raw=True)
    model.graph.initializer.extend([constant, numpy_helper.from_array(scales, f"{name}_scales")])
    restore = helper.make_node(
        "DequantizeLinear", [f"{name}_{bits}", f"{name}_scales"], [name], axis=0, block_size=BLOCK
    )
    answer = product.node.output[0]
    made = f"{answer}__product" if product.bias else answer
    multiply = helper.make_node("MatMul", [product.node.input[0], name], [made])
    add = [helper.make_node("Add", [made, product.bias], [answer])] if product.bias else []
    return [restore, multiply, *add]


def _quantised(weights: Array, bits: int) -> tuple[Array, Array]:
    """Return whole numbers, shape (inputs, outputs), and scales, shape (blocks, outputs)."""
    inputs, outputs = weights.shape
    blocks, top = -(-inputs // BLOCK), 2 ** (bits - 1) - 1
    padded = np.zeros((blocks * BLOCK, outputs), np.float32)
    padded[:inputs] = weights
    parts = padded.reshape(blocks, BLOCK, outputs)
    scales = np.abs(parts).max(axis=1) / top
    scales[scales == 0] = 1.0
    whole = np.clip(np.rint(parts / scales[:, None]), -top, top).astype(np.int8)
    return whole.reshape(blocks * BLOCK, outputs)[:inputs], scales.astype(np.float32)


def _nibbles(whole: Array) -> bytes:
    """Return two numbers of 4 bits to a byte, the first in the lower half."""
    flat = np.append(whole.ravel(), np.zeros(whole.size % 2, np.int8)).view(np.uint8) & 15
    return bytes(flat[::2] | (flat[1::2] << 4))


def _bias_apart(model: Any, nodes: list[Any], answers: set[str]) -> list[Any]:
    """Return the nodes with each constant bias of a product subtracted instead of added: the same bits."""
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in model.graph.initializer}
    answers = answers | {f"{each}__product" for each in answers}
    made = []
    for node in nodes:
        bias = next((each for each in node.input if each in constants), None)
        if node.op_type == "Add" and bias is not None and set(node.input) & answers:
            product = next(each for each in node.input if each != bias)
            negative = f"{node.output[0]}__negative"
            values = numpy_helper.to_array(constants[bias])
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(-values), negative))
            made.append(helper.make_node("Sub", [product, negative], list(node.output)))
        else:
            made.append(node)
    return made
