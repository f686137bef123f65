"""Frames: whatever is cut off or changed, what is read is what was written whole."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt
from mainspring.ledger import frames
from mainspring.ledger.batches import encode
from mainspring.ledger.conformance import HEADING, batch, prediction
from mainspring.ledger.model import Asked, Batch, Heading


def batches(sizes: list[int]) -> list[bytes]:
    numbers = iter(range(1_000))
    return [frames.encode([prediction(next(numbers)) for _ in range(size)]) for size in sizes]


@given(st.lists(st.integers(1, 3), max_size=4), st.data())
def test_what_is_cut_off_anywhere_leaves_the_whole_frames_before_it(sizes: list[int], data: st.DataObject) -> None:
    written = batches(sizes)
    content = b"".join(written)
    cut = data.draw(st.integers(0, len(content)))
    found = frames.scan(content[:cut], 100)
    ends = [sum(map(len, written[: count + 1])) for count in range(len(written))]
    whole = sum(end <= cut for end in ends)
    assert len(found.payloads) == whole
    assert found.end == 100 + ([0, *ends][whole])
    assert found.torn == cut - (found.end - 100)
    assert found.damaged == 0


@given(st.data())
def test_a_changed_byte_costs_its_own_frame_at_most_or_the_rest(data: st.DataObject) -> None:
    written = batches([1, 2, 1])
    content = bytearray(b"".join(written))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    found = frames.scan(bytes(content), 0)
    read = {each.id for payload in found.payloads for each in frames.decode(payload)}
    untouched = {"p0"} if place >= len(written[0]) else set()
    assert untouched <= read < {"p0", "p1", "p2", "p3"}
    assert found.damaged + found.torn > 0


def test_a_last_frame_of_which_not_all_pages_reached_the_disk_is_a_torn_tail() -> None:
    first, second, third = batches([2, 1, 1])
    torn = second[: len(second) // 2] + bytes(len(second) - len(second) // 2)
    found = frames.scan(first + torn, 0)
    assert (len(found.payloads), found.end, found.torn, found.damaged) == (1, len(first), len(torn), 0)
    found = frames.scan(first + torn + third, 0)
    assert (len(found.payloads), found.torn, found.damaged) == (2, 0, 1)


@pytest.mark.parametrize("tail", [bytes(4096), bytes(7), b"\x00\x00\x00\x00\xff\xff\xff\xff"])
def test_a_page_of_zeros_is_a_torn_tail(tail: bytes) -> None:
    (frame,) = batches([2])
    found = frames.scan(frame + tail, 0)
    assert (len(found.payloads), found.end, found.torn) == (1, len(frame), len(tail))


def test_a_frame_of_an_older_version_is_read() -> None:
    predictions = [prediction(1), prediction(2)]
    old = [msgspec.to_builtins(each) for each in predictions]
    for each in old:
        for name in ("request_id", "share", "personal", "sealed"):
            del each[name]
    assert frames.decode(msgspec.msgpack.encode(old)) == predictions


@pytest.mark.parametrize(
    "payload", [b"\x93\x01\x02\x03", b"\x92\x80\x91\x97\x00\x00\xcb" + bytes(8) + b"\x90" * 4, b""]
)
def test_a_frame_of_something_else_is_refused(payload: bytes) -> None:
    with pytest.raises(Corrupt):
        frames.decode(payload)


def test_batches_are_counted_as_they_are_encoded() -> None:
    encoded = [encode(batch(1, 1, 2), 0), encode(batch(9, 4), 0)]
    assert list(frames.counted({0: HEADING}, encoded)) == [("late", 3), ("late", 4)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
def test_a_batch_of_arrays_is_read_as_its_rows(rows: list[int], wide: bool) -> None:
    count = sum(rows)
    column = np.arange(count * (70 if wide else 2), dtype=np.float32).reshape(count, -1)
    made = Batch(
        Heading("e", "m", "1", "d", features=("x",), outputs=("y",)),
        7,
        1.0,
        [f"p{number}" for number in range(count)],
        [Asked("key", 1, each) for each in rows],
        [column, list(range(count))],
    )
    (found,) = [frames.decode(frames.framed({0: made.heading}, [encode(made, 0)])[8:])]
    assert [each.outputs["y"] for each in found] == list(range(count))
    assert [each.features["x"] for each in found] == (["float32[70]"] * count if wide else column.tolist())
