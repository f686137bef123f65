"""Computation of embeddings at ingestion, by an encoder in this process or elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from mainspring.data.arrow import arrow_schema
from mainspring.features.functions.embedding import encoder_of
from mainspring.features.functions.messages import Answer
from mainspring.features.functions.model import FeatureFunction
from mainspring.features.functions.process import FunctionFailed
from mainspring.features.functions.running import Computed
from mainspring.vectors.declaring import Encoder as DeclaredEncoder
from mainspring.vectors.model import Floats
from mainspring.vectors.ports import Encoder

_KEPT = 50_000  # vectors of texts that may come again
_NOT_FINITE = "the encoder gives no finite vector"


class EncoderRunner:
    """Computes embeddings: each distinct text once.

    Args:
        opened: Returns the encoder that a declaration names.
    """

    def __init__(self, opened: Callable[[DeclaredEncoder], Encoder]) -> None:
        self._opened = opened

    def run(self, function: FeatureFunction, batches: Iterable[pa.Table]) -> Iterator[Computed]:
        (column,) = function.columns
        (dimension,) = function.vectors.values()
        encoder = self._opened(encoder_of(function))
        if encoder.dimension != dimension:
            raise FunctionFailed(
                f"The encoder of embedding {function.name} gives {encoder.dimension} dimensions, and says {dimension}.",
                fix=f"write dimension={encoder.dimension}.",
            )
        known: dict[str, Floats] = {}
        for rows in batches:
            texts = [text if text and text.strip() else None for text in rows.column(column).to_pylist()]
            new = list(dict.fromkeys(text for text in texts if text is not None and text not in known))
            began = time.perf_counter()
            if new:
                known.update(zip(new, np.asarray(encoder.encode(new), dtype=np.float32), strict=True))
            seconds = time.perf_counter() - began
            vectors = [None if text is None else known[text] for text in texts]
            failures = {
                row: _NOT_FINITE
                for row, vector in enumerate(vectors)
                if vector is not None and not np.isfinite(vector).all()
            }
            found = _table(function, [None if row in failures else vector for row, vector in enumerate(vectors)])
            yield rows, found, Answer(failures=failures, seconds=seconds)
            for text in list(known)[: max(0, len(known) - _KEPT)]:  # the oldest
                del known[text]


def _table(function: FeatureFunction, vectors: list[Floats | None]) -> pa.Table:
    """Return a column for each place of the vectors."""
    schema = arrow_schema(function.outputs)
    there = np.array([vector is not None for vector in vectors])
    matrix = np.zeros((len(vectors), len(schema)), np.float32)
    if there.any():
        matrix[there] = np.stack([vector for vector in vectors if vector is not None])
    return pa.table(
        [pa.array(matrix[:, place], pa.float32(), mask=~there) for place in range(len(schema))], schema=schema
    )
