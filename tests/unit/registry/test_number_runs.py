"""Runs that are skipped many at a time end where a walk from field to field would end them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt
from mainspring.registry.onnx_file import check_onnx
from mainspring.registry.onnx_wire import end_of_run

Part = Callable[[int, random.Random], bytes]

FLOAT, INT, STRING = b"\x3d", b"\x40", b"\x4a"


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def floats(count: int, source: random.Random) -> bytes:
    return b"".join(FLOAT + struct.pack("<f", source.choice((0.0, 5e-43, source.random()))) for _ in range(count))


def ints(count: int, source: random.Random) -> bytes:
    largest = source.choice((0x7F, 0x7F, 300, 2**64 - 1))
    return b"".join(INT + varint(source.randint(0, largest)) for _ in range(count))


def strings(count: int, source: random.Random) -> bytes:
    words = source.choice(([b"LEAF", b"BRANCH_LEQ"], [b"J", b"JJ", b"", b"=@J"], [b"s" * 31, b"J" * 200, b"L" * 127]))
    return b"".join(STRING + varint(len(word)) + word for word in source.choices(words, k=count))


def tensors(count: int, source: random.Random) -> bytes:
    """What a run must never swallow: fields of other numbers, which may hold bytes like those of a run."""
    inside = floats(source.randint(0, 3), source)
    return b"".join(b"\x2a" + varint(len(inside)) + inside for _ in range(min(count, 2)))


def field_by_field(content: bytes, position: int) -> int:
    """The oracle: where the first byte stands that begins no whole field of a run."""
    while position < len(content):
        kind, begin = content[position : position + 1], position + 1
        if kind == FLOAT:
            end = begin + 4
        elif kind in (INT, STRING):
            end = begin
            while end < len(content) and content[end] >= 0x80 and end - begin < 9:
                end += 1
            end += 1
            if end > len(content) or content[end - 1] >= 0x80:
                return position
            last, size = content[end - 1], end - begin
            if (size > 1 and not last) or (size == 10 and last > 1):  # longer than need be, or than 64 bits
                return position
            if kind == STRING:
                size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content[begin:end]))
                if size >= 0x80:  # read one by one by whoever called
                    return position
                end += size
        else:
            return position
        if end > len(content):
            return position
        position = end
    return position


def agrees(content: bytes, position: int) -> None:
    """A long string may be left to the caller, who reads it as any other field and asks again."""
    found, exact = position, field_by_field(content, position)
    while found < exact:
        after = end_of_run(memoryview(content), found)
        if after == found:
            assert content[found : found + 1] == STRING
            assert content[found + 1] > 31
            after = found + 2 + content[found + 1]
        found = after
    assert found == exact
    assert end_of_run(memoryview(content), exact) == exact


@example(seed=5085, kinds=[ints], counts=[1] * 5, changes=1)  # a number beyond 64 bits
@given(
    seed=st.integers(0, 2**32),
    kinds=st.lists(st.sampled_from([floats, ints, strings, tensors]), min_size=1, max_size=5),
    counts=st.lists(st.sampled_from([1, 31, 32, 33, 40, 500, 2000]), min_size=5, max_size=5),
    changes=st.integers(0, 3),
)
def test_a_run_ends_where_a_walk_by_fields_ends_it(
    seed: int, kinds: list[Part], counts: list[int], changes: int
) -> None:
    source = random.Random(seed)
    content = bytearray(b"".join(kind(count, source) for kind, count in zip(kinds, counts, strict=False)))
    for _ in range(changes):
        content[source.randrange(len(content))] = source.choice((0x3D, 0x40, 0x4A, 0x2A, 0x80, source.randrange(256)))
    for each in (bytes(content), bytes(content[: source.randint(0, len(content))])):
        agrees(each, 0)
        agrees(each, source.randint(0, len(each)))


@pytest.mark.parametrize("before", [floats, ints, strings])
@pytest.mark.parametrize("count", [*range(28, 36), 200, 205, 255, 256, 512, 513, 700, 1024, 4000])
def test_what_follows_a_run_is_looked_at_wherever_the_windows_end(before: Part, count: int) -> None:
    """A tensor that keeps its data elsewhere, right after runs of many lengths, is found."""
    outside = b"\x42\x01w\x70\x01"  # TensorProto: name w, data_location EXTERNAL
    for seed in range(4):
        run = before(count, random.Random(seed))
        attribute = run + b"\x2a" + varint(len(outside)) + outside + run
        node = b"\x2a" + varint(len(attribute)) + attribute
        graph = b"\x0a" + varint(len(node)) + node
        with pytest.raises(Corrupt, match="tensor 'w' in another file"):
            check_onnx(b"\x3a" + varint(len(graph)) + graph)


def test_a_varint_that_does_not_end_is_no_part_of_a_run() -> None:
    whole = ints(3000, random.Random(1))
    assert end_of_run(memoryview(whole + INT + b"\xff" * 9 + b"\x01"), 0) == len(whole) + 11
    assert end_of_run(memoryview(whole + INT + b"\xff" * 10 + b"\x01"), 0) == len(whole)
    assert end_of_run(memoryview(whole + INT), 0) == len(whole)
