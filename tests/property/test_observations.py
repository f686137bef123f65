"""Observations of a rollout, over random histories: each is told once, however the store is written, tidied or read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.locks import MemoryLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ports import LakeTables
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import failure, observed, prediction
from mainspring.ledger.ports import PredictionLog, PredictionStore

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 3), st.integers(0, 2)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
        st.tuples(st.just("expire"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("shorten"), st.just(0), st.just(0)),
        st.tuples(st.just("read"), st.just(0), st.just(0)),
    ),
    max_size=14,
)
Steps = list[tuple[str, int, int]]


def carry_out(log: PredictionLog, store: PredictionStore, steps: Steps) -> None:
    """Check a history: what was told is what was compacted, but for what had been expired before anybody read it."""
    position, number = "", 0
    told: list[str] = []
    pending: dict[str, int] = {}  # id -> when it was made; appended
    unread: dict[str, int] = {}  # compacted
    for step, first, second in [*steps, ("compact", 0, 0), ("read", 0, 0), ("read", 0, 0)]:
        if step == "write":
            made = range(number, number + first)
            failed = range(number + first, number + first + second)
            number += first + second
            log.fail([failure(each) for each in failed])
            log.append([*(observed(each) for each in made), prediction(1_000 + number), observed(2_000, rollout="r2")])
            pending |= {f"p{each}": 1_000 * each for each in made} | {f"f{each}": 1_000 * each for each in failed}
        elif step == "compact":
            store.compact()
            unread, pending = unread | pending, {}
        elif step == "expire":
            store.tidy(made_before=1_000 * first, replaced_before=2**60)
            unread = {each: at for each, at in unread.items() if at >= 1_000 * first}
        elif step == "shorten":
            store.tidy(replaced_before=2**60, entries=1)
        else:
            found = store.observations("r1", position)
            assert found is not None
            position = found.position
            ids = [str(row) for batch in found.batches for row in batch["id"].to_pylist()]
            assert sorted(ids) == sorted(unread)
            told += ids
            unread = {}
    assert len(told) == len(set(told))


@settings(max_examples=examples(gate=60, deep=1_000))
@given(STEPS)
def test_in_memory(steps: Steps) -> None:
    ledger: Any = MemoryLedger()
    carry_out(ledger, ledger, steps)


@pytest.mark.parametrize("lake", ["memory", "delta"])
def test_over_segments_and_a_lake(lake: str) -> None:
    @settings(max_examples=examples(gate=6, deep=200), deadline=None)
    @given(STEPS)
    def check(steps: Steps) -> None:
        with TemporaryDirectory() as folder:
            tables: LakeTables = MemoryLake() if lake == "memory" else DeltaLake(Path(folder) / "lake", MemoryLocks())
            log = SegmentLog(Path(folder) / "ledger", flush_within_s=0.001)
            try:
                carry_out(log, LakePredictions(Path(folder) / "ledger", tables, MemoryLocks()), steps)
            finally:
                log.close()

    check()
