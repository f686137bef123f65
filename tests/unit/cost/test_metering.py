"""Metering of a process's work, against loads that are known and against the kernel's own counts."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from mainspring.core.errors import Unavailable
from mainspring.core.time import ManualClock
from mainspring.cost.adapters.memory import MemoryUsage
from mainspring.cost.metering import Metering, name_work
from mainspring.cost.usage import Subject, Usage

RUN, VIEW, JOB = Subject("run", "r1"), Subject("view", "v"), Subject("job", "j")
_BURN = "import time\nwhile time.process_time() < 0.3: pass"


class Store(MemoryUsage):
    """Refuses while it is away."""

    away = False

    def add(self, source: str, sequence: int, usages: Sequence[Usage], state: bytes = b"") -> bool:
        if self.away:
            raise Unavailable("It is away.")
        return super().add(source, sequence, usages, state)

    def found(self) -> dict[tuple[str, str], int]:
        return {(each.subject.id, each.measure): each.amount for each in self.read(0, 10**18)}


@pytest.fixture
def store() -> Store:
    return Store()


def meter(store: Store, *, inside: bool = False) -> Metering:
    return Metering(lambda: store, ManualClock(10**15), "here", lambda: inside)


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_nested_work_is_charged_to_the_innermost_with_its_children(store: Store) -> None:
    metering = meter(store, inside=True)
    before = time.process_time()
    with metering.of(JOB):
        burn(0.1)
        with metering.of(None) as work:
            subprocess.run([sys.executable, "-S", "-c", _BURN], check=True)
            name_work(RUN)
            burn(0.05)
        burn(0.1)
    spent = time.process_time() - before
    metering.close()
    found = store.found()
    assert work.subject == RUN
    assert 0.2e6 <= found["j", "cpu"] <= 0.3e6
    assert 0.33e6 <= found["r1", "cpu"] <= 0.5e6
    # All of it is charged once: this process's own time, and the child's 0.3 s and start.
    assert found["j", "cpu"] + found["r1", "cpu"] == pytest.approx(1e6 * (spent + 0.32), abs=0.06e6)
    assert found["j", "wall"] > found["r1", "wall"] > 0.3e6
    assert found["r1", "memory"] > 1e6
    assert all(each.subject.inside for each in store.read(0, 10**18))


def test_threads_are_charged_their_own_time(store: Store) -> None:
    metering = meter(store)

    def work(subject: Subject, seconds: float) -> None:
        with metering.of(subject):
            burn(seconds)

    threads = [threading.Thread(target=work, args=each) for each in ((VIEW, 0.1), (JOB, 0.2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metering.close()
    found = store.found()
    assert found["v", "cpu"] == pytest.approx(0.1e6, abs=0.02e6)
    assert found["j", "cpu"] == pytest.approx(0.2e6, abs=0.02e6)


def test_a_command_has_stored_its_use_when_it_ends(store: Store) -> None:
    metering = meter(store)
    with metering.of(RUN):
        burn(0.02)
    assert store.found()["r1", "cpu"] >= 0.02e6
    with meter(store, inside=True).of(JOB):
        burn(0.02)
    assert ("j", "cpu") not in store.found(), "of a process that goes on, together with what follows"


def test_work_that_was_never_named_is_charged_to_what_is_around_it(store: Store) -> None:
    metering = meter(store)
    with metering.of(JOB), metering.of(None):
        burn(0.1)
    with metering.of(None):
        burn(0.01)
    metering.close()
    assert store.found().keys() == {("j", "cpu"), ("j", "memory"), ("j", "wall")}
    assert store.found()["j", "cpu"] > 0.09e6


def test_usage_waits_for_a_store_that_is_away_and_is_added_once(store: Store) -> None:
    metering = meter(store)
    store.away = True
    for _ in range(3):
        metering.add(VIEW, {"rows": 5})
        metering.flush()
    store.away = False
    metering.flush()
    metering.add(VIEW, {"rows": 1})
    metering.close()
    assert store.found() == {("v", "rows"): 16}
    assert len(store._sources) == 1
