"""What is reported of servers over HTTP: each figure's best turn, each floor in its place, failures told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import figures
from figures import Measured
from mainspring.serving.load.generator import Load

TURNS = {
    "ours": [Measured(100.0, 300.0, 40.0, 5.0), Measured(120.0, 290.0, 50.0, 6.0)],
    "floor": [Measured(200.0, 400.0, 30.0, 4.0)],
    "asyncio and httptools": [Measured(400.0, 800.0, 20.0, 2.0)],
    "quick": [Measured(10.0, 12.0, 400.0, 50.0)],
    "absent": [Measured(note="not installed")],
}


def test_cases() -> None:
    rate, busy, p99, alone, harder, harder_busy, harder_alone = figures.cases("a row", TURNS)
    assert (rate.ours, rate.floor, rate.vs_floor, rate.vs_best_peer) == (120.0, 200.0, 0.6, 12.0)
    assert rate.peers == {"quick": 10.0, "absent": None}
    assert rate.notes == {"absent": "not installed"}
    assert (busy.ours, busy.floor, busy.vs_floor, busy.vs_best_peer) == (300.0, 400.0, 0.75, 25.0)
    assert (p99.ours, p99.floor, p99.vs_floor, p99.vs_best_peer) == (40.0, 30.0, 0.75, 10.0)
    assert (alone.ours, alone.floor, alone.vs_best_peer) == (5.0, 4.0, 10.0)
    assert (harder.ours, harder.floor, harder.vs_floor, harder.peers) == (120.0, 400.0, 0.3, {})
    assert (harder_busy.ours, harder_busy.floor) == (300.0, 800.0)
    assert (harder_alone.ours, harder_alone.floor) == (5.0, 2.0)
    assert "bare asyncio and httptools" in harder.case


def load(latencies: list[float], statuses: dict[int, int]) -> Load:
    return Load(2.0, None, sum(statuses.values()), Counter(statuses), np.array(latencies))


def test_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = {64: load([10.0] * 6, {200: 6, 503: 2}), 1: load([4.0, 5.0, 9.0], {200: 3})}
    asked: list[tuple[int, float]] = []

    def made(callers: int, seconds: float) -> Load:
        asked.append((callers, seconds))
        return loads[callers]

    busy = iter([5.0, 6.5])
    monkeypatch.setattr(figures, "processor_s", lambda: next(busy))
    found = figures.timed(made, 2.0)
    assert found == Measured(3, 4, 10.0, 5.0, "of 8 requests {503: 2} by status failed")
    assert [callers for callers, seconds in asked if seconds == 2.0] == [64, 1]


def test_nobody_was_answered() -> None:
    found = figures.timed(lambda *_: load([], {500: 4}), 1.0)
    assert (found.per_second, found.p99_us, found.alone_us) == (None, None, None)
    assert "{500: 4}" in found.note
