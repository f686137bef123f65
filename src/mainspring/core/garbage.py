"""The collection of reference cycles, where there are none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause the collection: it would visit each of many small objects several times, and find nothing.

    Decoded batches and imported modules have no cycles to collect. Without a pause it takes two thirds of the time of
    decoding batches of one row, and a quarter of that of an import.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
