"""Bundles of every flavour, small and real, to run and to serve."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from kit.tensors import TYPES as ONNX_TYPES
from mainspring.core.schema import DType
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Code, Graph, Input, Manifest, TensorSpec
from mainspring.security.signing import SigningKey

KEY = SigningKey(bytes(range(32)))
FEATURES = 6


def sealed(flavour: str, files: dict[str, bytes] | None = None, **changes: Any) -> Bundle:
    """Return a signed bundle of one flavour; `changes` replaces fields of its manifest."""
    manifest = {
        "model": "made",
        "task": "tensors",
        "flavour": flavour,
        "inputs": (),
        "outputs": tuple(spec.name for spec in changes.get("output_tensors", ())),
        "run_id": "run",
        "dataset_commit": "",
        "features_digest": "",
        "code_version": "",
        "created_at": 0,
        **changes,
    }
    return seal(Manifest(**manifest), files or {}, KEY)


def onnx_model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **constants: Any) -> bytes:
    """Return an ONNX file. Inputs and outputs are (name, datatype, shape), `None` where a dimension is open."""
    graph = helper.make_graph(
        list(nodes),
        "model",
        [helper.make_tensor_value_info(name, ONNX_TYPES[kind], shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, ONNX_TYPES[kind], shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def identity(datatype: str, *, batch: int | None = None) -> bytes:
    """Return a model that answers what it is given, shape (rows, 3)."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return onnx_model([node], [("x", datatype, [batch, 3])], [("y", datatype, [batch, 3])])


def mlp(seed: int = 0, *, batch: int | None = None) -> bytes:
    """Return a network of 4 numbers in, 8 hidden, 3 out."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "w2", "b2"], ["y"]),
    ]
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in _SHAPES.items()}
    return onnx_model(nodes, [("x", "FP32", [batch, 4])], [("y", "FP32", [batch, 3])], **drawn)


_SHAPES: dict[str, tuple[int, ...]] = {"w1": (4, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
MLP_SPECS = {
    "tensors": (TensorSpec("x", "FP32", (-1, 4)),),
    "output_tensors": (TensorSpec("y", "FP32", (-1, 3)),),
}


def identity_bundle(datatype: str, *, batch: int | None = None) -> Bundle:
    return sealed(
        "onnx",
        {"model.onnx": identity(datatype, batch=batch)},
        tensors=(TensorSpec("x", datatype, (-1, 3)),),
        output_tensors=(TensorSpec("y", datatype, (-1, 3)),),
    )


def mlp_bundle(seed: int = 0, *, batch: int | None = None) -> Bundle:
    return sealed("onnx", {"model.onnx": mlp(seed, batch=batch)}, **MLP_SPECS)


def training_data(rows: int = 3000, seed: int = 0) -> tuple[Any, Any]:
    """Return a matrix of shape (rows, FEATURES), float32, a tenth of it NaN, and labels 0, 1, 2."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    labels = (np.tanh(matrix[:, 0]) + matrix[:, 1] * matrix[:, 2] > 0).astype(int) + (matrix[:, 3] > 1)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix, labels


@cache
def xgboost_file(task: str = "binary", suffix: str = "ubj") -> bytes:
    """Return a model file of XGBoost. Tasks: binary, multiclass, regression, early (stopped early), dart, linear."""
    import xgboost

    matrix, labels = training_data()
    target = {"multiclass": labels, "regression": matrix[:, 0] * 0 + labels}.get(task, labels > 0)
    data = xgboost.DMatrix(matrix, label=np.nan_to_num(target))
    params: dict[str, Any] = {"nthread": 1, "max_depth": 5, "objective": "binary:logistic", "seed": 1}
    if task == "multiclass":
        params |= {"objective": "multi:softprob", "num_class": 3}
    elif task == "regression":
        params["objective"] = "reg:squarederror"
    elif task == "dart":
        params["booster"] = "dart"
    elif task == "linear":
        params = {"booster": "gblinear", "objective": "binary:logistic", "nthread": 1}
    early: dict[str, Any] = {}
    if task == "early":
        other, others = training_data(seed=1)
        held_out = xgboost.DMatrix(other, label=others > 0)
        early = {"evals": [(held_out, "validation")], "early_stopping_rounds": 1, "verbose_eval": False}
    booster = xgboost.train(params, data, 25, **early)
    return _saved(booster.save_model, f"model.{suffix}")


@cache
def lightgbm_file(task: str = "binary") -> bytes:
    """Return a model file of LightGBM. Tasks: binary, multiclass, regression, categories, linear (trees)."""
    import lightgbm

    matrix, labels = training_data()
    matrix = matrix.astype(np.float64)
    params: dict[str, Any] = {"verbose": -1, "num_threads": 1, "objective": "binary", "seed": 1}
    target, categorical = labels > 0, "auto"
    if task == "multiclass":
        params |= {"objective": "multiclass", "num_class": 3}
        target = labels
    elif task == "regression":
        params["objective"], target = "regression", np.nan_to_num(matrix[:, 0]) + labels
    elif task == "categories":
        matrix[:, 5] = np.abs(np.nan_to_num(matrix[:, 5]) * 4).astype(int)
        categorical = [5]
    elif task == "linear":
        params |= {"objective": "regression", "linear_tree": True}
        target = np.nan_to_num(matrix[:, 0]) + labels
    data = lightgbm.Dataset(matrix, label=target, categorical_feature=categorical)
    booster = lightgbm.train(params, data, 25)
    return _saved(booster.save_model, "model.txt")


def _saved(save: Any, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        save(str(path))
        return path.read_bytes()


def _matrix_specs(datatype: str, outputs: int) -> dict[str, Any]:
    return {
        "tensors": (TensorSpec("input", datatype, (-1, FEATURES)),),
        "output_tensors": (TensorSpec("output", datatype, (-1,) if outputs == 1 else (-1, outputs)),),
    }


COLUMNS = tuple(
    Input(f"Kind.f{place}", dtype)
    for place, dtype in enumerate(
        [DType.Float32, DType.Float64, DType.Int64, DType.Int32, DType.Boolean, DType.Float32]
    )
)


def xgboost_bundle(task: str = "binary", suffix: str = "ubj", *, columns: bool = False) -> Bundle:
    files = {f"model.{suffix}": xgboost_file(task, suffix)}
    return _forest("xgboost", files, task, "FP32", columns)


def lightgbm_bundle(task: str = "binary", *, columns: bool = False) -> Bundle:
    return _forest("lightgbm", {"model.txt": lightgbm_file(task)}, task, "FP64", columns)


def _forest(flavour: str, files: dict[str, bytes], task: str, datatype: str, columns: bool) -> Bundle:
    if columns:
        outputs = ("a", "b", "c") if task == "multiclass" else ("probability",)
        return sealed(flavour, files, task=task, inputs=COLUMNS, outputs=outputs)
    return sealed(flavour, files, **_matrix_specs(datatype, 3 if task == "multiclass" else 1))


def function_bundle(function: str, source: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Bundle:
    code = Code(function, source)
    return sealed("function", code=code, tensors=tuple(inputs), output_tensors=tuple(outputs))


def graph_bundle(graph: Graph, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Bundle:
    return sealed("graph", graph=graph, tensors=tuple(inputs), output_tensors=tuple(outputs))
