from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT, format_instant
from mainspring.features.keys import encode_key, typed_key


def typed(dtype: DType, text: str) -> str | int | bool:
    return typed_key({"k": dtype}, {"k": text}, "entity 'e'")["k"]


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers(number: int) -> None:
    assert typed(ms.Int64, str(number)) == number


@given(st.integers(FIRST_INSTANT, LAST_INSTANT))
def test_instants(instant: int) -> None:
    assert typed(ms.Timestamp, format_instant(instant)) == instant


@given(st.text())
def test_texts_are_what_they_are(text: str) -> None:
    assert typed(ms.String, text) == text


def test_a_number_is_a_number_and_a_text_a_text() -> None:
    assert encode_key([typed(ms.Int64, "1")]) != encode_key([typed(ms.String, "1")])
    assert (typed(ms.Boolean, "true"), typed(ms.Boolean, "false")) == (True, False)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (ms.Int64, ""),
        (ms.Int64, "1.0"),
        (ms.Int64, " 1"),
        (ms.Int64, "1_000"),
        (ms.Int64, "٣"),
        (ms.Int64, "--1"),
        (ms.Int64, str(2**63)),
        (ms.Int64, "9" * 10_000),
        (ms.Int32, str(2**31)),
        (ms.Int32, str(-(2**31) - 1)),
        (ms.Boolean, "True"),
        (ms.Boolean, "1"),
        (ms.Timestamp, "2024-03-20T10:30:00"),
        (ms.Timestamp, "yesterday"),
    ],
)
def test_what_is_none_is_refused_with_the_key_and_the_way_out(dtype: DType, text: str) -> None:
    with pytest.raises(Invalid, match="the key 'k' of entity 'e'") as caught:
        typed(dtype, text)
    assert caught.value.fix
    assert len(str(caught.value)) < 400


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Invalid, match="needs the key 'b'"):
        typed_key({"a": ms.String, "b": ms.Int64}, {"a": "x", "c": "y"}, "entity 'e'")
