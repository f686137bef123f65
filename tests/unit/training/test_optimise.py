"""Variants of a graph: what they hold and answer, beside the estimator, NumPy, and ONNX Runtime's own quantisation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis
import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier

from mainspring.core.errors import NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours import Artefact, convert_estimator
from mainspring.training.flavours.scoring import artefact_feeds, artefact_scores
from mainspring.training.optimise.blockwise import in_blocks
from mainspring.training.optimise.half import in_half
from mainspring.training.optimise.students import tree_student
from mainspring.training.optimise.trees import cut, merged, narrow, trees_in
from mainspring.training.optimise.variants import KINDS, kinds_for, variants

pytestmark = pytest.mark.slow

NAMES = ["V.a", "V.b", "V.c"]
Array = np.ndarray[Any, Any]


def network(sizes: tuple[int, ...], *, gemm: bool = False, opset: int = 18) -> bytes:
    """Return a network of dense layers, its last a sigmoid."""
    rng, nodes, constants, given = np.random.default_rng(0), [], [], "x"
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        weights = (rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights.T.copy() if gemm else weights, f"w{number}"))
        constants.append(numpy_helper.from_array(rng.normal(size=outputs).astype(np.float32) / 10, f"b{number}"))
        if gemm:
            nodes.append(helper.make_node("Gemm", [given, f"w{number}", f"b{number}"], [f"a{number}"], transB=1))
        else:
            nodes.append(helper.make_node("MatMul", [given, f"w{number}"], [f"m{number}"]))
            nodes.append(helper.make_node("Add", [f"b{number}", f"m{number}"], [f"a{number}"]))
        given = f"r{number}"
        nodes.append(helper.make_node("Sigmoid" if number == len(sizes) - 2 else "Relu", [f"a{number}"], [given]))
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, sizes[-1]])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return bytes(made.SerializeToString())


def answers(content: bytes, rows: Array, size: int = 0) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    size = size or len(rows)
    parts = [session.run(None, {"x": rows[start : start + size]})[0] for start in range(0, len(rows), size)]
    return np.concatenate(parts)


def given(count: int, width: int) -> Array:
    return np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("gemm", [False, True])
def test_variants_of_a_network_are_near_smaller_and_answer_a_row_for_itself(gemm: bool) -> None:
    content, rows = network((64, 96, 33, 1), gemm=gemm), given(200, 64)
    rows[7] *= 1000
    wanted, sizes = answers(content, rows), {}
    bounds = {"graph": 0.0, "fp16": 2e-3, "int8-static": 0.1, "int8-dynamic": 0.02, "int4-weights": 0.15}
    for each in variants(content, kinds_for(content), lambda: {"x": given(200, 64)}):
        assert each.why_not == "", each
        found, usual = answers(each.content, rows), np.arange(200) != 7  # the far row is beyond the calibrated range
        assert np.abs(found - wanted)[usual].max() <= bounds[each.name], each.name
        for size in (1, 7):
            np.testing.assert_array_equal(answers(each.content, rows, size), found, each.name)
        sizes[each.name] = len(each.content)
    assert sizes.keys() == bounds.keys()
    assert len(content) > 1.8 * sizes["fp16"]
    assert sizes["fp16"] > 1.4 * sizes["int8-dynamic"] > 1.8 * sizes["int4-weights"]


@pytest.fixture(scope="module")
def sessions() -> dict[str, Any]:
    """Variants of a network whose rows are long enough for several blocks and kernels, open."""
    found = {}
    content = network((300, 96, 1))
    for each in variants(content, kinds_for(content), lambda: {"x": given(200, 300)}):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        found[each.name] = ort.InferenceSession(each.content, options, providers=["CPUExecutionProvider"])
    return found


@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(
    st.lists(st.integers(0, 39), min_size=1, max_size=70), st.integers(0, 3), st.sampled_from([1e-3, 1.0, 1e3])
)
def test_a_row_is_answered_alike_in_any_batch(
    sessions: dict[str, Any], batch: list[int], near: int, size: float
) -> None:
    """Bit for bit, whatever stands beside it, how often, and how large it is."""
    rows = given(40, 300)
    rows[near] *= np.float32(size)
    assert sessions.keys() == {"graph", "fp16", "int8-static", "int8-dynamic", "int4-weights"}
    for name, session in sessions.items():
        (together,) = session.run(None, {"x": rows[batch]})
        for place in {0, len(batch) // 2, len(batch) - 1}:
            (alone,) = session.run(None, {"x": rows[batch[place] : batch[place] + 1]})
            np.testing.assert_array_equal(alone[0], together[place], name)


def test_what_stays_in_floating_point_is_named() -> None:
    rng = np.random.default_rng(0)
    constants = {
        "filters": rng.normal(size=(8, 2, 4, 4)), "first": rng.normal(size=(128, 64)), "tiny": rng.normal(size=(8, 2)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "filters"], ["seen"], name="edges", pads=[1, 1, 2, 2]),
        helper.make_node("Flatten", ["seen"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["wide"], name="first"),
        helper.make_node("Reshape", ["wide", "square"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["squared"], name="attention"),
        helper.make_node("MatMul", ["squared", "tiny"], ["y"], name="small"),
    ]
    graph = helper.make_graph(
        nodes,
        "picture",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8, 2])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in constants.items()]
        + [numpy_helper.from_array(np.array([-1, 8, 8]), "square")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    rows = np.random.default_rng(1).normal(size=(40, 2, 4, 4)).astype(np.float32)
    found = {each.name: each for each in variants(made, ("int8-static", "int8-dynamic"), lambda: {"x": rows})}
    assert found["int8-dynamic"].kept == (
        "Conv 'edges' (256 weights) stays in floating point; MatMul 'attention' multiplies computed matrices"
    )
    assert found["int8-static"].kept == ""


def test_the_runtimes_dynamic_int8_does_not_which_is_why_it_is_no_variant(tmp_path: Any) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(onnx.load_model_from_string(network((64, 96, 1))), tmp_path / "dynamic.onnx")
    rows = given(20, 64)
    rows[7] *= 1000
    dynamic = (tmp_path / "dynamic.onnx").read_bytes()
    assert np.abs(answers(dynamic, rows, 1) - answers(dynamic, rows))[:7].max() > 0.01


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_in_blocks_are_the_nearest_of_their_scale(bits: int) -> None:
    content = network((45, 7), opset=21)
    constants = {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load_model_from_string(in_blocks(content, bits)).graph.initializer
    }
    (whole,) = (each for name, each in constants.items() if name.endswith(f"_{bits}"))
    (scales,) = (each for name, each in constants.items() if name.endswith("_scales"))
    plain = numpy_helper.to_array(onnx.load_model_from_string(content).graph.initializer[0])
    top = 2 ** (bits - 1) - 1
    for row in range(45):
        for column in range(7):
            block = slice(row // 32 * 32, row // 32 * 32 + 32)
            scale = np.abs(plain[block, column]).max() / top
            assert scales[row // 32, column] == pytest.approx(scale, rel=1e-6)
            nearest = min(range(-top, top + 1), key=lambda each: abs(each * scale - plain[row, column]))
            assert int(whole[row, column]) == nearest


def test_what_cannot_be_made_says_why() -> None:
    tiny = {each.name: each.why_not for each in variants(network((8, 1)), ("int8-dynamic",), dict)}
    assert tiny == {"int8-dynamic": "No product of the model has a constant FP32 matrix of 32 or more inputs."}
    small = in_blocks(network((64, 1)), 8)
    again = [each.why_not for each in variants(small, ("int8-static", "int4-weights"), lambda: {"x": given(9, 64)})]
    assert again == ["The model is quantised already: it has 1 DequantizeLinear."] * 2
    with pytest.raises(NotConvertible, match="not one sum of trees: it has none"):
        cut(network((8, 1)), 0.5, {"x": given(9, 8)})
    with pytest.raises(NotConvertible, match="few FP32 weights"):
        in_half(forest_of(RandomForestClassifier(3, max_depth=2), "binary")[0])
    strict = onnx.load_from_string(forest_of(RandomForestClassifier(3, max_depth=2), "binary")[0])
    (modes,) = [each.t for node in strict.graph.node for each in node.attribute if each.name == "nodes_modes"]
    modes.CopyFrom(onnx.numpy_helper.from_array(np.ones(modes.dims[0], np.uint8)))  # below, instead of at most
    with pytest.raises(NotConvertible, match="splits of other kinds"):
        narrow(strict.SerializeToString())


def table(count: int = 400) -> tuple[pd.DataFrame, Array]:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(rng.normal(size=(count, 3)).astype(np.float32), columns=NAMES)
    return frame, (frame["V.a"] + frame["V.b"] * frame["V.c"] + rng.normal(size=count) > 0).to_numpy().astype(int)


def forest_of(estimator: Any, task: str) -> tuple[bytes, Any, pd.DataFrame, Any]:
    frame, labels = table()
    estimator = estimator.fit(frame, labels)
    artefact = convert_estimator(estimator, [Input(name, DType.Float32) for name in NAMES], task)
    return artefact.content, artefact, frame, estimator


def scores(artefact: Any, content: bytes, frame: pd.DataFrame) -> Array:
    return artefact_scores(type(artefact)("onnx", "model.onnx", content), frame, NAMES)[:, 0]


def test_a_cut_forest_is_the_mean_of_its_first_trees() -> None:
    content, artefact, frame, forest = forest_of(RandomForestClassifier(12, max_depth=5, random_state=0), "binary")
    fewer = cut(content, 0.25, artefact_feeds(artefact, frame, NAMES))
    assert trees_in(fewer) == 3
    first = [tree.predict_proba(frame.to_numpy())[:, 1] for tree in forest.estimators_[:3]]
    np.testing.assert_allclose(scores(artefact, fewer, frame), np.mean(first, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("boosting", "task"),
    [
        (GradientBoostingClassifier(n_estimators=40, learning_rate=0.4, random_state=0), "binary"),
        (GradientBoostingRegressor(n_estimators=40, learning_rate=0.4, random_state=0), "regression"),
    ],
)
def test_cut_boosting_is_its_first_stages(boosting: Any, task: str) -> None:
    content, artefact, frame, fitted = forest_of(boosting, task)
    fewer = cut(content, 0.5, artefact_feeds(artefact, frame, NAMES))
    staged = fitted.staged_predict_proba(frame) if task == "binary" else fitted.staged_predict(frame)
    wanted = [*staged][19]
    np.testing.assert_allclose(scores(artefact, fewer, frame), wanted[:, 1] if task == "binary" else wanted, atol=1e-6)


def test_several_classes_keep_a_tree_of_each() -> None:
    frame, _ = table()
    kind = np.digitize(frame["V.a"], [-0.5, 0.5])
    boosting = GradientBoostingClassifier(n_estimators=40, learning_rate=0.4, random_state=0).fit(frame, kind)
    artefact = convert_estimator(boosting, [Input(name, DType.Float32) for name in NAMES], "multiclass")
    fewer = cut(artefact.content, 0.25, artefact_feeds(artefact, frame, NAMES))
    found = artefact_scores(type(artefact)("onnx", "model.onnx", fewer), frame, NAMES)
    np.testing.assert_allclose(found, [*boosting.staged_predict_proba(frame)][9], atol=1e-6)


def test_merged_leaves_change_no_bit_and_leave_no_split_without_effect() -> None:
    content, artefact, frame, _ = forest_of(RandomForestClassifier(6, max_depth=6, random_state=0), "binary")
    alike = with_few_values(content)
    fewer = merged(alike)
    assert splits(fewer) == splits(alike, merge=True) < splits(alike)
    np.testing.assert_array_equal(scores(artefact, fewer, frame), scores(artefact, alike, frame))
    with pytest.raises(NotConvertible, match="equal leaves"):
        merged(fewer)


def attributes(content: bytes) -> dict[str, Any]:
    model = onnx.load_model_from_string(content)
    node = next(each for each in model.graph.node if each.op_type == "TreeEnsemble")
    return {
        each.name: numpy_helper.to_array(each.t) if each.type == each.TENSOR else list(each.ints)
        for each in node.attribute
    }


def with_few_values(content: bytes) -> bytes:
    """Return the model with the values of its leaves rounded to two."""
    model = onnx.load_model_from_string(content)
    node = next(each for each in model.graph.node if each.op_type == "TreeEnsemble")
    weights = next(each for each in node.attribute if each.name == "leaf_weights")
    values = numpy_helper.to_array(weights.t)
    weights.t.CopyFrom(numpy_helper.from_array(np.where(values > values.mean(), 0.125, 0.0), "leaf_weights"))
    return bytes(model.SerializeToString())


def splits(content: bytes, *, merge: bool = False) -> int:
    """Count the splits of a model, those apart whose sides all give the same if they were merged; roots stay."""
    of = attributes(content)

    def count(place: int, leaf: int) -> tuple[int, float | None]:
        if leaf:
            return 0, float(of["leaf_weights"][place])
        below = [
            count(of[f"nodes_{side}nodeids"][place], of[f"nodes_{side}leafs"][place]) for side in ("true", "false")
        ]
        if merge and below[0][1] is not None and below[0][1] == below[1][1]:
            return 0, below[0][1]
        return 1 + below[0][0] + below[1][0], None

    return sum(max(1, count(root, 0)[0]) for root in of["tree_roots"])


def test_narrow_trees_send_rows_at_thresholds_to_the_same_side() -> None:
    content, artefact, frame, forest = forest_of(RandomForestClassifier(8, random_state=0), "binary")
    near = frame.iloc[:100].copy()
    splits = np.concatenate([tree.tree_.threshold[tree.tree_.feature == 0] for tree in forest.estimators_])[:100]
    near["V.a"] = np.resize(splits, 100).astype(np.float32)
    small = narrow(content)
    assert len(small) < len(content)
    for rows in (frame, near):
        np.testing.assert_allclose(scores(artefact, small, rows), scores(artefact, content, rows), atol=1e-6)
    with pytest.raises(NotConvertible, match="FP32 already"):
        narrow(small)


def test_each_kind_belongs_to_trees_or_to_networks() -> None:
    content = forest_of(RandomForestClassifier(2, max_depth=2), "binary")[0]
    both = {*kinds_for(content), *kinds_for(network((8, 1)))}
    assert both == KINDS.keys()
    assert set(kinds_for(content)) & set(kinds_for(network((8, 1)))) == {"graph"}


def test_a_student_of_trees_predicts_what_its_teacher_does_with_texts_and_nulls() -> None:
    frame, _ = table(2000)
    frame["V.kind"] = pd.Series(np.resize(np.array(["x", "y", None], object), len(frame)), dtype=object)
    frame.loc[::7, "V.a"] = np.nan
    odds = frame["V.a"].fillna(0.5) + (frame["V.kind"] == "x") * 2 - 1
    teacher = (1 / (1 + np.exp(-odds))).to_numpy(np.float64)
    inputs = [*(Input(name, DType.Float32) for name in NAMES), Input("V.kind", DType.String, ("x", "y"))]
    content = tree_student(frame, teacher, inputs, ("probability",), "binary", trees=40)
    found = artefact_scores(Artefact("onnx", "model.onnx", content), frame, [*NAMES, "V.kind"])
    assert np.abs(found[:, 0] - teacher).mean() < 0.02
    number = tree_student(frame, odds.to_numpy(), inputs, ("value",), "regression", trees=40)
    found = artefact_scores(Artefact("onnx", "model.onnx", number), frame, [*NAMES, "V.kind"])
    assert np.abs(found[:, 0] - odds).mean() < 0.1
    with pytest.raises(NotConvertible, match="has one output, and the model has 3"):
        tree_student(frame, teacher, inputs, ("a", "b", "c"), "multiclass", trees=4)
    for some, told in ((frame[:0], "of 0 predictions 0"), (frame, f"of {len(frame):,} predictions 1 are not finite")):
        with pytest.raises(NotConvertible, match=told):
            tree_student(some, np.where(np.arange(len(some)) == 3, np.inf, 1.0), inputs, ("y",), "regression", trees=4)


def test_tables_of_embeddings_are_in_8_bits_row_by_row() -> None:
    table = np.random.default_rng(3).normal(size=(300, 16)).astype(np.float32)
    table[5] = 0
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["row"]), helper.make_node("MatMul", ["row", "same"], ["y"])],
        "table",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 16])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.eye(16, dtype=np.float32), "same")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    small = in_blocks(made, 4)
    assert len(small) < len(made) / 2.5
    found = answers(small, np.arange(300))
    assert (np.abs(found - table).max(axis=1) <= np.abs(table).max(axis=1) / 254 + 1e-7).all()
