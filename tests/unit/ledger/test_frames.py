"""Frames: whatever is cut off or changed, what is read is what was written whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.ledger import frames
from mainspring.ledger.conformance import prediction


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


@pytest.mark.parametrize("tail", [bytes(4096), bytes(7), b"\x00\x00\x00\x00\xff\xff\xff\xff"])
def test_a_page_of_zeros_is_a_torn_tail(tail: bytes) -> None:
    (frame,) = batches([2])
    found = frames.scan(frame + tail, 0)
    assert (len(found.payloads), found.end, found.torn) == (1, len(frame), len(tail))
