"""The graph of a sentence encoder: a small one against the same arithmetic in NumPy, one row at a time."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from mainspring.vectors.encoder_graphs import bert_graph, read_safetensors, static_graph

WIDTH, HEADS, WIDE, WORDS, PLACES, LAYERS = 12, 3, 20, 30, 16, 2
EPSILON = 1e-6

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    chance = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (WORDS, WIDTH),
        "embeddings.position_embeddings.weight": (PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    denses = {"attention.output": (WIDTH, WIDTH), "intermediate": (WIDE, WIDTH), "output": (WIDTH, WIDE)}
    denses |= {f"attention.self.{kind}": (WIDTH, WIDTH) for kind in ("query", "key", "value")}
    norms = ["embeddings"]
    for layer in range(LAYERS):
        for name, shape in denses.items():
            whole = f"encoder.layer.{layer}.{name}" + ("" if "self" in name else ".dense")
            shapes |= {f"{whole}.weight": shape, f"{whole}.bias": shape[:1]}
        norms += [f"encoder.layer.{layer}.{name}" for name in ("attention.output", "output")]
    for name in norms:
        shapes |= {f"{name}.LayerNorm.{part}": (WIDTH,) for part in ("weight", "bias")}
    return {name: chance.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


def embedding(w: dict[str, Array], ids: Array) -> Array:
    """Return the vector of one sentence without padding, in double precision."""
    mean = tokens(w, ids, np.zeros_like(ids)).mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def tokens(w: dict[str, Array], ids: Array, segments: Array) -> Array:
    """Return the vectors of the tokens of one sequence."""

    def dense(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T.astype(float) + w[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return np.asarray(scaled * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"])

    x = w["embeddings.word_embeddings.weight"][ids].astype(float)
    x = (
        x
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][segments]
    )
    x = norm(x, "embeddings")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (dense(x, f"{name}.attention.self.{kind}") for kind in ("query", "key", "value"))
        heads = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(WIDTH / HEADS))
            heads.append(scores / scores.sum(-1, keepdims=True) @ value[:, part])
        mixed = np.concatenate(heads, axis=-1)
        x = norm(x + dense(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output")
        wide = dense(x, f"{name}.intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(x + dense(wide, f"{name}.output.dense"), f"{name}.output")
    return np.asarray(x)


def test_rows_of_several_lengths_padded_together_are_as_each_alone(weights: dict[str, Array]) -> None:
    graph = bert_graph(weights, heads=HEADS, epsilon=EPSILON)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(6)
    lengths = [PLACES, 1, 7, 12]
    ids = chance.integers(0, WORDS, (len(lengths), PLACES))
    mask = (np.arange(PLACES) < np.array(lengths)[:, None]).astype(np.int64)
    (found,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
    wanted = [embedding(weights, row[:length]) for row, length in zip(ids, lengths, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_cross_encoder_scores_each_pair_by_its_first_token(weights: dict[str, Array]) -> None:
    chance = np.random.default_rng(8)
    shapes = {"pooler.dense.weight": (WIDTH, WIDTH), "pooler.dense.bias": (WIDTH,), "classifier.weight": (1, WIDTH)}
    head = {name: chance.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}
    head["classifier.bias"] = np.array([0.3], np.float32)
    graph = bert_graph(weights | head, heads=HEADS, epsilon=EPSILON, pairs=True)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    lengths, seconds = np.array([PLACES, 5, 9]), np.array([4, 2, 8])  # where the second text begins
    ids = chance.integers(0, WORDS, (3, PLACES))
    mask = (np.arange(PLACES) < lengths[:, None]).astype(np.int64)
    types = ((np.arange(PLACES) >= seconds[:, None]) & (mask > 0)).astype(np.int64)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    (found,) = session.run(["score"], given)
    wanted = []
    for row, segments, length in zip(ids, types, lengths, strict=True):
        first = tokens(weights, row[:length], segments[:length])[0]
        pooled = np.tanh(first @ head["pooler.dense.weight"].T + head["pooler.dense.bias"])
        wanted.append(pooled @ head["classifier.weight"].T + head["classifier.bias"])
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_weights_are_read_from_safetensors(tmp_path: Path) -> None:
    first, second = np.arange(6, dtype="<f4").reshape(2, 3), np.array([-7], "<i8")
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "second": {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]},
            "first": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        }
    ).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + first.tobytes() + second.tobytes())
    found = read_safetensors(path)
    assert set(found) == {"first", "second"}
    np.testing.assert_array_equal(found["first"], first)
    np.testing.assert_array_equal(found["second"], second)


def test_a_static_encoder_is_the_mean_of_its_tokens() -> None:
    table = np.random.default_rng(7).normal(size=(9, 4)).astype(np.float32)
    session = ort.InferenceSession(static_graph(table), providers=["CPUExecutionProvider"])
    ids, mask = np.array([[1, 5, 0], [3, 0, 0]]), np.array([[1, 1, 0], [1, 0, 0]])
    (found,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
    wanted = np.stack([table[[1, 5]].mean(0), table[3]])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
