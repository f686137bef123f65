"""The two depths of the suite: `make test`, the gate of every change, and `make test-deep`, before an issue is done."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

DEEP = os.environ.get("MAINSPRING_TESTS_DEEP") == "1"
T = TypeVar("T")


deep = pytest.mark.skipif(not DEEP, reason="a part of `make test-deep`")


def examples(*, gate: T, deep: T) -> T:
    """Return how many examples, rounds or kills a test tries, or which.

    `gate`: as many as find a fault within seconds. `deep`: as many as find a rare one.
    """
    return deep if DEEP else gate


def in_turns(*choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return combinations with one of each of the choices: in the gate each choice at least once, else all."""
    if DEEP:
        return list(itertools.product(*choices))
    longest = max(map(len, choices))
    return [tuple(each[number % len(each)] for each in choices) for number in range(longest)]
