"""A fresh process that answers rows with a model: `python -P fresh.py FOLDER`.

It imports NumPy and ONNX Runtime alone, so nothing of the process that trained the model can help it. In the folder
stand `model.onnx` and `inputs.npz` (one array an input, no pickle); it writes `answers.npz`: `whole` and `mixed`, shape
(rows, outputs), are the same rows in order and shuffled into small batches; `alone` are some of them one by one, with
their rows in `alone_rows`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_WHOLE, _MIXED, _ALONE = 4096, 61, 300


def main(folder: Path) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession((folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
    with np.load(folder / "inputs.npz", allow_pickle=False) as stored:
        inputs = {name: _as_fed(stored[name]) for name in stored.files}
    rows = len(next(iter(inputs.values())))
    order = np.random.default_rng(0).permutation(rows)
    np.savez(
        folder / "answers.npz",
        whole=_answers(session, inputs, np.arange(rows), _WHOLE),
        mixed=_answers(session, inputs, order, _MIXED)[np.argsort(order)],
        alone=_answers(session, inputs, order[:_ALONE], 1),
        alone_rows=order[:_ALONE],
    )


def _as_fed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values.astype(object) if values.dtype.kind == "U" else values


def _answers(session: Any, inputs: dict[str, Any], rows: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    found = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        answers = session.run(None, {name: values[batch] for name, values in inputs.items()})
        found.append(np.stack([np.asarray(each, np.float64).reshape(-1) for each in answers], axis=1))
    return np.concatenate(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
