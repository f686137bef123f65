"""Envelopes: what was changed, cut, moved or put in another order does not open."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt
from mainspring.security.envelopes import CHUNK, key_of, seal, seal_each, seal_parts, unseal, unseal_each, unseal_parts
from mainspring.security.model import DataKey

KEY = DataKey("0f" * 16, bytes(range(32)))
SMALL = seal(KEY, "store", "one", b"a" * 40)
HEAD, TAG = 36, 16
LARGE = bytes(range(256)) * (3 * CHUNK // 256) + b"end"  # of four chunks
SEALED = seal(KEY, "store", "one", LARGE)


def _one(envelope: bytes, record: str = "one", secret: bytes = KEY.secret) -> bytes:
    return unseal(secret, "store", record, envelope)


def _parts(envelope: bytes) -> bytes:
    return b"".join(unseal_parts(lambda _: KEY.secret, "store", "one", [envelope[:5], envelope[5:90], envelope[90:]]))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 3])
def test_a_content_comes_back_whole_or_in_parts(size: int) -> None:
    content = LARGE[:size]
    whole = seal(KEY, "store", "one", content)
    parts = b"".join(seal_parts(KEY, "store", "one", [content[:9], content[9:]]))
    assert len(whole) == len(parts) == HEAD + size + TAG * max(1, -(-size // CHUNK))
    assert _one(whole) == _one(parts) == _parts(whole) == content
    assert key_of(whole) == KEY.id


@given(st.lists(st.binary(max_size=90), max_size=9), st.lists(st.integers(1, 200), max_size=9))
def test_how_it_is_cut_makes_no_difference(parts: list[bytes], cuts: list[int]) -> None:
    envelope, start, given_ = b"".join(seal_parts(KEY, "s", "r", parts)), 0, []
    for cut in [*cuts, len(envelope)]:
        given_.append(envelope[start : start + cut])
        start += cut
    assert b"".join(unseal_parts(lambda _: KEY.secret, "s", "r", given_)) == b"".join(parts)


def test_equal_contents_are_encrypted_differently() -> None:
    assert len({seal(KEY, "store", "one", b"a") for _ in range(200)}) == 200


@pytest.mark.parametrize("place", range(len(SMALL)))
def test_each_changed_byte_is_noticed(place: int) -> None:
    changed = bytearray(SMALL)
    changed[place] ^= 1 << place % 8
    if 4 <= place < 20:  # the id of the key: another key is looked for
        assert key_of(bytes(changed)) != KEY.id
        return
    with pytest.raises(Corrupt):
        _one(bytes(changed))


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 7))
def test_a_changed_bit_of_a_large_content_is_noticed(place: int, bit: int) -> None:
    changed = bytearray(SEALED)
    changed[place] ^= 1 << bit
    if not 4 <= place < 20:
        with pytest.raises(Corrupt):
            _one(bytes(changed))


@given(st.integers(0, len(SEALED) - 1) | st.integers(0, 3).map(lambda chunks: HEAD + chunks * (CHUNK + TAG)))
@pytest.mark.parametrize("opened", [_one, _parts])
def test_a_truncation_is_noticed(opened: Callable[[bytes], bytes], length: int) -> None:
    with pytest.raises(Corrupt):
        opened(SEALED[:length])


@given(st.permutations(range(4)), st.integers(1, 4))
@pytest.mark.parametrize("opened", [_one, _parts])
def test_chunks_in_another_order_or_repeated_or_missing_are_noticed(
    opened: Callable[[bytes], bytes], order: list[int], count: int
) -> None:
    chunks = [SEALED[HEAD + at : HEAD + at + CHUNK + TAG] for at in range(0, len(SEALED) - HEAD, CHUNK + TAG)]
    for chosen in (order[:count], [*order, order[0]]):
        if chosen != [0, 1, 2, 3]:
            with pytest.raises(Corrupt):
                opened(SEALED[:HEAD] + b"".join(chunks[each] for each in chosen))


def test_a_chunk_of_another_envelope_is_noticed() -> None:
    other = seal(KEY, "store", "one", LARGE)
    cut = HEAD + CHUNK + TAG
    with pytest.raises(Corrupt):
        _one(SEALED[:cut] + other[cut:])


def test_neither_another_record_nor_another_store_nor_another_key_opens_it() -> None:
    for envelope in (SMALL, SEALED):
        for opened in (
            lambda envelope=envelope: _one(envelope, "two"),
            lambda envelope=envelope: unseal(KEY.secret, "stor", "eone", envelope),
            lambda envelope=envelope: _one(envelope, secret=bytes(32)),
        ):
            with pytest.raises(Corrupt):
                opened()


def test_parts_are_encrypted_in_the_memory_of_some_chunks() -> None:
    given_, taken = iter(range(50)), []

    def parts() -> Iterator[bytes]:
        for _ in given_:
            taken.append(1)
            yield bytes(CHUNK)

    made = seal_parts(KEY, "store", "one", parts())
    next(made)
    next(made)
    assert len(taken) <= 2
    assert len(next(made)) == CHUNK + TAG


def _each(envelopes: list[bytes], records: list[str], secret: bytes = KEY.secret) -> list[bytes]:
    return unseal_each(lambda _: secret, "store", records, envelopes)


@given(st.lists(st.binary(max_size=90), max_size=9), st.lists(st.binary(max_size=90), max_size=9))
def test_contents_of_several_calls_open_in_any_order(some: list[bytes], more: list[bytes]) -> None:
    contents = [*some, *more]
    records = [str(number) for number in range(len(contents))]
    sealed = seal_each(KEY, "store", records[: len(some)], some) + seal_each(KEY, "store", records[len(some) :], more)
    assert _each(sealed[::-1], records[::-1]) == contents[::-1]
    assert [len(each) for each in sealed] == [HEAD + 4 + len(content) + TAG for content in contents]
    assert len(set(sealed)) == len(sealed)
    assert {key_of(each) for each in sealed} <= {KEY.id}


def test_one_of_several_is_neither_moved_nor_changed_nor_of_the_other_kind() -> None:
    one, two = seal_each(KEY, "store", ["one", "two"], [b"a" * 40, b"b" * 40])
    renumbered = one[:HEAD] + two[HEAD : HEAD + 4] + one[HEAD + 4 :]
    broken = [two, renumbered, one[:-1], one[: HEAD + 2], one[:9], one[:-1] + bytes([one[-1] ^ 1]), SMALL]
    for envelope in broken:
        with pytest.raises(Corrupt):
            _each([envelope], ["one"])
    with pytest.raises(Corrupt):
        _each([one], ["one"], secret=bytes(32))
    with pytest.raises(Corrupt):
        _one(one)
