"""The scan of a model file agrees with the `onnx` package, and fails only by `Corrupt`."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mainspring.core.errors import Corrupt
from mainspring.registry import onnx_file
from mainspring.registry.onnx_file import check_onnx
from mainspring.registry.onnx_wire import fields


def model(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"]), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)])


def outside(name: str = "w") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def trees(count: int) -> onnx.NodeProto:
    """A node with long runs of numbers and strings before whatever follows."""
    rng = np.random.default_rng(0)
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["z"],
        domain="ai.onnx.ml",
        nodes_values=rng.normal(size=count).tolist(),
        nodes_treeids=rng.integers(-(2**62), 2**62, count).tolist(),
        nodes_modes=[b"BRANCH_LEQ" if n % 2 else b"LEAF" for n in range(count)],
        long_strings=["s" * length for length in range(200)],
    )


def test_plain_models_pass() -> None:
    weight = numpy_helper.from_array(np.ones(1000, np.float32), "w")
    value = helper.make_node("Constant", [], ["c"], value=weight)
    check_onnx(model(value, trees(500), initializers=(weight,)).SerializeToString())


def test_an_empty_branch_of_the_default_data_location_passes() -> None:
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "w")
    tensor.data_location = TensorProto.DEFAULT
    check_onnx(model(initializers=(tensor,)).SerializeToString())


def branch(node: onnx.NodeProto) -> onnx.NodeProto:
    graph = helper.make_graph([node], "branch", [], [])
    return helper.make_node("If", ["x"], ["i"], then_branch=graph, else_branch=graph)


def sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add().values.CopyFrom(outside("sparse"))
    return made


def function() -> onnx.ModelProto:
    made = model()
    made.functions.append(
        helper.make_function(
            "", "f", ["a"], ["b"], [helper.make_node("Constant", [], ["b"], value=outside("inner"))],
            [helper.make_opsetid("", 18)],
        )
    )  # fmt: skip
    return made


def training() -> onnx.ModelProto:
    made = model()
    made.training_info.add().algorithm.initializer.append(outside("step"))
    return made


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (model(initializers=(outside(),)), "w"),
        (model(trees(300), initializers=(outside("late"),)), "late"),
        (model(helper.make_node("Constant", [], ["c"], value=outside("attribute"))), "attribute"),
        (model(helper.make_node("Many", [], ["c"], values=[outside("list")])), "list"),
        (model(branch(helper.make_node("Constant", [], ["c"], value=outside("deep")))), "deep"),
        (model(branch(branch(branch(helper.make_node("Constant", [], ["c"], value=outside("deeper")))))), "deeper"),
        (sparse(), "sparse"),
        (function(), "inner"),
        (training(), "step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_outside_the_file_is_found_wherever_it_hides(made: onnx.ModelProto, name: str) -> None:
    with pytest.raises(Corrupt, match=f"tensor '{name}' in another file"):
        check_onnx(made.SerializeToString())


def test_either_mark_of_outside_data_is_enough() -> None:
    for clear in ("external_data", "data_location"):
        tensor = outside()
        tensor.ClearField(clear)
        with pytest.raises(Corrupt, match="another file"):
            check_onnx(model(initializers=(tensor,)).SerializeToString())


def test_a_second_graph_field_is_refused() -> None:
    """Protobuf merges repeated occurrences of a message field, so a scan of the first alone would miss the second."""
    hidden = onnx.ModelProto()
    hidden.graph.initializer.append(outside("second"))
    content = model().SerializeToString() + hidden.SerializeToString()
    assert onnx.load_from_string(content).graph.initializer[0].name == "second"
    with pytest.raises(Corrupt, match="twice"):
        check_onnx(content)


@pytest.mark.parametrize("domain", ["com.microsoft", "com.microsoft.nchwc", "ai.onnx.training"])
def test_a_function_does_not_stand_for_an_operator_that_the_runtime_has(domain: str) -> None:
    made = with_function("Twice", domain=domain)
    made.functions[0].domain = domain
    with pytest.raises(Corrupt, match=domain):
        check_onnx(made.SerializeToString())


def test_a_file_of_many_functions_is_read_in_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function is entered once, however many others there are."""
    made = with_function("Twice")
    for number in range(300):
        made.functions.add().CopyFrom(made.functions[0])
        made.functions[-1].name = f"f{number}"
        made.graph.node.append(helper.make_node(f"f{number}", ["x"], [f"z{number}"], domain="pkg.torch"))
        made.opset_import.append(helper.make_opsetid("pkg.torch", 1))
    entered: list[str] = []

    def counted(message: memoryview, kind: str, name: str) -> Iterator[object]:
        entered.append(kind)
        return fields(message, kind, name)

    monkeypatch.setattr(onnx_file, "fields", counted)
    check_onnx(made.SerializeToString())
    assert entered.count("Function") == 301
    assert entered.count("Node") == 1 + 301 + 1 + 300


def test_an_attribute_after_a_run_of_numbers_is_scanned() -> None:
    """The tensor of an attribute may follow its numbers: the numbers are skipped, what follows is not."""
    attribute = onnx.AttributeProto(name="a", type=onnx.AttributeProto.FLOATS)
    attribute.floats.extend([1.0] * 50)
    tail = onnx.AttributeProto()
    tail.t.CopyFrom(outside("tail"))
    made = model(helper.make_node("Constant", [], ["c"]))
    merged = onnx.AttributeProto.FromString(attribute.SerializeToString() + tail.SerializeToString())
    made.graph.node[1].attribute.append(merged)
    with pytest.raises(Corrupt, match="tail"):
        check_onnx(made.SerializeToString())


def with_function(called: str, *, inner: str = "", domain: str = "pkg.torch") -> onnx.ModelProto:
    """A model that defines the function `pkg.torch.Twice`, and calls something of its domain."""
    made = model(helper.make_node(called, ["x"], ["z"], domain=domain))
    made.opset_import.append(helper.make_opsetid(domain, 1))
    nodes = [helper.make_node("Add", ["a", "a"], ["b"], domain=inner)]
    made.functions.append(
        helper.make_function("pkg.torch", "Twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    )
    return made


def test_functions_that_the_file_defines_itself_are_its_own() -> None:
    check_onnx(with_function("Twice").SerializeToString())


@pytest.mark.parametrize(
    "made",
    [
        with_function("Thrice"),  # of the same domain, but not defined
        with_function("Twice", inner="evil"),
        with_function("Twice", domain="evil"),
    ],
    ids=["undefined", "made of another", "of another domain"],
)
def test_and_nothing_else_is(made: onnx.ModelProto) -> None:
    with pytest.raises(Corrupt, match="which is not a standard ONNX domain"):
        check_onnx(made.SerializeToString())


@pytest.mark.parametrize("domain", ["com.microsoft", "evil", "ai.onnx.training"])
def test_operators_from_elsewhere_are_refused(domain: str) -> None:
    with pytest.raises(Corrupt, match=domain):
        check_onnx(model(helper.make_node("Anything", ["x"], ["z"], domain=domain)).SerializeToString())
    made = model()
    made.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(Corrupt, match=domain):
        check_onnx(made.SerializeToString())


def test_what_holds_no_graph_is_refused() -> None:
    for content in (b"", b"\x08\x09"):
        with pytest.raises(Corrupt, match="no ONNX graph"):
            check_onnx(content)


def test_a_cut_file_is_refused() -> None:
    content = model(trees(20)).SerializeToString()
    whole = {0}
    for end in range(1, len(content)):
        try:
            onnx.load_from_string(content[:end])
        except Exception:
            with pytest.raises(Corrupt):
                check_onnx(content[:end])
        else:
            whole.add(end)
    assert len(whole) < len(content) / 2


def test_graphs_without_end_are_refused() -> None:
    deepest = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1, np.float32), "w"))
    content = helper.make_graph([deepest], "g", [], []).SerializeToString()
    for _ in range(3000):  # by hand: protobuf's own writer gives up earlier
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # attribute g, node attribute, graph node
            content = tag + length(len(content)) + content
    with pytest.raises(Corrupt, match="deeper"):
        check_onnx(b"\x3a" + length(len(content)) + content)


def length(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


@given(st.binary(max_size=200))
def test_noise_is_corrupt_or_harmless(content: bytes) -> None:
    for noise in (content, b"\x3a" + length(len(content)) + content):
        try:
            check_onnx(noise)
        except Corrupt:
            continue


@given(st.randoms(use_true_random=False))
def test_a_damaged_model_never_hides_data_that_onnx_would_read(source: random.Random) -> None:
    """The oracle: whatever protobuf parses and finds to be outside, the scan refuses."""
    content = bytearray(model(trees(5), initializers=(outside(),)).SerializeToString())
    for _ in range(source.randint(1, 4)):
        content[source.randrange(len(content))] = source.randrange(256)
    try:
        parsed = onnx.load_from_string(bytes(content))
    except Exception:
        return
    tensors = list(parsed.graph.initializer)
    if any(each.external_data or each.data_location == TensorProto.EXTERNAL for each in tensors):
        with pytest.raises(Corrupt):
            check_onnx(bytes(content))
