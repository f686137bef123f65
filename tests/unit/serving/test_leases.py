"""Models are closed when nobody can ask them any more, wherever the last who could is collected."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import thread as standard
from contextlib import contextmanager
from typing import Any

import pytest

from mainspring.serving.plane.leases import Leases


class Lane:
    """Whoever asks an executor."""


class Model:
    """An executor that says when it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        assert not self.closed.is_set()
        self.closed.set()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail, rather than hang for ever, where a lock is waited for that its own thread holds."""
    over = threading.Event()
    watch = threading.Thread(target=lambda: over.wait(seconds) or _give_up(), daemon=True)
    watch.start()
    yield
    over.set()


def _give_up() -> None:
    import faulthandler
    import os

    faulthandler.dump_traceback()
    os._exit(3)


def model(leases: Leases) -> tuple[Any, Lane]:
    made, lane = Model(), Lane()
    leases.lend(made, lane)  # type: ignore[arg-type]
    return made, lane


def test_it_is_closed_once_it_is_dropped_and_its_last_lane_is_gone() -> None:
    leases = Leases()
    made, lane = model(leases)
    other = Lane()
    leases.lend(made, other)
    leases.drop(made)
    del lane
    leases.collect()
    assert not made.closed.wait(0.05)
    del other
    leases.collect()
    assert made.closed.wait(30)
    asyncio.run(leases.stop())


def test_one_that_is_still_served_stays_open() -> None:
    leases = Leases()
    made, lane = model(leases)
    del lane
    leases.collect()
    assert not made.closed.wait(0.05)
    leases.drop(made)
    assert made.closed.wait(30)
    asyncio.run(leases.stop())


@pytest.mark.parametrize("lock", ["ours", "the standard library's"])
def test_the_last_lane_may_be_collected_under_a_lock(lock: str) -> None:
    """Garbage is collected anywhere: it was, while a thread pool took its own lock, and the gateway stood still."""
    leases = Leases()
    made, lane = model(leases)
    lane.itself = lane  # type: ignore[attr-defined]  # a cycle, which only the collector finds
    leases.drop(made)
    del lane
    held: Any = leases._changing if lock == "ours" else standard._global_shutdown_lock  # type: ignore[attr-defined]
    with within(60), held:
        gc.collect()
    leases.collect()
    assert made.closed.wait(30)
    asyncio.run(leases.stop())


def test_what_stays_in_use_costs_a_stop_a_few_collections_of_garbage() -> None:
    """It was one each moment, and a gateway of much memory stopped half a minute later than one of little."""
    leases = Leases()
    made, lane = model(leases)
    leases.drop(made)
    collected = 0

    def count(phase: str, told: dict[str, int]) -> None:
        nonlocal collected
        collected += phase == "start" and told["generation"] == 2

    gc.callbacks.append(count)
    try:
        asyncio.run(leases.stop())
    finally:
        gc.callbacks.remove(count)
    assert 1 <= collected <= 7
    assert not made.closed.is_set()
    del lane
