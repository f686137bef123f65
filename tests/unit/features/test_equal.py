"""When two values of one feature are one."""

from __future__ import annotations

from typing import Any

import pytest

from mainspring.features.equal import same

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("left", "right", "one"),
    [
        (1.0, 1.0 + 1e-9, True),
        (1.0, 1.001, False),
        (0.0, 1e-12, True),
        (NAN, NAN, True),
        (NAN, 1.0, False),
        (INF, INF, True),
        (INF, -INF, False),
        (2, 2.0, True),  # a plain reader sums integers to an integer
        (None, None, True),
        (0, None, False),
        (0.0, None, False),
        ("a", "a", True),
        ("1", 1, False),
        ("1", 1.0, False),
        (1, True, False),
        (True, True, True),
        (2**62, 2**62 + 1, False),
    ],
)
def test_when_two_values_are_one(left: Any, right: Any, one: bool) -> None:
    assert same(left, right) is one
    assert same(right, left) is one
