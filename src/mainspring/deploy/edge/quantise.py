"""INT8 of a network by ONNX Runtime's own quantisation: static, calibrated on rows, products of matrices alone.

Dynamic quantisation would scale a batch by its largest value, so that a row's answer depended on its neighbours.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.errors import MissingExtra, NotConvertible
from mainspring.registry.onnx_file import OPERATOR_DOMAINS, check_onnx

KINDS = ("MatMul", "Gemm", "Conv")
_PER_CHANNEL = 13  # opset from which a scale may be one for each channel
_AT_ONCE = 256

Array = np.ndarray[Any, Any]


def quantised(content: bytes, calibration: Mapping[str, Array]) -> bytes:
    """Return the model with weights and activations of 8 bits.

    Args:
        calibration: Graph input -> rows that it is calibrated on.

    Raises:
        NotConvertible: It has nothing to quantise, or ONNX Runtime cannot quantise it.
        MissingExtra: `onnx` is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, quantize_static
    except ModuleNotFoundError as error:
        raise MissingExtra("Quantisation", "sklearn") from error
    model = onnx.load_model_from_string(content)
    if not any(node.op_type in KINDS for node in model.graph.node):
        raise NotConvertible("The model has no products of matrices, which is what INT8 makes smaller and faster.")
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    try:
        with _quiet(), tempfile.TemporaryDirectory(prefix="mainspring-int8-") as folder:
            path = Path(folder) / "model.onnx"
            quantize_static(
                model,
                path,
                _Rows(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(KINDS),
                per_channel=opset >= _PER_CHANNEL,
                reduce_range=True,  # else processors without VNNI saturate, and answer otherwise than the others
            )
            made = onnx.load_model(path)
    except Exception as error:  # the library's errors have no common base
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotConvertible(f"ONNX Runtime cannot quantise the model: {first:.300}") from error
    used = {node.domain for node in made.graph.node}
    for each in [each for each in made.opset_import if each.domain not in used | OPERATOR_DOMAINS]:
        made.opset_import.remove(each)
    small: bytes = made.SerializeToString()
    check_onnx(small)
    return small


class _Rows:
    """Calibration rows, as ONNX Runtime's `CalibrationDataReader` gives them."""

    def __init__(self, rows: Mapping[str, Array]) -> None:
        self._parts = self._of(rows)

    @staticmethod
    def _of(rows: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        for start in range(0, len(next(iter(rows.values()))), _AT_ONCE):
            yield {name: values[start : start + _AT_ONCE] for name, values in rows.items()}

    def get_next(self) -> dict[str, Array] | None:
        return next(self._parts, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hints that the library logs about models that were not preprocessed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
