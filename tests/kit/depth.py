"""The two depths of the suite: `make test`, the gate of every change, and `make test-deep`, before an issue is done."""

from __future__ import annotations

import os

import pytest

DEEP = os.environ.get("MAINSPRING_TESTS_DEEP") == "1"


deep = pytest.mark.skipif(not DEEP, reason="a part of `make test-deep`")


def examples(*, gate: int, deep: int) -> int:
    """Return how many examples, rounds or kills a test tries.

    `gate`: as many as find a fault within seconds. `deep`: as many as find a rare one.
    """
    return deep if DEEP else gate
