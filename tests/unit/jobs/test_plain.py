"""What a job may take and give."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.jobs.plain import decoded, encoded, storable

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
)


@given(PLAIN)
def test_what_json_can_say_comes_back(value: Any) -> None:
    text = encoded(value, "It")
    assert text.isascii()
    assert "\0" not in text
    assert decoded(text) == json.loads(text) == value


@pytest.mark.parametrize(
    ("value", "named"),
    [({"a": [1, {2: 3}]}, r"\['a'\]\[1\] has the key 2"), ([float("inf")], r"\[0\] is inf"), ({"a": b""}, "a bytes"),
     (object(), "a object"), ("x" * (1 << 20), "1,048,578 bytes")],
)  # fmt: skip
def test_what_it_cannot_say_is_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(Invalid, match=named):
        encoded(value, "The argument")


@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_error_can_be_stored(text: str) -> None:
    assert "\0" not in storable(text)
    storable(text).encode()
    assert len(storable(text * 100)) <= 4_100
