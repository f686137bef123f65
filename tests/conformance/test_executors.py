"""Every executor against the shared suite, and every datatype through those that carry tensors."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kit import flavours as flavour_kit
from kit.models import (
    FEATURES,
    ONNX_TYPES,
    function_bundle,
    graph_bundle,
    identity_bundle,
    lightgbm_bundle,
    mlp_bundle,
    sealed,
    training_data,
    xgboost_bundle,
)
from kit.serving import INPUTS, KEY
from kit.serving import bundle as columns_bundle
from kit.tensors import counted
from kit.training_sets import toy
from mainspring.core.schema import DType
from mainspring.registry.model import Bundle, Graph, Input, Node, TensorSpec
from mainspring.serving.adapters.curved import CurvedExecutor
from mainspring.serving.adapters.function import FunctionExecutor
from mainspring.serving.adapters.graph import GraphExecutor
from mainspring.serving.adapters.lightgbm import LightgbmExecutor
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.xgboost import XgboostExecutor
from mainspring.serving.conformance.executors import ExecutorConformance, Inputs
from mainspring.serving.ports import Executor
from mainspring.serving.protocol.tensor import DTYPES
from mainspring.stats.curves import Curve
from mainspring.training.flavours import convert_estimator

ROWS = 12
RNG = np.random.default_rng(3)
SOURCE = "0" * 64
COLUMNS = {
    "Carrier.flights_1h": list(range(ROWS)),
    "Carrier.delay_1h": [None, *(place / 7 for place in range(1, ROWS))],
    "Schedule.thousands": [0.25 * place for place in range(ROWS)],
    "Schedule.hour": [place % 24 for place in range(ROWS)],
}
FOREST_COLUMNS = {
    "Kind.f0": [None, *RNG.normal(size=ROWS - 1).tolist()],
    "Kind.f1": RNG.normal(size=ROWS).tolist(),
    "Kind.f2": list(range(ROWS)),
    "Kind.f3": [place - 6 for place in range(ROWS)],
    "Kind.f4": [place % 3 == 0 for place in range(ROWS)],
    "Kind.f5": RNG.normal(size=ROWS).tolist(),
}
NUMBERS = {"x": RNG.normal(size=(ROWS, 4)).astype(np.float32)}


class TestOnnxApart(ExecutorConformance):
    """A model whose cost the values of a request decide, in a process of its own."""

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        made = OnnxExecutor(counted(KEY))
        yield made
        made.close()

    @pytest.fixture
    def inputs(self) -> Inputs:
        return {"n": np.arange(ROWS, dtype=np.int64).reshape(-1, 1)}


class TestOnnxColumns(ExecutorConformance):
    @pytest.fixture
    def executor(self) -> Executor:
        return OnnxExecutor(columns_bundle())

    @pytest.fixture
    def inputs(self) -> Inputs:
        return COLUMNS


@pytest.mark.parametrize("batch", [None, 1], ids=["any batch", "one row at a time"])
class TestOnnxTensors(ExecutorConformance):
    @pytest.fixture
    def executor(self, batch: int | None) -> Executor:
        return OnnxExecutor(mlp_bundle(batch=batch))

    @pytest.fixture
    def inputs(self) -> Inputs:
        return NUMBERS


class TestOnnxTexts(ExecutorConformance):
    @pytest.fixture
    def executor(self) -> Executor:
        return OnnxExecutor(identity_bundle("BYTES"))

    @pytest.fixture
    def inputs(self) -> Inputs:
        return {"x": np.array([[f"a{place}", "", "ü"] for place in range(ROWS)], np.object_)}


@pytest.mark.parametrize("columns", [False, True], ids=["tensor", "columns"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "early", "dart"])
class TestXgboost(ExecutorConformance):
    @pytest.fixture
    def executor(self, task: str, columns: bool) -> Executor:
        return XgboostExecutor(xgboost_bundle(task, "json" if task == "regression" else "ubj", columns=columns))

    @pytest.fixture
    def inputs(self, columns: bool) -> Inputs:
        return FOREST_COLUMNS if columns else {"input": training_data(ROWS)[0]}


@pytest.mark.parametrize("columns", [False, True], ids=["tensor", "columns"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "categories", "linear"])
class TestLightgbm(ExecutorConformance):
    @pytest.fixture
    def executor(self, task: str, columns: bool) -> Executor:
        return LightgbmExecutor(lightgbm_bundle(task, columns=columns))

    @pytest.fixture
    def inputs(self, columns: bool) -> Inputs:
        return FOREST_COLUMNS if columns else {"input": training_data(ROWS)[0].astype(np.float64)}


TEXT_COLUMNS = (Input("V.a", DType.Float32), Input("V.b", DType.Float32), Input("V.c", DType.String))


@pytest.mark.parametrize("fit", [flavour_kit.xgboost, flavour_kit.lightgbm])
class TestForestOfTexts(ExecutorConformance):
    @pytest.fixture
    def executor(self, fit: Any) -> Executor:
        train = toy(600).train
        artefact = convert_estimator(fit(train.X, train.y, "binary"), TEXT_COLUMNS, "binary")
        inputs = tuple(Input(each.name, each.dtype, artefact.categories.get(each.name, ())) for each in TEXT_COLUMNS)
        files = {artefact.name: artefact.content}
        made = sealed(artefact.flavour, files, task="binary", inputs=inputs, outputs=("probability",))
        return (XgboostExecutor if artefact.flavour == "xgboost" else LightgbmExecutor)(made)

    @pytest.fixture
    def inputs(self) -> Inputs:
        kinds = [
            "north",
            None,
            "",
            "never seen \N{SNOWMAN}",
            "NORTH",
            *RNG.choice(["south", "west"], ROWS - 5).tolist(),
        ]
        numbers = [None, *RNG.normal(size=ROWS - 1).tolist()]
        return {"V.a": numbers, "V.b": numbers[::-1], "V.c": kinds}


CURVES = {"platt": Curve(1e-5, 0.8, -0.3), "isotonic": Curve(1e-6, knots=(-3.0, 0.0, 3.0), heights=(0.1, 0.4, 0.95))}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
class TestCalibrated(ExecutorConformance):
    @pytest.fixture
    def executor(self, framework: str, curve: str) -> Executor:
        inner: Executor = (
            XgboostExecutor(xgboost_bundle("binary", "ubj", columns=True))
            if framework == "xgboost"
            else LightgbmExecutor(lightgbm_bundle("binary", columns=True))
        )
        return CurvedExecutor(inner, CURVES[curve])

    @pytest.fixture
    def inputs(self) -> Inputs:
        return FOREST_COLUMNS


def scaled(x: Any) -> Any:
    return (x - 0.5) * np.float32(2)


X4, Y3 = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 3))
SCALED = function_bundle("mine:scaled", SOURCE, [X4], [TensorSpec("scaled", "FP32", (-1, 4))])


class TestFunction(ExecutorConformance):
    @pytest.fixture
    def executor(self) -> Executor:
        return FunctionExecutor(SCALED, lambda _: scaled)

    @pytest.fixture
    def inputs(self) -> Inputs:
        return NUMBERS


def member(bundles: dict[str, Bundle]) -> Any:
    def load(digest: str) -> Executor:
        made = bundles[digest]
        return FunctionExecutor(made, lambda _: scaled) if made.manifest.code else OnnxExecutor(made)

    return load


class TestGraph(ExecutorConformance):
    """Scaled by a function, then two networks whose answers are weighted."""

    @pytest.fixture
    def executor(self) -> Executor:
        parts = {made.digest: made for made in (SCALED, mlp_bundle(0), mlp_bundle(1))}
        pre, one, two = parts
        graph = Graph(
            nodes=(
                Node(name="both", combine="weighted", weights=(1, 3), inputs={"a": "one.y", "b": "two.y"}),
                Node(name="one", bundle=one, inputs={"x": "pre.scaled"}),
                Node(name="two", bundle=two, inputs={"x": "pre.scaled"}),
                Node(name="pre", bundle=pre, inputs={"x": "x"}),
            ),
            outputs={"y": "both.value"},
        )
        return GraphExecutor(graph_bundle(graph, [X4], [Y3]), member(parts))

    @pytest.fixture
    def inputs(self) -> Inputs:
        return NUMBERS


class TestGraphOfColumns(ExecutorConformance):
    """The mean of two models of the same features."""

    @pytest.fixture
    def executor(self) -> Executor:
        parts = {made.digest: made for made in (columns_bundle(0.0), columns_bundle(1.0))}
        names = {each.name: each.name for each in INPUTS}
        nodes = [Node(name=f"n{place}", bundle=digest, inputs=names) for place, digest in enumerate(parts)]
        mean = Node(name="mean", combine="mean", inputs={"a": "n0.probability", "b": "n1.probability"})
        graph = Graph(nodes=(*nodes, mean), outputs={"probability": "mean.value"})
        made = sealed("graph", graph=graph, inputs=INPUTS, outputs=("probability",), task="binary")
        return GraphExecutor(made, member(parts))

    @pytest.fixture
    def inputs(self) -> Inputs:
        return COLUMNS


def values_of(datatype: str) -> Any:
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return np.array([["a", "", "ü"], ["1", "日本", "x" * 1000]], np.object_)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([[limits.min, 0, limits.max], [1, 2, 3]], dtype)


@pytest.mark.parametrize("datatype", sorted(ONNX_TYPES))
@pytest.mark.parametrize("kind", ["onnx", "onnx one by one", "function", "graph"])
def test_every_datatype_is_carried_exactly(datatype: str, kind: str) -> None:
    spec_in, spec_out = TensorSpec("x", datatype, (-1, 3)), TensorSpec("y", datatype, (-1, 3))
    made = identity_bundle(datatype, batch=1 if kind == "onnx one by one" else None)
    executor: Executor
    if kind == "function":
        executor = FunctionExecutor(function_bundle("m:f", SOURCE, [spec_in], [spec_out]), lambda _: lambda x: x)
    elif kind == "graph":
        node = Node(name="only", bundle=made.digest, inputs={"x": "x"})
        graph = graph_bundle(Graph((node,), {"y": "only.y"}), [spec_in], [spec_out])
        executor = GraphExecutor(graph, lambda _: OnnxExecutor(made))
    else:
        executor = OnnxExecutor(made)
    values = values_of(datatype)
    answer = executor.predict({"x": values}, 2)["y"]
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, values)
    listed = executor.predict({"x": values.tolist()}, 2)["y"]
    np.testing.assert_array_equal(listed, values)


@pytest.mark.parametrize(
    ("executor", "held"),
    [
        (lambda: OnnxExecutor(mlp_bundle()), "_session"),
        (lambda: XgboostExecutor(xgboost_bundle()), "_booster"),
        (lambda: LightgbmExecutor(lightgbm_bundle()), "_booster"),
    ],
    ids=["onnx", "xgboost", "lightgbm"],
)
def test_closing_lets_go_of_the_model_at_once(executor: Any, held: str) -> None:
    made = executor()
    model = weakref.ref(getattr(made, held))
    assert model() is not None
    made.close()
    assert model() is None


@pytest.mark.parametrize(
    ("executor", "held"),
    [
        (lambda: OnnxExecutor(mlp_bundle()), "_session"),
        (lambda: OnnxExecutor(columns_bundle()), "_session"),
        (lambda: XgboostExecutor(xgboost_bundle()), "_booster"),
        (lambda: LightgbmExecutor(lightgbm_bundle()), "_booster"),
    ],
    ids=["onnx", "onnx columns", "xgboost", "lightgbm"],
)
def test_an_executor_that_nobody_holds_is_gone_without_the_collector(executor: Any, held: str) -> None:
    """A gateway lets go of a version when the last request on it is answered; its memory must not wait for a cycle."""
    made = executor()
    model = weakref.ref(getattr(made, held))
    gc.disable()
    try:
        del made
        assert model() is None
    finally:
        gc.enable()


def test_the_forests_have_as_many_features_as_the_kit_says() -> None:
    assert len(FOREST_COLUMNS) == FEATURES
