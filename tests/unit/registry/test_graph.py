"""Graphs of models: those that fit together pass, every way of not fitting is refused by a message that names it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.graph import check_graph, check_shapes, in_order
from mainspring.registry.model import Graph, Node, TensorSpec

A, B = "a" * 64, "b" * 64
X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 3))
NAMES = (["x"], ["y"])
NODES = (
    Node(name="one", bundle=A, inputs={"x": "x"}),
    Node(name="two", bundle=A, inputs={"x": "x"}),
    Node(name="mean", combine="mean", inputs={"a": "one.y", "b": "two.y"}),
)
GOOD = Graph(NODES, {"y": "mean.value"})


def member(digest: str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    return ({"x": X}, {"y": Y}) if digest == A else ({"x": TensorSpec("x", "FP32", (-1, 3))}, {"y": X})


def changed(place: int, **fields: object) -> Graph:
    nodes = list(NODES)
    nodes[place] = msgspec.structs.replace(nodes[place], **fields)
    return Graph(tuple(nodes), GOOD.outputs)


def test_what_fits_passes_and_says_what_it_gives() -> None:
    check_graph(GOOD, NAMES)
    assert check_shapes(GOOD, {"x": X}, member) == {"y": Y}


MANY = tuple(Node(name=f"n{number}", bundle=A, inputs={"x": "x"}) for number in range(65))
REFUSED = {
    "no nodes": (Graph((), {"y": "mean.value"}), "0 nodes"),
    "two of a name": (Graph((NODES[0], *NODES), GOOD.outputs), "4 nodes"),
    "too many": (Graph(MANY, {"y": "n0.y"}), "65 nodes"),
    "named as an input": (changed(0, name="x"), "that no input has"),
    "a dot in a name": (changed(0, name="a.b"), "letters and digits"),
    "a path as a bundle": (changed(0, bundle="../secrets"), "not a digest"),
    "both": (changed(0, combine="mean"), "either a bundle or a combination"),
    "neither": (changed(0, bundle=""), "either a bundle or a combination"),
    "another way to combine": (changed(2, combine="median"), "'median'"),
    "weights of a mean": (changed(2, weights=(1.0, 2.0)), "2 weights"),
    "too few weights": (changed(2, combine="weighted", weights=(1.0,)), "1 weights"),
    "weights of nothing": (changed(2, combine="weighted", weights=(0.0, 0.0)), "not all 0"),
    "negative weights": (changed(2, combine="weighted", weights=(-1.0, 2.0)), "at least 0"),
    "no inputs": (changed(2, inputs={}), "no inputs"),
    "from nowhere": (changed(0, inputs={"x": "z"}), "neither an input nor"),
    "an output of nowhere": (Graph(NODES, {"y": "x"}), "no node returns"),
    "an output more": (Graph(NODES, {"y": "mean.value", "z": "one.y"}), "its manifest declares"),
    "itself": (changed(2, inputs={"a": "mean.value"}), "cycle"),
    "a cycle": (changed(0, inputs={"x": "mean.value"}), "cycle"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_hold_together_is_refused(kind: str) -> None:
    graph, said = REFUSED[kind]
    with pytest.raises(Corrupt, match=said):
        check_graph(graph, NAMES)


def test_an_input_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(Corrupt, match=r"\['idle'\].*not used"):
        check_graph(GOOD, (["x", "idle"], ["y"]))


UNFIT = {
    "another shape": (changed(1, bundle=B), "'two' takes 'x' FP32.*receives 'x' FP32"),
    "another name": (changed(0, inputs={"z": "x"}), r"takes \['x'\] but receives \['z'\]"),
    "no such output": (changed(2, inputs={"a": "one.z"}), "from 'one.z'"),
    "other shapes combined": (changed(2, inputs={"a": "one.y", "b": "x"}), "combines"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_does_not_fit_is_refused(kind: str) -> None:
    graph, said = UNFIT[kind]
    with pytest.raises(Invalid, match=said):
        check_shapes(graph, {"x": X}, member)


def test_integers_are_voted_on_and_not_averaged() -> None:
    labels = TensorSpec("y", "INT64", (-1,))
    graph = changed(2, combine="vote")
    assert check_shapes(graph, {"x": X}, lambda _: ({"x": X}, {"y": labels}))["y"].datatype == "INT64"
    with pytest.raises(Invalid, match="by mean"):
        check_shapes(GOOD, {"x": X}, lambda _: ({"x": X}, {"y": labels}))


def test_an_open_dimension_takes_any_and_a_fixed_one_only_itself() -> None:
    def members(takes: tuple[int, ...]):
        return lambda _: ({"x": TensorSpec("x", "FP32", takes)}, {"y": Y})

    check_shapes(GOOD, {"x": X}, members((-1, -1)))
    for takes in ((-1, 5), (-1,), (-1, 4, 1)):
        with pytest.raises(Invalid, match="takes"):
            check_shapes(GOOD, {"x": X}, members(takes))


@given(st.permutations(range(12)), st.randoms())
def test_the_order_is_one_in_which_each_comes_after_what_it_takes_from(order: list[int], chance) -> None:
    nodes = []
    for place, number in enumerate(order):
        before = order[:place]
        source = f"n{chance.choice(before)}.y" if before else "x"
        nodes.append(Node(name=f"n{number}", bundle=A, inputs={"x": source}))
    chance.shuffle(nodes)
    seen: set[str] = {"x"}
    for node in in_order(Graph(tuple(nodes), {"y": "n0.y"})):
        assert {source.partition(".")[0] for source in node.inputs.values()} <= seen
        seen.add(node.name)
    assert len(seen) == 13
