"""Sealed values: nobody opens them without the key, nor moves or changes one unnoticed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mainspring.core.errors import Corrupt
from mainspring.ledger.model import Prediction
from mainspring.ledger.sealing import Opener, Sealer, hidden, revealed
from mainspring.security.data_keys import OneKey

KEY = OneKey(bytes(range(32)))
# Of the version before envelopes: prediction p1, {"email": "a@example.org"}, under the bytes from 0 to 31.
FORMER = bytes.fromhex(
    "018fd68a2b7962d33172dcfe0a9a03ebc400000000000000000000000081c4a3c56b358abb8ac6e5"
    "54ec22799860b84a4a748cce14082c5eebf005fe648a02ff343f"
)
VALUES = st.dictionaries(st.text(max_size=9), st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text())


@given(VALUES)
def test_what_is_opened_is_what_was_sealed(values: dict) -> None:
    sealer = Sealer(KEY)
    assert Opener(KEY).open("p1", sealer.seal("p1", values)) == values


def test_equal_values_are_sealed_differently() -> None:
    sealers = [Sealer(KEY), Sealer(KEY)]
    assert len({sealer.seal("p1", {"email": "a"}) for sealer in sealers for _ in range(100)}) == 200


@given(st.integers(0, 72), st.integers(1, 255))
@example(3, 3)  # the other kind of envelope
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    sealed = bytearray(Sealer(KEY).seal("p1", {"email": "a@example.org"}))
    assert len(sealed) == 73
    sealed[place] ^= change
    with pytest.raises(Corrupt, match="p1"):
        Opener(KEY).open("p1", bytes(sealed))


@given(st.integers(1, 80))  # none at all are values that were left out
def test_a_sealed_value_that_was_cut_off_is_noticed(length: int) -> None:
    with pytest.raises(Corrupt):
        Opener(KEY).open("p1", Sealer(KEY).seal("p1", {"email": "a" * 60})[:length])


@pytest.mark.parametrize(("key", "name"), [(OneKey(bytes(32)), "p1"), (KEY, "p2"), (None, "p1")])
def test_another_key_another_prediction_or_no_key_open_nothing(key: OneKey | None, name: str) -> None:
    with pytest.raises(Corrupt, match=name):
        Opener(key).open(name, Sealer(KEY).seal("p1", {"email": "a"}))


def test_values_of_the_version_before_are_read() -> None:
    assert Opener(KEY, lambda: bytes(range(32))).open("p1", FORMER) == {"email": "a@example.org"}


@pytest.mark.parametrize(("key", "name"), [(bytes(32), "p1"), (bytes(range(32)), "p2"), (None, "p1")])
def test_values_of_the_version_before_open_with_their_key_only(key: bytes | None, name: str) -> None:
    with pytest.raises(Corrupt, match="keys/ledger"):
        Opener(KEY, lambda: key).open(name, FORMER)


NAMED = st.dictionaries(st.sampled_from("abcd"), st.none() | st.integers(-9, 9) | st.text(max_size=3))


@given(NAMED, NAMED, NAMED, st.none() | st.sets(st.sampled_from("abcd")), st.booleans())
def test_what_is_hidden_is_nowhere_and_is_revealed_whole(
    keys: dict, request: dict, features: dict, personal: set[str] | None, left_out: bool
) -> None:
    plain = Prediction(
        id="p1", endpoint="e", model="m", version="1", digest="d", at=0, keys=keys, request=request, features=features,
        statuses={}, outputs={"a": 1.0}, latency_us=1, principal="",
    )  # fmt: skip
    made = hidden(plain, personal, None if left_out else Sealer(KEY))
    names = {*keys, *request, *features}
    gone = names if personal is None else names & personal
    for before, after in ((keys, made.keys), (request, made.request), (features, made.features)):
        assert after == {name: value for name, value in before.items() if name not in gone}
    assert set(made.personal) == gone
    assert made.outputs == {"a": 1.0}
    assert made.withheld == (None if not gone else "left out" if left_out else "encrypted")
    if not left_out:
        assert revealed(made, Opener(KEY)) == plain
