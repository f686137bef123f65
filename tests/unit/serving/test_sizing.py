"""Sizes of machines against formulas, hand counts and brute force."""

from __future__ import annotations

from itertools import pairwise
from math import exp, factorial, inf
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mainspring.core.errors import Invalid
from mainspring.serving.simulation.model import Endpoint
from mainspring.serving.simulation.times import Times
from mainspring.serving.sizing.capacity import Capacities, highest, slowed
from mainspring.serving.sizing.choosing import MOST, Kind, choose
from mainspring.serving.sizing.cores import Scaling, fitted, multiple
from mainspring.serving.sizing.kernels import product, small_product
from mainspring.serving.sizing.layers import Layers, least_us, measured
from mainspring.serving.sizing.probing import probe
from mainspring.serving.sizing.roofline import Interval, expected_us, faster
from mainspring.serving.sizing.speed import Rate, Speed
from mainspring.serving.sizing.work import FP32, INT8, Product, Work, work_of


def machine(
    *, scalar: float = 1.0, fp32: float = 100.0, int8: float = 400.0, moved: float = 50.0, **more: float
) -> Speed:
    """A machine whose products have one rate, whatever their shape."""
    return Speed(
        name="there", processor="", cores=2.0, memory_gib=8.0, scalar=scalar,
        rates=[Rate(FP32, 1, 64, fp32), Rate(INT8, 1, 64, int8)],
        outputs=[Rate(kind, 1, 64, 1 / more.get("output", 1e-9)) for kind in (FP32, INT8)],
        moved_gb_s=moved, node_us=more.get("node", 1e-9), together={1: 1.0, 2: 1.9},
    )  # fmt: skip


def network(*widths: int, turned: bool = False) -> bytes:
    """A dense network with ReLU after each layer."""
    nodes, held, last = [], [], "x"
    for place, (wide, narrow) in enumerate(pairwise(widths)):
        shape = (narrow, wide) if turned else (wide, narrow)
        held.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"w{place}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{place}"], [f"g{place}"], transB=int(turned)))
        nodes.append(helper.make_node("Relu", [f"g{place}"], [last := f"h{place}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", wide])
        for name, wide in (("x", widths[0]), (last, widths[-1]))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("turned", [False, True])
def test_work_of_a_dense_network_is_counted_by_hand(turned: bool) -> None:
    found = work_of(network(30, 50, 7, turned=turned))
    assert found.products == (Product(FP32, 1, 30, 50, operator="Gemm"), Product(FP32, 1, 50, 7, operator="Gemm"))
    assert found.operations == 2 * (30 * 50 + 50 * 7)
    assert found.moved == 4 * 2 * (50 + 7)  # each ReLU reads and writes
    assert (found.nodes, found.known) == (4, True)


def test_work_of_a_convolution_and_of_a_product_of_activations() -> None:
    held = [numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["c", "t"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "high", 10]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    found = work_of(made.SerializeToString(), {"x": (1, 3, 6, 10)})
    assert found.products == (
        Product(FP32, 6 * 10, 27, 8, operator="Conv"), Product(FP32, 8 * 6, 10, 6, constant=False),
    )  # fmt: skip
    assert "attention" in found.not_in_int8
    assert "convolutions" in Work(found.products[:1]).not_in_int8
    assert found.operations == 2 * (60 * 27 * 8 + 8 * 6 * 10 * 6)


def test_products_that_a_runtime_fuses_are_of_8_bits() -> None:
    before = work_of(network(32, 64, 16))
    found = work_of(in_8_bits(network(32, 64, 16)))
    assert {each.kind for each in found.products} == {INT8}
    assert found.operations == before.operations
    assert not before.not_in_int8
    assert "already" in found.not_in_int8


def in_8_bits(content: bytes) -> bytes:
    from mainspring.training.optimise.static_int8 import quantised

    return quantised(content, {"x": np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)})


def run_by_the_runtime(content: bytes, folder: Path) -> list[str]:
    """The operators that ONNX Runtime makes of a model, in their order."""
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "made.onnx"), 4
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "made.onnx").graph.node]


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_a_layer_of_8_bits_alone_has_the_operators_of_one_in_a_network(operator: str, tmp_path: Path) -> None:
    alone = run_by_the_runtime(small_product(32, 64, operator), tmp_path)
    whole = run_by_the_runtime(in_8_bits(product(32, 64, operator)), tmp_path)
    assert alone == whole
    assert len(alone) == 3


def test_layers_of_8_bits_replace_those_of_a_network() -> None:
    half = Layers(within=60.0, alone=60.0, small=30.0).in_int8(100.0)
    assert half.value == pytest.approx(100 / 70)  # the other 40 µs stay
    assert half.low < half.value < half.high
    colder = Layers(within=80.0, alone=60.0, small=30.0).in_int8(100.0)
    assert colder.value == pytest.approx(100 / (20 + 40))
    assert colder.low < 100 / 70 < 100 / 60 < colder.high
    slower = Layers(within=10.0, alone=10.0, small=30.0).in_int8(15.0)
    assert slower.value == pytest.approx(15 / 35)
    disturbed = Layers(within=300.0, alone=240.0, small=120.0).in_int8(100.0)
    assert disturbed.value == pytest.approx(2.0)  # never more than the whole
    assert 0 < disturbed.low < disturbed.high


def test_layers_of_a_network_are_measured() -> None:
    content = network(32, 64, 64, 64, 8)
    found = measured(content, work_of(content), (1, 4))
    assert list(found) == [1, 4]
    for each in found.values():
        assert each.within >= each.alone > 0
        assert each.small > 0


def test_the_fastest_call_of_a_profile_that_was_cut_off() -> None:
    def node(at: int, took: int, operator: str = "MatMul") -> dict[str, object]:
        return {"cat": "Node", "name": "m_kernel_time", "ts": at, "dur": took, "args": {"op_name": operator}}

    calls = [{"cat": "Session", "name": "model_run", "ts": at, "dur": 90, "args": {}} for at in (0, 100, 200, 300)]
    events = [
        node(10, 9), node(20, 9), node(30, 90, "Relu"), calls[0],
        node(110, 5), node(120, 6), node(130, 1, "Relu"), calls[1],
        node(210, 7), node(220, 7), calls[2], node(310, 1), calls[3],
    ]  # fmt: skip
    assert least_us(events, ("MatMul",)) == 11
    assert least_us(events, ("Gemm",)) == least_us([], ("MatMul",)) == 0


def test_no_layers_are_measured_of_texts_and_none_of_double_numbers_is_known() -> None:
    held = [numpy_helper.from_array(np.zeros((4, 3)), "w")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows", wide]) for name, wide in (("x", 4), ("y", 3))
    ]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", ends[:1], ends[1:], held)
    ids = [helper.make_opsetid("", 18)]
    found = work_of(helper.make_model(graph, opset_imports=ids, ir_version=9).SerializeToString())
    assert (found.known, found.other) == (False, {"MatMul": 1})
    assert "no products" in found.not_in_int8
    places = numpy_helper.from_array(np.array([0, 3], np.int64), "places")
    node = helper.make_node("Reshape", ["x", "places"], ["y"])
    graph = helper.make_graph(
        [node], "net", [ends[0]], [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)], [places]
    )
    with pytest.raises(Invalid, match="by chance"):
        measured(helper.make_model(graph, opset_imports=ids, ir_version=9).SerializeToString(), found, (1,))
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, ["rows", 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "net", text[:1], text[1:])
    with pytest.raises(Invalid, match="string"):
        measured(helper.make_model(graph, opset_imports=ids, ir_version=9).SerializeToString(), found, (1,))


def test_trees_have_work_that_is_not_known() -> None:
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "trees", ends[:1], ends[1:])
    ids = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    found = work_of(helper.make_model(graph, opset_imports=ids, ir_version=9).SerializeToString())
    assert not found.known
    assert found.other == {"TreeEnsembleRegressor": 1}
    ratios = faster({1: 50.0}, machine(), machine(scalar=2.0, fp32=50.0, int8=1600.0), found)
    assert ratios[1].low < 0.5
    assert ratios[1].value == 2.0
    assert ratios[1].high > 4.0


def test_a_roofline_is_the_sum_of_its_parts() -> None:
    work = Work((Product(FP32, 1, 100, 100), Product(INT8, 2, 100, 50)), moved=1_000, nodes=3)
    at = machine(output=2.0, node=0.5)
    by_hand = 4 * (20_000 / 100e3 + 20_000 / 400e3) + 4 * 200 * 2e-3 + 4 * 1_000 / 50e3 + 3 * 0.5
    assert expected_us(work, 4, at) == pytest.approx(by_hand)


def test_a_machine_that_is_twice_as_fast_takes_half_as_long() -> None:
    work = Work((Product(FP32, 1, 1000, 1000),), moved=5_000, nodes=10)
    here, there = machine(node=1.0), machine(scalar=2.0, fp32=200.0, int8=800.0, moved=100.0, node=0.5)
    for took in (10.0, 35.0, 500.0):  # below and above the roofline
        found = faster({1: took}, here, there, work)[1]
        assert found.low < 2.0 < found.high
        assert found.value == pytest.approx(2.0)
    same = faster({1: 35.0}, here, here, work)[1]
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)


def test_rates_lie_between_those_that_were_measured() -> None:
    rates = [Rate(FP32, rows, width, rows * width) for rows in (1, 8) for width in (64, 1024)]
    at = Speed(**{name: getattr(machine(), name) for name in Speed.__struct_fields__} | {"rates": rates})
    assert at.gops(FP32, 1, 64) == pytest.approx(64)
    assert at.gops(FP32, 8, 1024) == pytest.approx(8192)
    assert at.gops(FP32, 8**0.5, 256) == pytest.approx(8**0.5 * 256)  # geometric
    assert at.gops(FP32, 500, 5000) == pytest.approx(8192)
    assert at.gops(FP32, 0.1, 1) == pytest.approx(64)
    with pytest.raises(Invalid, match="int8"):
        at.gops(INT8, 1, 64)
    with pytest.raises(Invalid, match="not above 0"):
        machine(scalar=0.0)
    described = {name: getattr(machine(), name) for name in Speed.__struct_fields__}
    for wrong in (
        {"cores": 0.5}, {"rates": []}, {"outputs": []}, {"rates": [Rate(FP32, 0, 64, 1.0)]}, {"together": {-2: 1.0}},
        {"rates": [Rate(FP32, 1, 64, 1.0), Rate(FP32, 8, 256, 1.0)]},  # the rate of 1 and 256 is missing
    ):  # fmt: skip
        with pytest.raises(Invalid, match="advise machine"):
            Speed(**described | wrong)


@given(st.floats(0, 0.5), st.floats(0, 0.01), st.integers(3, 6))
def test_a_law_of_scaling_is_found_again(contention: float, coherence: float, count: int) -> None:
    law = Scaling(contention, coherence)
    together = {1 << place: law.multiple(1 << place) for place in range(count)}
    found = fitted(together)
    assert found.multiple(100) == pytest.approx(law.multiple(100), rel=1e-6)
    assert multiple(together, 64).low <= law.multiple(64) <= multiple(together, 64).high or 64 in together


def test_two_cores_alone_give_amdahls_law() -> None:
    found = fitted({1: 1.0, 2: 1 / (0.1 + 0.9 / 2)})
    assert found.coherence == 0.0
    assert found.multiple(inf) != found.multiple(2)
    assert found.multiple(8) == pytest.approx(1 / (0.1 + 0.9 / 8))  # a tenth is serial
    assert fitted({1: 1.0}).multiple(16) == 16
    assert multiple({1: 1.0, 2: 1.9}, 16).low < 0.9 * multiple({1: 1.0, 2: 1.9}, 16).value  # far from what was seen


def test_the_highest_load_of_constant_services_is_that_of_erlangs_formula() -> None:
    takes, deadline = 0.01, 0.1

    def in_time(rate: float) -> float:
        """Share of requests that wait so long at most that they are in time, of a queue M/D/1 (Erlang, 1909)."""
        left, share = deadline - takes, rate * takes
        terms = ((rate * (k * takes - left)) ** k / factorial(k) * exp(-rate * (k * takes - left)) for k in range(10))
        return (1 - share) * sum(terms)

    expected = next(rate for rate in range(99, 0, -1) if in_time(rate) >= 0.99)
    alone = Endpoint(
        times=Times({1: [takes * 1e6]}), overhead_us=0.0, deadline_us=round(deadline * 1e6), cores=9.0,
        max_batch_rows=1, max_queue_rows=1 << 20,
    )  # fmt: skip
    # Requests that would be late are refused, so that those behind them are in time: somewhat more than without.
    assert 0.95 * expected < highest(alone, seed=2) < 1.15 * expected


def test_capacities_follow_the_speed_of_a_core() -> None:
    asked = []

    def find(endpoint: Endpoint, _first: float) -> float:
        asked.append(endpoint)
        return 1e6 / (endpoint.times.mean(1) + endpoint.overhead_us)

    found = Capacities(Endpoint(times=Times.exactly(800.0), overhead_us=200.0, deadline_us=50_000), 0.9, find)
    for speed in (0.3, 0.5, 1.0, 1.3, 2.0):
        assert found.at(speed) == pytest.approx(900 * speed)
    count = len(asked)
    assert found.at(1.35) == pytest.approx(900 * 1.35)
    assert len(asked) == count
    assert slowed(found.endpoint, 4.0).times.mean(1) == pytest.approx(200.0)


_kinds = st.builds(
    lambda name, low, more, hour, processes: Kind(
        name=name, processes=processes, rate=Interval(low, low * more, low * more), hour=hour
    ),
    st.text("abc", min_size=1, max_size=3), st.floats(0, 500), st.floats(1, 3),
    st.none() | st.floats(0.01, 5), st.integers(1, 64),
)  # fmt: skip


@given(st.lists(_kinds, max_size=6, unique_by=lambda each: each.name), st.floats(0.5, 5_000), st.integers(0, 2))
def test_machines_are_those_of_brute_force(kinds: list[Kind], demand: float, spare: int) -> None:
    found = choose(kinds, demand, spare=spare)
    for each in found:
        assert (each.count - spare) * each.kind.rate.low >= demand * (1 - 1e-8)
        assert each.count == 1 + spare or (each.count - spare - 1) * each.kind.rate.low < demand
        assert each.headroom(demand, lost=spare).low >= -1e-8
    enough = [
        (kind.hour * count, kind.name)
        for kind in kinds
        if kind.hour is not None
        for count in range(1 + spare, MOST + 1)
        if (count - spare) * kind.rate.low >= demand * (1 - 1e-9)
    ]
    priced = [each for each in found if each.hour is not None]
    assert found[: len(priced)] == priced  # unknown prices follow
    if enough:
        assert priced[0].hour == pytest.approx(min(enough)[0])
    else:
        assert not priced
    assert {each.name for each in kinds} - {each.kind.name for each in found} == {
        each.name for each in kinds if (MOST - spare) * each.rate.low < demand * (1 - 1e-9)
    }


def test_this_machine_is_measured() -> None:
    found = probe("here", together=False)
    assert found.gops(FP32, 64, 1024) > found.gops(FP32, 1, 1024) > 0.1
    assert found.together == {1: 1.0}
    assert found.node_us < 50
    assert found.memory_gib > 0.1
