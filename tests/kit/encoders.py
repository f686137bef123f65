"""Encoders of texts that answer in microseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mainspring.vectors.model import Floats


class WordEncoder:
    """`Encoder` whose tokens are words: a text's vector is the mean of its words' vectors, which are random by word.

    Args:
        seed: Another seed is another encoder.
    """

    def __init__(self, dimension: int = 16, seed: int = 0, most_tokens: int | None = None) -> None:
        self.dimension, self.most_tokens = dimension, most_tokens
        self.digest = hashlib.sha256(f"{dimension} {seed} {most_tokens}".encode()).hexdigest()
        self._seed = seed
        self.asked: list[str] = []  # texts that were embedded

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str]) -> Floats:
        self.asked += texts
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Floats:
        words = text.lower().split()[: self.most_tokens]
        mean = np.mean([self._word(word.strip(".,!?#")) for word in words], axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def _word(self, word: str) -> Floats:
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {word}".encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=self.dimension).astype(np.float32)
