"""Encoders of sentences as ONNX files, written node by node from their weights: nothing of PyTorch is needed.

J. Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, with the mean of the tokens' vectors as
the sentence's, at length 1 (N. Reimers, I. Gurevych, "Sentence-BERT", 2019).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray[Any, Any]]

_DTYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}
_HIDDEN = -1e4  # a score that no softmax sees, and finite: a row without tokens gives numbers too


def read_safetensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return name -> array of a safetensors file: a length of 8 bytes, a header in JSON, and the values as they lie."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        values = file.read()
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(values[slice(*each["data_offsets"])], _DTYPES[each["dtype"]]).reshape(each["shape"])
        for name, each in header.items()
    }


class _Graph:
    """Nodes and weights as they are added; each method returns the name of what it gives."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, value: Any, dtype: str = "float32") -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(values, "int64")

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def dense(self, x: str, matrix: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> str:
        """Apply a layer; `matrix` of shape (out, in), as PyTorch keeps it."""
        return self.node("Add", self.node("MatMul", x, self.constant(matrix.T)), self.constant(bias))

    def norm(self, x: str, weights: Weights, name: str, epsilon: float) -> str:
        scale, bias = (self.constant(weights[f"{name}.LayerNorm.{each}"]) for each in ("weight", "bias"))
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def bert_graph(weights: Weights, *, heads: int, epsilon: float = 1e-12, pairs: bool = False) -> bytes:
    """Return a BERT with mean pooling and vectors of length 1, as an ONNX file.

    It takes `input_ids` and `attention_mask` of shape (rows, length), integers of 64 bits, and gives `embedding` of
    shape (rows, width).

    Args:
        weights: By the names that Hugging Face's BertModel gives them.
        heads: Of each layer's attention.
        pairs: Whether it is a cross-encoder (BertForSequenceClassification): it takes `token_type_ids`, too, and gives
            `score` of shape (rows, 1).
    """
    from onnx import TensorProto

    graph = _Graph()
    real = graph.node("Cast", "attention_mask", to=TensorProto.BOOL)
    score = graph.node("Where", real, graph.constant(0.0), graph.constant(_HIDDEN))
    score = graph.node("Unsqueeze", score, graph.integers(1, 2))  # (rows, 1, 1, length): over heads and queries
    x = _embedded(graph, weights, epsilon, pairs=pairs)
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(layers):
        x = _layer(graph, x, score, weights, f"encoder.layer.{layer}", heads, epsilon)
    if pairs:
        return _scored(graph, x, weights)
    return _pooled(graph, x, real, weights["embeddings.word_embeddings.weight"].shape[1])


def _scored(graph: _Graph, x: str, weights: Weights) -> bytes:
    """Return the file of a graph whose score is that of the first token's vector."""
    first = graph.node("Gather", x, graph.constant(0, "int64"), axis=1)
    pooled = graph.node("Tanh", graph.dense(first, weights["pooler.dense.weight"], weights["pooler.dense.bias"]))
    found = graph.node("MatMul", pooled, graph.constant(weights["classifier.weight"].T))
    graph.node("Add", found, graph.constant(weights["classifier.bias"]), output="score")
    return _file(graph, ("input_ids", "attention_mask", "token_type_ids"), "score", 1)


def static_graph(table: np.ndarray[Any, Any]) -> bytes:
    """Return the mean of the tokens' vectors, at length 1, as an ONNX file with the inputs of `bert_graph`.

    Args:
        table: Vector of each token, shape (tokens, width).
    """
    from onnx import TensorProto

    graph = _Graph()
    real = graph.node("Cast", "attention_mask", to=TensorProto.BOOL)
    return _pooled(graph, graph.node("Gather", graph.constant(table), "input_ids"), real, table.shape[1])


def _pooled(graph: _Graph, x: str, real: str, width: int) -> bytes:
    """Return the file of a graph whose tokens' vectors are `x`, of which those that are `real` count."""
    from onnx import TensorProto

    counted = graph.node("Unsqueeze", graph.node("Cast", real, to=TensorProto.FLOAT), graph.integers(2))
    total = graph.node("ReduceSum", graph.node("Mul", x, counted), graph.integers(1), keepdims=0)
    count = graph.node("Max", graph.node("ReduceSum", counted, graph.integers(1), keepdims=0), graph.constant(1e-9))
    mean = graph.node("Div", total, count)
    length = graph.node("ReduceL2", mean, graph.integers(-1), keepdims=1)
    graph.node("Div", mean, graph.node("Max", length, graph.constant(1e-12)), output="embedding")
    return _file(graph, ("input_ids", "attention_mask"), "embedding", width)


def _file(graph: _Graph, inputs: Sequence[str], output: str, width: int) -> bytes:
    from onnx import TensorProto, checker, helper

    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"])
             for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", width])], graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=9,
    )  # fmt: skip
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _embedded(graph: _Graph, weights: Weights, epsilon: float, *, pairs: bool = False) -> str:
    words = graph.node("Gather", graph.constant(weights["embeddings.word_embeddings.weight"]), "input_ids")
    segments = weights["embeddings.token_type_embeddings.weight"]
    places = weights["embeddings.position_embeddings.weight"]
    if pairs:
        words = graph.node("Add", words, graph.node("Gather", graph.constant(segments), "token_type_ids"))
    else:  # all tokens are of the first segment, so its vector is added to every position's
        places = places + segments[0]
    length = graph.node("Shape", "input_ids", start=1, end=2)
    place = graph.node("Slice", graph.constant(places), graph.integers(0), length, graph.integers(0))
    return graph.norm(graph.node("Add", words, place), weights, "embeddings", epsilon)


def _layer(graph: _Graph, x: str, score: str, weights: Weights, name: str, heads: int, epsilon: float) -> str:
    kinds = ("query", "key", "value")
    matrices, biases = (
        [weights[f"{name}.attention.self.{kind}.{part}"] for kind in kinds] for part in ("weight", "bias")
    )
    width = matrices[0].shape[0]
    size = width // heads
    # The scores' scale is in the queries' weights, and the three are one product: fewer nodes for the same numbers.
    matrices[0], biases[0] = matrices[0] / np.sqrt(size), biases[0] / np.sqrt(size)
    together = graph.dense(x, np.concatenate(matrices), np.concatenate(biases))
    split = graph.node("Reshape", together, graph.integers(0, 0, 3, heads, size))
    query, value = (
        graph.node("Transpose", graph.node("Gather", split, graph.constant(at, "int64"), axis=2), perm=[0, 2, 1, 3])
        for at in (0, 2)
    )
    key = graph.node("Transpose", graph.node("Gather", split, graph.constant(1, "int64"), axis=2), perm=[0, 2, 3, 1])
    seen = graph.node("Softmax", graph.node("Add", graph.node("MatMul", query, key), score), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", seen, value), perm=[0, 2, 1, 3])
    attended = graph.node("Reshape", mixed, graph.integers(0, 0, width))
    x = graph.norm(
        graph.node("Add", x, _part(graph, attended, weights, f"{name}.attention.output")),
        weights, f"{name}.attention.output", epsilon,
    )  # fmt: skip
    wide = graph.node("Gelu", _part(graph, x, weights, f"{name}.intermediate"))
    return graph.norm(
        graph.node("Add", x, _part(graph, wide, weights, f"{name}.output")), weights, f"{name}.output", epsilon
    )


def _part(graph: _Graph, x: str, weights: Weights, name: str) -> str:
    return graph.dense(x, weights[f"{name}.dense.weight"], weights[f"{name}.dense.bias"])
