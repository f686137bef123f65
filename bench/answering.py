"""What the servers of bench/serve.py and bench/encoder.py answer with: an ONNX model, in one thread, many rows at once.

Each function takes a model's path and returns what takes rows, as lists, and gives their answers, shape (rows, n). All
servers use the same, whatever environment their Python is of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

BATCH = 64  # rows that a server puts together at most

Array = np.ndarray[Any, Any]
Answer = Callable[[Sequence[Any]], Array]


def session(model: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def mlp(model: str) -> Answer:
    """Rows are of floats."""
    run = session(model).run

    def answer(rows: Sequence[Any]) -> Array:
        (found,) = run(["y"], {"x": np.asarray(rows, np.float32)})
        return found

    return answer


def encoder(model: str) -> Answer:
    """Rows are of a text's token ids and its mask. Those of one length run together, which on a processor costs less
    than padding them to the longest."""
    run = session(model).run

    def answer(rows: Sequence[Any]) -> Array:
        places: dict[int, list[int]] = {}
        for place, (ids, _) in enumerate(rows):
            places.setdefault(len(ids), []).append(place)
        found: Array = np.empty((0, 0), np.float32)
        for alike in places.values():
            ids, mask = (np.array([rows[place][part] for place in alike], np.int64) for part in (0, 1))
            (vectors,) = run(["embedding"], {"input_ids": ids, "attention_mask": mask})
            if not len(found):
                found = np.empty((len(rows), vectors.shape[1]), np.float32)
            found[alike] = vectors
        return found

    return answer


ANSWERING: Mapping[str, Callable[[str], Answer]] = {"mlp": mlp, "encoder": encoder}


def chosen() -> tuple[str, Answer]:
    """Return what a peer's process is to answer with, as `starting` told it, and its name."""
    name = os.environ["BENCH_ANSWERS"]
    return name, ANSWERING[name](os.environ["BENCH_MODEL"])
