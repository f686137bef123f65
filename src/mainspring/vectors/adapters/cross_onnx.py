"""Cross-encoder in an ONNX file, with its tokeniser: a query and a text as one sequence, to a score.

Each pair is a call of its own, without padding and on one thread, as texts of an encoder are: equal pairs have equal
scores, whatever stands beside them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.vectors.adapters.encoder_onnx import open_session
from mainspring.vectors.tokenizing import open_tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxCrossEncoder:
    """`CrossEncoder` that runs in this process.

    Args:
        model: ONNX file.
        tokenizer: Tokeniser of Hugging Face, `tokenizer.json`, whose post-processor joins pairs.
        digest: Digest of both.
        most_tokens: Tokens of a pair that count, with those that the tokeniser adds; a query has half of them at most.
        name: Name for messages.

    Raises:
        Corrupt: The model or the tokeniser does not load, or the model has other inputs.
    """

    def __init__(self, model: bytes, tokenizer: bytes, digest: str, *, most_tokens: int, name: str) -> None:
        self._session = open_session(model, f"reranker {name!r}")
        self._tokenizer = open_tokenizer(tokenizer, f"reranker {name!r}")
        self._tokenizer.enable_truncation(most_tokens)
        # Alone, because to cut a pair that is far too long the library makes all its parts, query by text.
        self._cutters = []
        for most in (max(1, most_tokens // 2), most_tokens):
            self._cutters.append(open_tokenizer(tokenizer, f"reranker {name!r}"))
            self._cutters[-1].enable_truncation(most)
        self._name, self.digest = name, digest
        self._inputs = [each.name for each in self._session.get_inputs()]
        outputs = [each.shape for each in self._session.get_outputs()]
        if not {"input_ids"} <= {*self._inputs} <= {*INPUTS} or len(outputs) != 1 or outputs[0][-1:] not in _ENDS:
            raise Corrupt(
                f"The model of reranker {name!r} has the inputs {sorted(self._inputs)} and outputs of shape {outputs}.",
                fix=f"a cross-encoder takes {', '.join(INPUTS)}, and gives one score.",
            )

    def score(self, query: str, texts: Sequence[str], *, within_s: float) -> list[float]:
        until = time.monotonic() + within_s
        if not texts:
            return []
        (asked,), cut = (_cut(cutter, some) for cutter, some in zip(self._cutters, ([query], texts), strict=True))
        pairs = self._tokenizer.encode_batch([(asked, text) for text in cut])
        pool = ThreadPoolExecutor(min(len(pairs), usable_cores()))
        try:
            scores = list(pool.map(lambda pair: self._score(pair, until), pairs, timeout=until - time.monotonic()))
        except TimeoutError:
            raise Unavailable(
                f"Reranker {self._name!r} has not scored {len(texts)} texts within {within_s:g} s.",
                fix="rerank fewer candidates, or give it a longer timeout.",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if not all(map(math.isfinite, scores)):
            raise Unavailable(f"Reranker {self._name!r} gives a score that is no finite number.")
        return scores

    def _score(self, pair: Any, until: float) -> float:
        if time.monotonic() >= until:
            raise TimeoutError
        values = {"input_ids": pair.ids, "attention_mask": pair.attention_mask, "token_type_ids": pair.type_ids}
        (found,) = self._session.run(None, {name: np.array([values[name]], dtype=np.int64) for name in self._inputs})
        if found.size != 1:
            raise Corrupt(f"The model of reranker {self._name!r} gives {found.size} scores for a text.")
        return float(found.reshape(-1)[0])


def _cut(cutter: Any, texts: Sequence[str]) -> list[str]:
    """Return the beginnings of texts, as long as a tokeniser takes them."""
    ends = [
        max((end for _, end in each.offsets), default=0)
        for each in cutter.encode_batch(list(texts), add_special_tokens=False)
    ]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


_ENDS: tuple[list[Any], ...] = ([1], ["rows"], [None])
