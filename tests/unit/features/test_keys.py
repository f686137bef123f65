from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.features.keys import encode_key

PARTS = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1), st.booleans())
SEQUENCES = st.lists(PARTS, max_size=4).map(tuple)


def typed(values: tuple[Any, ...]) -> list[tuple[type, Any]]:
    return [(type(value), value) for value in values]


@given(left=SEQUENCES, right=SEQUENCES)
def test_different_keys_have_different_bytes(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    assert (encode_key(left) == encode_key(right)) == (typed(left) == typed(right))


def test_keys_that_look_alike_are_apart() -> None:
    alike: list[tuple[Any, ...]] = [
        ("1", "11"), ("11", "1"), ("111",), ("1", "1", "1"), (1,), ("1",), (True,), (1, 11), (11, 1), (), ("",),
        ("", ""), (0,), (False,), ("a\x00", "b"), ("a", "\x00b"), ("e\u0301",), ("\u00e9",),
    ]  # fmt: skip
    for left, right in combinations(alike, 2):
        assert encode_key(left) != encode_key(right)


def test_the_bytes_stay_what_they_are() -> None:
    # Stores hold them: another encoding would lose every entity.
    assert encode_key(("JFK", 7, True)).hex() == "93a34a464b07c3"
    assert encode_key((-(2**63),)).hex() == "91d38000000000000000"


@pytest.mark.parametrize("wrong", [None, 1.0, b"x", ("x",), 2**64, -(2**63) - 1, "\ud800"])
def test_what_identifies_nothing_is_refused(wrong: Any) -> None:
    with pytest.raises(Invalid):
        encode_key(("a", wrong))
