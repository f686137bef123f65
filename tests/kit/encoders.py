"""Encoders of texts that answer in microseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.vectors.model import Floats

ENCODER_WORDS = [
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *["the", "cat", "sat", "on", "a", "mat", "while", "dogs", "ran", "far", "away"],
]
ENCODER_WIDTH, wide, ENCODER_PLACES = 8, 12, 16


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


def small_tokenizer() -> bytes:
    """Return a tokeniser of a few words, with limits as published ones have."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    made = Tokenizer(WordLevel({word: number for number, word in enumerate(ENCODER_WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    made.enable_truncation(4)
    made.enable_padding(length=64)
    return made.to_str().encode()


def write_encoder(folder: Path, *, pairs: bool = False, width: int = ENCODER_WIDTH, **config: Any) -> Path:
    """Write an encoder with random weights as Hugging Face does.

    Args:
        pairs: Whether it is a cross-encoder.
        width: Of a vector.
    """
    chance = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(ENCODER_WORDS), width),
        "embeddings.position_embeddings.weight": (ENCODER_PLACES, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    layer, wide = "encoder.layer.0.", 12
    denses = {
        "attention.output.dense": (width, width),
        "intermediate.dense": (wide, width),
    }
    denses |= {"output.dense": (width, wide)}
    denses |= {f"attention.self.{kind}": (width, width) for kind in ("query", "key", "value")}
    for name, shape in denses.items():
        shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
    for name in ("embeddings", f"{layer}attention.output", f"{layer}output"):
        shapes |= {f"{name}.LayerNorm.{part}": (width,) for part in ("weight", "bias")}
    if pairs:
        shapes = {f"bert.{name}": shape for name, shape in shapes.items()}
        shapes |= {
            "bert.pooler.dense.weight": (width, width),
            "bert.pooler.dense.bias": (width,),
        }
        shapes |= {"classifier.weight": (1, width), "classifier.bias": (1,)}
        config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}, **config}
    header, parts, at = {}, [], 0
    for name, shape in shapes.items():
        content = chance.normal(0, 0.7, shape).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(content)]}
        parts.append(content)
        at += len(content)
    encoded = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"".join(parts))
    usual = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_attention_heads": 2,
        "max_position_embeddings": ENCODER_PLACES,
    }
    (folder / "config.json").write_text(json.dumps({**usual, **config}))
    (folder / "tokenizer.json").write_bytes(small_tokenizer())
    return folder
