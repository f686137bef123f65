"""Graphs and functions as executors: answers against arithmetic, each node once a batch, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.models import function_bundle, graph_bundle, mlp_bundle
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.registry.model import Bundle, Graph, Node, TensorSpec
from mainspring.serving.adapters.function import FunctionExecutor
from mainspring.serving.adapters.graph import GraphExecutor, combine
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.ports import Executor

SOURCE = "0" * 64
X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 3))
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
ONE, TWO = mlp_bundle(1), mlp_bundle(2)
BUNDLES = {ONE.digest: ONE, TWO.digest: TWO}


def ensemble(**how: Any) -> Bundle:
    nodes = (
        Node(name="a", bundle=ONE.digest, inputs={"x": "x"}),
        Node(name="b", bundle=TWO.digest, inputs={"x": "x"}),
        Node(name="c", bundle=ONE.digest, inputs={"x": "x"}),
        Node(name="all", inputs={"a": "a.y", "b": "b.y", "c": "c.y"}, **how),
    )
    return graph_bundle(Graph(nodes, {"y": "all.value"}), [X], [Y])


def load(digest: str) -> Executor:
    return OnnxExecutor(BUNDLES[digest])


def answers(made: Bundle) -> Any:
    return GraphExecutor(made, load).predict({"x": ROWS}, 6)["y"]


def test_an_ensemble_answers_as_arithmetic_does() -> None:
    one, two = (OnnxExecutor(made).predict({"x": ROWS}, 6)["y"].astype(np.float64) for made in (ONE, TWO))
    np.testing.assert_allclose(answers(ensemble(combine="mean")), (2 * one + two) / 3, rtol=1e-6)
    weighted = answers(ensemble(combine="weighted", weights=(1.0, 5.0, 2.0)))
    np.testing.assert_allclose(weighted, (3 * one + 5 * two) / 8, rtol=1e-6)
    np.testing.assert_array_equal(answers(ensemble(combine="vote")), one.astype(np.float32))


class Counting:
    """Another executor, and how often it was asked."""

    def __init__(self, inner: Executor, calls: Counter[int]) -> None:
        self.inner, self.calls, self.closed = inner, calls, 0
        self.inputs, self.outputs, self.inline = inner.inputs, inner.outputs, inner.inline

    def nullable(self, name: str) -> bool:
        return self.inner.nullable(name)

    def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
        self.calls[rows] += 1
        return self.inner.predict(inputs, rows)

    def close(self) -> None:
        self.closed += 1
        self.inner.close()


def test_each_node_is_called_once_a_batch_and_each_member_closed() -> None:
    calls: Counter[int] = Counter()
    made: list[Counting] = []

    def counted(digest: str) -> Executor:
        made.append(Counting(load(digest), calls))
        return made[-1]

    executor = GraphExecutor(ensemble(combine="mean"), counted)
    executor.predict({"x": ROWS}, 6)
    assert calls == {6: 3}
    assert len(made) == 2  # a bundle is loaded once, however many nodes it is
    executor.close()
    assert [each.closed for each in made] == [1, 1]


def test_members_are_closed_where_the_graph_is_refused() -> None:
    made: list[Counting] = []

    def half(digest: str) -> Executor:
        if made:
            raise NotFound(f"There is no bundle {digest[:12]}.")
        made.append(Counting(load(digest), Counter()))
        return made[-1]

    with pytest.raises(Corrupt, match="cannot run: There is no bundle"):
        GraphExecutor(ensemble(combine="mean"), half)
    assert made[0].closed == 1


def test_members_that_are_not_what_the_manifest_says_refuse_the_graph() -> None:
    one = Graph((Node(name="a", bundle=ONE.digest, inputs={"x": "x"}),), {"y": "a.y"})
    with pytest.raises(Corrupt, match=r"cannot run.*takes 'x'"):
        GraphExecutor(graph_bundle(one, [TensorSpec("x", "FP32", (-1, 5))], [Y]), load)
    with pytest.raises(Corrupt, match="its manifest declares"):
        GraphExecutor(graph_bundle(one, [X], [TensorSpec("y", "FP64", (-1, 3))]), load)


def test_a_function_in_a_graph_keeps_all_of_it_off_the_event_loop() -> None:
    pre = function_bundle("m:f", SOURCE, [X], [X])
    nodes = (
        Node(name="pre", bundle=pre.digest, inputs={"x": "x"}),
        Node(name="a", bundle=ONE.digest, inputs={"x": "pre.x"}),
    )
    made = graph_bundle(Graph(nodes, {"y": "a.y"}), [X], [Y])

    def member(digest: str) -> Executor:
        return FunctionExecutor(pre, lambda _: lambda x: x) if digest == pre.digest else load(digest)

    assert not GraphExecutor(made, member).inline
    assert GraphExecutor(ensemble(combine="mean"), load).inline


def test_what_a_node_refuses_is_told_with_its_name() -> None:
    with pytest.raises(Invalid, match="Node 'a': Input 'x' has the datatype FP64"):
        GraphExecutor(ensemble(combine="mean"), load).predict({"x": ROWS.astype(np.float64)}, 6)


LABELS = st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=7)


@given(LABELS)
def test_a_vote_is_what_most_say_and_of_a_tie_the_first(labels: list[list[int]]) -> None:
    arrays = [np.array(each, np.int64) for each in labels]
    found = combine(Node(name="v", combine="vote", inputs={"a": "x"}), arrays)
    for place in range(5):
        said = [each[place] for each in labels]
        most = max(Counter(said).values())
        assert found[place] == next(label for label in said if said.count(label) == most)


FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.lists(FLOATS, min_size=3, max_size=3)), min_size=1, max_size=5))
def test_a_weighted_mean_is_numpys(parts: list[tuple[float, list[float]]]) -> None:
    weights = [weight for weight, _ in parts]
    if sum(weights) < 1e-3:
        weights[0] = 1.0
    arrays = [np.array(values, np.float64) for _, values in parts]
    node = Node(name="w", combine="weighted", weights=tuple(weights), inputs={"a": "x"})
    np.testing.assert_allclose(combine(node, arrays), np.average(arrays, axis=0, weights=weights), rtol=1e-9, atol=1e-6)


def test_an_infinite_answer_of_no_weight_is_left_out() -> None:
    node = Node(name="w", combine="weighted", weights=(0.0, 1.0), inputs={"a": "x", "b": "y"})
    assert combine(node, [np.array([np.inf]), np.array([2.0])]).tolist() == [2.0]


def run(function: Any, rows: Any = ROWS, outputs: Any = (Y,)) -> dict[str, Any]:
    made = function_bundle("m:f", SOURCE, [X], list(outputs))
    return FunctionExecutor(made, lambda _: function).predict({"x": rows}, len(rows))


def test_a_function_answers_by_an_array_or_by_names() -> None:
    assert run(lambda x: x[:, :3])["y"].dtype == np.float32
    assert run(lambda x: {"y": x[:, :3], "more": 1}).keys() == {"y"}
    assert run(lambda x: np.zeros((6, 3), np.float64))["y"].dtype == np.float32


FAILING = {
    "raises": (lambda x: 1 / 0, "ZeroDivisionError"),
    "another shape": (lambda x: x, r"of shape \[6, 4\], not \[6, 3\]"),
    "fewer rows": (lambda x: x[:2, :3], r"of shape \[2, 3\]"),
    "nothing": (lambda x: None, "a wrong type"),
    "text": (lambda x: np.full((6, 3), "a"), "a wrong type"),
    "without the output": (lambda x: {"z": x}, "without 'y'"),
    "writes into what it was given": (lambda x: x.__iadd__(1), "read-only"),
    "another name": (lambda z: z, "TypeError"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_function_that_does_not_answer_as_it_says_has_failed(kind: str) -> None:
    function, said = FAILING[kind]
    with pytest.raises(ModelFailed, match=said):
        run(function)


def test_two_outputs_need_names() -> None:
    with pytest.raises(ModelFailed, match="must return a mapping"):
        run(lambda x: x, outputs=(Y, TensorSpec("z", "FP32", (-1,))))


def test_what_the_project_says_of_its_rows_is_told_as_it_is() -> None:
    def refuse(x: Any) -> Any:
        raise Invalid("Row 0 has no weight.")

    with pytest.raises(Invalid, match=r"Row 0 has no weight\."):
        run(refuse)
