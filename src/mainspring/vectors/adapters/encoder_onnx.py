"""Encoder in an ONNX file, with its tokeniser: `input_ids` and `attention_mask` to `embedding`.

Each text is a call of its own, without padding and on one thread. So a text's vector is the same bit for bit whatever
stands beside it; texts are embedded beside each other on as many threads as the process has processors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Corrupt, Invalid
from mainspring.vectors.model import Floats
from mainspring.vectors.tokenizing import open_tokenizer

_NOWHERE = os.devnull  # of weights beside the file, which it may not have
_ALONE = 8  # texts up to which no threads are used


class OnnxEncoder:
    """`Encoder` that runs in this process.

    Args:
        model: ONNX file.
        tokenizer: Tokeniser of Hugging Face, `tokenizer.json`.
        digest: Digest of both.
        most_tokens: Tokens of a text that count, without those that the tokeniser adds.
        name: Name for messages.

    Raises:
        Corrupt: The model or the tokeniser does not load, or the model has other inputs.
    """

    def __init__(self, model: bytes, tokenizer: bytes, digest: str, *, most_tokens: int | None, name: str) -> None:
        self._session = open_session(model, f"encoder {name!r}")
        inputs = {each.name for each in self._session.get_inputs()}
        outputs = [each.shape for each in self._session.get_outputs()]
        if inputs != {"input_ids", "attention_mask"} or len(outputs) != 1 or not isinstance(outputs[0][-1], int):
            raise Corrupt(
                f"The model of encoder {name!r} has the inputs {sorted(inputs)} and {len(outputs)} outputs.",
                fix="an encoder takes input_ids and attention_mask, and gives one vector of fixed length.",
            )
        self._count, self._cut = (open_tokenizer(tokenizer, f"encoder {name!r}") for _ in range(2))
        if most_tokens is not None:
            self._cut.enable_truncation(most_tokens + self._cut.num_special_tokens_to_add(False))
        self._digest, self._most_tokens = digest, most_tokens
        self._dimension = int(outputs[0][-1])

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def most_tokens(self) -> int | None:
        return self._most_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(each) for each in self._count.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode(self, texts: Sequence[str]) -> Floats:
        for place, text in enumerate(texts):
            if not text.strip():
                raise Invalid(f"The text at {place} of {len(texts)} is empty.", fix="leave it out.")
        if not texts:
            return np.zeros((0, self._dimension), np.float32)
        ids = [each.ids for each in self._cut.encode_batch_fast(list(texts))]
        if len(ids) <= _ALONE:
            return np.concatenate([self._vector(each) for each in ids])
        with ThreadPoolExecutor(usable_cores()) as pool:
            return np.concatenate(list(pool.map(self._vector, ids)))

    def _vector(self, ids: Sequence[int]) -> Floats:
        row = np.array([ids], dtype=np.int64)
        (vector,) = self._session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})
        return np.asarray(vector, dtype=np.float32)


def open_session(model: bytes, owner: str) -> Any:
    """Return a session of an ONNX file, on one thread.

    Raises:
        Corrupt: It does not load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors share no other base
        raise Corrupt(f"The model of {owner} does not load: {str(error).splitlines()[0]}") from error
