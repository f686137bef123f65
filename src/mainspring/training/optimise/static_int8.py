"""INT8 of a network by ONNX Runtime's own quantisation: static, calibrated on rows, products of matrices alone.

Its dynamic quantisation would scale a batch by its largest value, so that a row's answer depended on its neighbours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mainspring.core.errors import MissingExtra, NotConvertible
from mainspring.training.optimise.onnx_models import (
    PRODUCTS,
    Array,
    expect_products,
    first_line,
    quiet,
    read,
    rows_at_once,
    version_of,
    written,
)

_PER_CHANNEL = 13  # version of the operators from which a scale may be one for each channel
_AT_ONCE = 256


def quantised(content: bytes, calibration: Mapping[str, Array]) -> bytes:
    """Return the model with weights and activations of 8 bits.

    Args:
        calibration: Graph input -> rows that it is calibrated on.

    Raises:
        NotConvertible: It has nothing to quantise, or ONNX Runtime cannot quantise it.
        MissingExtra: `onnx` is not installed.
    """
    model = read(content, "Quantisation")
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, quantize_static
    except ModuleNotFoundError as error:
        raise MissingExtra("Quantisation", "sklearn") from error
    expect_products(model)
    try:
        with quiet(), tempfile.TemporaryDirectory(prefix="mainspring-int8-") as folder:
            path = Path(folder) / "model.onnx"
            quantize_static(
                model,
                path,
                _Rows(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS),
                per_channel=version_of(model) >= _PER_CHANNEL,
                reduce_range=True,  # else processors without VNNI saturate, and answer otherwise than the others
            )
            made = onnx.load_model(path)
    except Exception as error:  # the library's errors have no common base
        raise NotConvertible(f"ONNX Runtime cannot quantise the model: {first_line(error)}") from error
    return written(made)


class _Rows:
    """Calibration rows, as ONNX Runtime's `CalibrationDataReader` gives them."""

    def __init__(self, rows: Mapping[str, Array]) -> None:
        self._parts = rows_at_once(rows, _AT_ONCE)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._parts, None)
