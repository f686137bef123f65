"""BentoML around what `answering` gives: `bentoml serve peer_bentoml:Service`."""

import bentoml
import numpy as np

from answering import BATCH, chosen

name, answer = chosen()
# Arrays where rows are of one length. A text has its token ids and its mask.
Rows, Answers = (np.ndarray, np.ndarray) if name == "mlp" else (list[list[list[int]]], list[list[float]])
MAX_LATENCY_MS = 1_000 if name == "mlp" else 30_000  # it refuses what it expects to answer later


@bentoml.service(workers=1, traffic={"timeout": 60})
class Service:
    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=MAX_LATENCY_MS)
    def predict(self, rows: Rows) -> Answers:
        found = answer(rows)
        return found if name == "mlp" else found.tolist()
