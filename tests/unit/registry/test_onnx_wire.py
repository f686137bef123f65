"""ONNX messages: what the check reads is what every other parser reads, or the file is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mainspring.core.errors import Corrupt
from mainspring.registry.onnx_file import OPERATOR_DOMAINS, check_onnx
from mainspring.registry.onnx_wire import SCHEMA

NUMBERS = {"int", "int32", "float", "double"}


def varint(number: int, padding: int = 0) -> bytes:
    out = b""
    while number > 127 or padding:
        padding -= number <= 127
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def sized(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


# The schema


def test_the_fields_are_those_of_onnx() -> None:
    scalars = {
        FieldDescriptor.TYPE_INT64: "int", FieldDescriptor.TYPE_UINT64: "int", FieldDescriptor.TYPE_INT32: "int32",
        FieldDescriptor.TYPE_ENUM: "int32", FieldDescriptor.TYPE_FLOAT: "float", FieldDescriptor.TYPE_DOUBLE: "double",
        FieldDescriptor.TYPE_STRING: "str", FieldDescriptor.TYPE_BYTES: "bytes",
    }  # fmt: skip
    compared: dict[str, str] = {}

    def compare(message: Descriptor, kind: str) -> None:
        if compared.setdefault(message.full_name, kind) != kind or list(compared.values()).count(kind) > 2:
            raise AssertionError(f"{message.full_name} is read as {kind}")
        known = SCHEMA[kind]
        assert {each.number for each in message.fields} == set(known), message.full_name
        for each in message.fields:
            ours = known[each.number]
            assert (ours.repeated, ours.one_of) == (each.is_repeated, each.containing_oneof is not None), each.full_name
            if each.message_type is None:
                assert ours.kind == scalars[each.type], each.full_name
            elif each.message_type.full_name not in compared:
                compare(each.message_type, ours.kind)
            else:
                assert compared[each.message_type.full_name] == ours.kind

    compare(onnx.ModelProto.DESCRIPTOR, "Model")
    assert set(compared.values()) == set(SCHEMA)


# Encodings that parsers read differently


def outside(location: str = "secrets/pepper") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[32], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(*more: onnx.NodeProto) -> onnx.ModelProto:
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["i"])], "then", [], [])
    weights = [numpy_helper.from_array(np.arange(3, dtype=dtype), f"w{dtype}") for dtype in ("f4", "f8", "i4", "i8")]
    listed = helper.make_tensor("listed", TensorProto.INT64, [3], [1, -1, 2**40])
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner),
            helper.make_node("Twice", ["x"], ["y"], domain="own"),
            helper.make_node("Constant", [], ["k"], value_ints=[1, 2, -3]),
            *more,
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        [*weights, listed],
    )
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opset = helper.make_opsetid("", 18)
    twice = helper.make_function("own", "Twice", ["a"], ["b"], body, [opset])
    return helper.make_model(graph, opset_imports=[opset, helper.make_opsetid("own", 1)], functions=[twice])


def in_graph(field: bytes) -> bytes:
    """Return a plain model with one more field, already encoded, at the end of its graph."""
    made = model()
    graph = made.graph.SerializeToString()
    made.ClearField("graph")
    return made.SerializeToString() + sized(b"\x3a", graph + field)


TENSOR = outside().SerializeToString()
EVIL = helper.make_node("Run", ["x"], ["z"], domain="evil").SerializeToString()


@pytest.mark.parametrize(
    "field",
    [
        sized(b"\xaa\x80\x80\x80\x10", TENSOR),  # 536870917 to one parser, 5 (initializer) to another
        sized(b"\x8a\x80\x80\x80\x10", EVIL),  # the same for a node
        sized(b"\xaa\x80\x80\x80\x80\x80\x80\x80\x80\x01", TENSOR),
        sized(b"\xaa\x00", TENSOR),  # a tag that is longer than it need be
        b"\x2a" + varint(len(TENSOR), 1) + TENSOR,
        b"\x2b" + TENSOR + b"\x2c",  # a group
        sized(b"\x02", TENSOR),  # the field 0
        sized(varint(99 << 3 | 2), TENSOR),  # a field that nobody knows
        b"\x2d" + b"\0" * 4,  # of another wire type
        sized(b"\x12", b"again"),  # the name, a second time
        sized(b"\x52", b"\xff\xfe"),  # no UTF-8
        sized(b"\x52", b"a\0b"),
        sized(b"\x2a", b"\x70\x81\x80\x80\x80\x10"),  # a location of 33 bits, of which the lowest 32 say EXTERNAL
        sized(b"\x2a", b"\x70\x02"),  # a location that ONNX does not know
        sized(b"\x2a", sized(b"\x3a", b"\x81")),  # packed numbers that do not end
        sized(b"\x2a", sized(b"\x3a", b"\x81\x00")),
        sized(b"\x2a", sized(b"\x22", b"\0" * 5)),  # packed floats, cut
        sized(b"\x5a", sized(b"\x12", sized(b"\x0a", b"") + sized(b"\x22", b""))),  # two members of a oneof
    ],
)
def test_an_encoding_on_which_parsers_differ_is_refused(field: bytes) -> None:
    check_onnx(in_graph(b""))
    with pytest.raises(Corrupt):
        check_onnx(in_graph(field))


def test_lists_of_numbers_may_be_packed_or_not() -> None:
    tensor = outside()
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    plain = TensorProto(name="n", data_type=TensorProto.INT64)
    for dims in (b"\x08\x02\x08\x01", sized(b"\x0a", b"\x02\x01")):
        content = in_graph(sized(b"\x2a", plain.SerializeToString() + dims))
        check_onnx(content)
        assert list(onnx.load_from_string(content).graph.initializer[-1].dims) == [2, 1]


def test_a_file_that_onnx_runtime_would_take_for_its_own_format_is_refused() -> None:
    made = model()
    made.ClearField("ir_version")
    content = sized(b"\x12", b"xxORTM") + made.SerializeToString()
    check_onnx(content.replace(b"ORTM", b"ORTO"))
    with pytest.raises(Corrupt, match="own format"):
        check_onnx(content)


# Any of them, anywhere


class Spoilt:
    """Writes a message again, field by field, and spoils some of the fields."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose
        self.left = choose(st.integers(0, 2))  # so many fields are spoilt
        self.repacked = False  # numbers may stand packed or not, which changes the length and nothing else

    def message(self, content: bytes, kind: str) -> bytes:
        parts, at = [], 0
        while at < len(content):
            key, at = read(content, at)
            field = SCHEMA[kind][key >> 3]
            wire, begin = key & 7, at
            if wire == 2:
                size, begin = read(content, at)
                at = begin + size
            else:
                at = {0: read(content, at)[1], 1: at + 8, 5: at + 4}[wire]
            value = content[begin:at]
            if field.kind in SCHEMA:
                value = self.message(value, field.kind)
            parts += self.field(key, value, kind)
        if self.choose(st.integers(0, 9)) == 0:
            parts = self.choose(st.permutations(parts))
        return b"".join(parts)

    def field(self, key: int, value: bytes, kind: str) -> list[bytes]:
        known = SCHEMA[kind]
        texts = [each for each in range(1, 41) if each not in known or known[each].kind not in NUMBERS]

        def write(key: bytes, wire: int, length: int = 0) -> bytes:
            return key + (varint(len(value), length) if wire == 2 else b"") + value

        plain = write(varint(key), key & 7)
        if not self.left or self.choose(st.integers(0, 19)):
            return [plain]
        self.left -= 1
        number, wire = key >> 3, key & 7
        self.repacked |= known[number].kind in NUMBERS
        return self.choose(
            st.sampled_from(
                [
                    [write(varint(key | self.choose(st.integers(1, 2**31)) << 32), wire)],
                    [write(varint(key, self.choose(st.integers(1, 4))), wire)],
                    [write(varint(key), wire, self.choose(st.integers(1, 4)))],
                    [plain, plain],
                    [plain, write(varint(number << 3 | wire), wire)[: self.choose(st.integers(1, 9))]],
                    [varint(number << 3 | 3) + value + varint(number << 3 | 4)],
                    [write(varint(number << 3 | self.choose(st.sampled_from([0, 1, 2, 5]))), wire)],
                    [write(varint(self.choose(st.sampled_from(texts)) << 3 | wire), wire)],
                    [varint(key) + (varint(len(value)) if wire == 2 else b"") + value[:-1]],
                    [varint(key) + varint(int.from_bytes(value[:8], "little") | 1 << 33)],
                    *([[sized(varint(number << 3 | 2), value)]] if wire != 2 else []),
                ]
            )
        )


def read(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 128:
            return value, at


def every(message: Any) -> list[Any]:
    """Return a parsed message and all messages inside it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                found += every(each)
    return found


@given(st.data())
def test_what_passes_is_what_every_parser_reads(data: st.DataObject) -> None:
    """The oracle: what the protobuf library makes of the same bytes, and what it writes again."""
    spoilt = Spoilt(data.draw)
    content = spoilt.message(model().SerializeToString(), "Model")
    try:
        check_onnx(content)
    except Corrupt:
        return
    parsed = onnx.ModelProto.FromString(content)
    written = parsed.SerializeToString()
    assert spoilt.repacked or len(written) == len(content)  # nothing was merged, dropped, unknown or in a long form
    parsed.DiscardUnknownFields()
    assert parsed.SerializeToString() == written
    messages = every(parsed)
    own = {(each.domain, each.name) for each in parsed.functions}
    assert not any(isinstance(each, TensorProto) and (each.external_data or each.data_location) for each in messages)
    for node in (each for each in messages if isinstance(each, onnx.NodeProto)):
        assert node.domain in OPERATOR_DOMAINS or (node.domain, node.op_type) in own
