"""MLServer around what `answering` gives: the implementation that its model's settings name."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from answering import chosen


class Service(MLModel):
    async def load(self) -> bool:
        _, self.answer = chosen()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {each.name: each for each in payload.inputs}
        rows = texts(inputs) if "length" in inputs else NumpyCodec.decode_input(payload.inputs[0])
        found = np.asarray(self.answer(rows))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", found)])


def texts(inputs: Any) -> list[Any]:
    """Return the texts of a batch. It joins the values of all requests whatever their shapes, so each says how many
    tokens it has."""
    ids, mask, lengths = (
        getattr(inputs[name].data, "root", inputs[name].data) for name in ("input_ids", "attention_mask", "length")
    )
    rows, start = [], 0
    for length in lengths:
        part = slice(start, start + length)
        rows.append((ids[part], mask[part]))
        start += length
    return rows
