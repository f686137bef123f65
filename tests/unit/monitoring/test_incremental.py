"""A monitor that looks again and again says what one says that looks once at the end, and reads nothing twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.depth import examples
from kit.worlds import arrivals, bundle, label, normal_reference
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import Arrivals
from mainspring.monitoring.model import Window
from unit.monitoring.test_monitor import COLUMNS, REFERENCE, WINDOW, World, steady, traffic

pytestmark = pytest.mark.slow

FAR = normal_reference(COLUMNS, np.random.default_rng(9))


class CountedLedger(MemoryLedger):
    """Counts the rows that `arrivals` gave."""

    rows = 0

    def arrivals(self, *args: Any, **settings: Any) -> Arrivals | None:
        found = super().arrivals(*args, **settings)
        if found is None:
            return None
        batches = list(found.batches)
        self.rows += sum(batch.num_rows for batch in batches)
        return Arrivals(found.position, iter(batches))


def world() -> World:
    return World(bundle(REFERENCE), bundle(FAR, digest="d2"), wait=1_000 * WINDOW)


def counted() -> tuple[World, CountedLedger]:
    """Return a world whose predictions are counted when they are read, and its ledger."""
    made = world()
    made.ledger = ledger = CountedLedger(made.observer)
    made.monitor = made.make()
    return made, ledger


def again(watched: World) -> World:
    """Return a world with the same predictions and labels, at whose windows nobody has looked."""
    other = world()
    other.ledger, other.sketches, other.labels = watched.ledger, watched.sketches, watched.labels
    other.monitor = other.make()
    other.clock.set(watched.clock.now())
    return other


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def plain(windows: Sequence[Window]) -> list[Any]:
    """Return windows without when they were computed, their numbers to seven digits."""
    return [rounded(msgspec.to_builtins(msgspec.structs.replace(window, computed_at=0))) for window in windows]


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=4)))
def test_looking_again_and_again_says_what_looking_once_says(seed: int) -> None:
    chance = np.random.default_rng(seed)
    made = traffic(6, 240, steady, seed=seed)
    made = [
        msgspec.structs.replace(
            each,
            share=0.5 if 2 * WINDOW < each.at + (each.at % 7) * 1_000 < 2.6 * WINDOW else 1.0,
            latency_us=int(chance.integers(500, 900)),
            **({"version": "2", "digest": "d2"} if each.at > (3.2 + chance.random()) * WINDOW else {}),
        )
        for each in made
    ]
    watched = world()
    rows: list[dict[str, Any]] = []
    waiting: list[Prediction] = list(made)
    for now in np.cumsum(chance.integers(WINDOW // 10, WINDOW, 24)).tolist():
        due = [each for each in waiting if each.at < now]
        # Most come at once, some whole windows later.
        came = [each for each in due if chance.random() < 0.8]
        chance.shuffle(came)  # type: ignore[arg-type]
        gone = {each.id for each in came}
        waiting = [each for each in waiting if each.id not in gone]
        watched.predict(came)
        if chance.random() < 0.5:
            known = [int(each.id[1:]) for each in made if each.at < now]
            for number in chance.choice(known, min(40, len(known)), replace=False).tolist() if known else ():
                rows.append(label(f"f{number}", bool(chance.random() < 0.4), now - 1, landed=len(rows)))
            watched.labels = arrivals(rows) if rows else None
        watched.clock.set(now)
        watched.run()
    watched.predict(waiting)
    watched.clock.set(30 * WINDOW)
    watched.run()
    other = again(watched)
    other.run()
    assert sum(window.predictions for window in watched.windows) > 1_000
    assert plain(watched.windows) == plain(other.windows)


@pytest.mark.parametrize("labelled", [True, False])
def test_what_was_counted_is_not_read_again(labelled: bool) -> None:
    watched, ledger = counted()
    watched.labels = arrivals([label("f1", True, WINDOW // 4)]) if labelled else None
    made = traffic(1, 2_000, steady)
    for first in range(0, 2_000, 100):
        watched.predict(made[first : first + 100])
        watched.clock.set(WINDOW // 2)
        watched.run()
    watched.clock.set(WINDOW)
    (window, *_) = watched.run()
    # Without labels, windows are made of sketches alone.
    assert (window.predictions, ledger.rows) == (2_000, 2_000 if labelled else 0)


def test_predictions_that_come_into_a_settled_window_are_counted() -> None:
    watched = world()
    made = traffic(1, 100, steady)
    watched.predict(made[:60])
    watched.clock.set(5 * WINDOW)
    watched.run()
    watched.clock.set(6 * WINDOW)
    watched.run()
    watched.predict(made[60:])
    assert [each.predictions for each in watched.run() if each.start == 0] == [100]
    assert len(watched.windows[0].columns) == len(COLUMNS) + 1


def test_labels_that_land_long_after_they_were_known_reach_settled_windows() -> None:
    watched = world()
    watched.predict(traffic(3, 100, steady))
    watched.labels = arrivals([label("f299", True, 3 * WINDOW)])
    for now in (10, 11):
        watched.clock.set(now * WINDOW)
        watched.run()
    late = [label(f"f{number}", number % 3 == 0, 4 * WINDOW, landed=1) for number in range(50)]
    watched.labels = dataclasses.replace(found := arrivals([label("f299", True, 3 * WINDOW), *late]),
                                         scan=dataclasses.replace(found.scan, version=1))  # fmt: skip
    watched.clock.set(12 * WINDOW)
    watched.run()
    other = again(watched)
    other.run()
    assert [window.labels for window in watched.windows[:3]] == [50, 0, 1]
    assert plain(watched.windows) == plain(other.windows)


def test_predictions_of_a_clock_that_is_ahead_are_counted_in_their_time() -> None:
    watched = world()
    made = traffic(2, 100, steady)
    watched.predict(made)
    watched.clock.set(WINDOW // 2)
    assert [each.predictions for each in watched.run()] == [50]
    watched.clock.set(2 * WINDOW)
    assert [each.predictions for each in watched.run()] == [100, 100]
