"""FP16: weights and products of 16 bits, with the inputs and outputs of the model as they were.

A processor computes them in FP32: ONNX Runtime puts casts around each operator that it has in FP32 alone. There it
saves space, and no time.
"""

from __future__ import annotations

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.training.optimise.onnx_models import folded, quiet, read, written

_LEAST_SAVED = 0.02  # share of the file
_LEAST_WEIGHTS = 32
_LARGEST = float(np.finfo(np.float16).max)


def in_half(content: bytes) -> bytes:
    """Return the model in FP16; only its weights, where ONNX Runtime cannot convert what is around them.

    Raises:
        NotConvertible: Its weights are not FP32, so that the file gets no smaller.
        MissingExtra: `onnx` is not installed.
    """
    plain = folded(content)
    half = _converted(plain) or _weights_alone(plain)
    if len(half) > (1 - _LEAST_SAVED) * len(plain):
        raise NotConvertible("FP16 makes the model no smaller: its file holds few FP32 weights.")
    return half


def _converted(plain: bytes) -> bytes:
    """Return the model as ONNX Runtime's own tool converts it; nothing if that fails or does not load."""
    model = read(plain, "FP16")
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    try:
        with quiet():
            made = convert_float_to_float16(
                model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "TreeEnsemble"]
            )
        half = written(made)
        folded(half)
    except Exception:  # the library's errors have no common base; the weights alone always convert
        return b""
    return half


def _weights_alone(plain: bytes) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    model = read(plain, "FP16")
    casts = []
    for each in [each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT]:
        values = numpy_helper.to_array(each)
        if values.size < _LEAST_WEIGHTS or np.abs(values).max() > _LARGEST:
            continue
        stored = f"{each.name}__half"
        casts.append(helper.make_node("Cast", [stored], [each.name], to=TensorProto.FLOAT))
        model.graph.initializer.remove(each)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return written(model)
