"""A monitor that dies, is started again and loses what it kept says what one says that looks once at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from kit.depth import examples
from kit.worlds import ARRIVALS, INSTANT, arrivals, bundle, label
from mainspring.data.model import SUPERSEDED_AT, SourceColumn, TableScan
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import Arrivals, Observer
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.model import Checkpoint, LabelRows, Window
from mainspring.project.catalog import memory_catalog
from mainspring.training.label import Label
from unit.monitoring.test_incremental import FAR, CountedLedger, counted, plain
from unit.monitoring.test_monitor import REFERENCE, WINDOW, World, steady, traffic

pytestmark = pytest.mark.slow

END = 30 * WINDOW
FIRST = label("f298", True, 3 * WINDOW, reported=9)


class Death(Exception):
    """The end of a process."""


class FrailLedger(MemoryLedger):
    """Is compacted while it is read, and forgets what came after which position, by chance."""

    def __init__(self, observer: Observer, chance: np.random.Generator) -> None:
        super().__init__(observer)
        self._chance = chance

    def arrivals(self, *args: Any, **settings: Any) -> Arrivals | None:
        if settings.get("after") is not None and self._chance.random() < 0.1:
            return None
        found = super().arrivals(*args, **settings)
        self.compact()
        return found


class FrailMonitors(CatalogMonitors):
    """Kills before or after it stores, and damages or loses checkpoints, by chance."""

    def __init__(self, chance: np.random.Generator) -> None:
        super().__init__(memory_catalog())
        self._chance = chance

    def save(self, windows: Sequence[Window], checkpoint: Checkpoint | None = None) -> None:
        if self._chance.random() < 0.15:
            raise Death
        super().save(windows, checkpoint)
        if self._chance.random() < 0.15:
            raise Death

    def checkpoint(self, endpoint: str, window_us: int) -> Checkpoint | None:
        found, draw = super().checkpoint(endpoint, window_us), self._chance.random()
        if found is None or draw < 0.1:
            return None
        return msgspec.structs.replace(found, tallies=found.tallies[: len(found.tallies) // 2]) if draw < 0.3 else found


def world() -> World:
    return World(bundle(REFERENCE), bundle(FAR, digest="d2"), wait=1_000 * WINDOW)


def again(watched: World) -> list[Window]:
    """Return the windows as one monitor sees them that has never looked."""
    other = world()
    other.ledger, other.sketches, other.labels = watched.ledger, watched.sketches, watched.labels
    other.monitor = other.make()
    other.clock.set(watched.clock.now())
    other.run()
    return other.windows


def landed(rows: Sequence[dict[str, Any]], *, told: bool = True) -> LabelRows:
    """Return label rows of which one landed with each version, as far as they are told."""
    found = arrivals(rows)
    table = found.scan.rows
    assert table is not None
    version = len(rows)
    scan = dataclasses.replace(found.scan, version=version)
    return dataclasses.replace(
        found, scan=scan, appended=lambda before: TableScan(version, rows=table.slice(before)) if told else None
    )


def mixed(chance: np.random.Generator, seed: int) -> list[Prediction]:
    """Return traffic of six windows, some of it logged by half, and two versions one after the other."""
    return [
        msgspec.structs.replace(
            each,
            share=0.5 if 2 * WINDOW < each.at + (each.at % 7) * 1_000 < 2.6 * WINDOW else 1.0,
            latency_us=int(chance.integers(500, 900)),
            **({"version": "2", "digest": "d2"} if each.at > (3.2 + chance.random()) * WINDOW else {}),
        )
        for each in traffic(6, 80, steady, seed=seed)
    ]


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=6)))
def test_whatever_happens_each_prediction_and_each_label_counts_once(seed: int) -> None:
    chance = np.random.default_rng(seed)
    watched = world()
    watched.ledger, watched.monitors = FrailLedger(watched.observer, chance), FrailMonitors(chance)
    watched.monitor = watched.make()
    made = mixed(chance, seed)
    waiting, rows = list(made), list[dict[str, Any]]()
    for now in np.cumsum(chance.integers(WINDOW // 10, WINDOW, 24)).tolist():
        came = [each for each in waiting if each.at < now and chance.random() < 0.7]
        chance.shuffle(came)  # type: ignore[arg-type]
        gone = {each.id for each in came}
        waiting = [each for each in waiting if each.id not in gone]
        watched.ledger.append(came)
        if chance.random() < 0.7:
            watched.ledger.compact()
        if chance.random() < 0.5:
            for number in chance.choice(len(made), 40, replace=False).tolist():
                # Some land long after they were known, others before that.
                known = int(min(made[number].at + 1 + chance.exponential(WINDOW), END))
                rows.append(label(f"f{number}", bool(chance.random() < 0.4), known, landed=len(rows)))
            watched.labels = landed(rows, told=chance.random() < 0.9)
        watched.clock.set(now)
        if chance.random() < 0.3:
            watched.monitor = watched.make()
        try:
            watched.run()
        except Death:
            watched.monitor = watched.make()
    watched.predict(waiting)
    watched.clock.set(END)
    watched.monitors._chance = np.random.default_rng()  # type: ignore[attr-defined]
    for _ in range(100):
        try:
            watched.run()
            break
        except Death:
            watched.monitor = watched.make()
    assert sum(window.labels for window in watched.windows) > 100
    assert plain(watched.windows) == plain(again(watched))


def looked(kind: type[MemoryLedger] = MemoryLedger) -> World:
    """Return a world of three windows that have settled, half of their predictions there."""
    watched = world()
    watched.ledger = kind(watched.observer)
    watched.monitor = watched.make()
    watched.predict(traffic(3, 100, steady)[::2])
    watched.labels = landed([FIRST])
    for now in (10, 11):
        watched.clock.set(now * WINDOW)
        watched.run()
    return watched


def test_labels_that_landed_while_nobody_looked_reach_settled_windows() -> None:
    watched = looked()
    watched.labels = landed([FIRST, *(label(f"f{number}", number % 3 == 0, 4 * WINDOW) for number in range(0, 100, 2))])
    watched.monitor = watched.make()
    watched.clock.set(12 * WINDOW)
    watched.run()
    assert watched.windows[0].labels == 50
    assert plain(watched.windows) == plain(again(watched))


@pytest.mark.parametrize("told", [True, False])
def test_predictions_that_came_while_nobody_looked_reach_settled_windows(told: bool) -> None:
    class Forgetful(MemoryLedger):
        def arrivals(self, *args: Any, **settings: Any) -> Arrivals | None:
            return None if settings.get("after") is not None and not told else super().arrivals(*args, **settings)

    watched = looked(Forgetful)
    watched.predict(traffic(3, 100, steady)[1::2])
    watched.monitor = watched.make()
    watched.clock.set(12 * WINDOW)
    watched.run()
    assert [window.predictions for window in watched.windows[:3]] == [100] * 3
    assert plain(watched.windows) == plain(again(watched))


def test_a_project_without_checkpoints_is_followed_from_its_windows() -> None:
    watched = looked()
    watched.predict(traffic(3, 100, steady)[1::2])
    watched.labels = landed([FIRST, *(label(f"f{number}", number % 3 == 0, 4 * WINDOW) for number in range(50))])
    without = CatalogMonitors(memory_catalog())
    without.save(watched.windows)
    watched.monitors = without
    watched.monitor = watched.make()
    watched.run()
    assert plain(watched.windows) == plain(again(watched))


def test_a_monitor_that_is_started_again_reads_no_predictions_without_labels() -> None:
    watched, ledger = counted()
    made = traffic(1, 2_000, steady)
    for first in range(0, 2_000, 500):
        watched.predict(made[first : first + 500])
        watched.clock.set(WINDOW)
        watched.monitor = watched.make()
        (window, *_) = watched.run()
    assert (window.predictions, ledger.rows) == (2_000, 0)
    assert plain(watched.windows) == plain(again(watched))


def test_two_that_look_in_turns_say_what_one_says() -> None:
    watched = world()
    pair = [watched.make(), watched.make()]
    made = traffic(4, 100, steady)
    for step in range(20):
        came = [each for place, each in enumerate(made) if each.at < step * WINDOW // 4 and place % 20 == step % 20]
        watched.predict([*came, *(each for each in made if step * WINDOW // 4 <= each.at < (step + 1) * WINDOW // 4)])
        watched.clock.set((step + 1) * WINDOW // 4)
        pair[step % 3 % 2].run("late")
    watched.clock.set(END)
    pair[0].run("late")
    assert plain(watched.windows) == plain(again(watched))


def test_a_new_label_makes_only_the_windows_that_it_touches_be_read_again() -> None:
    class Labelled(CountedLedger):
        spans: ClassVar[list[Any]] = []

        def arrivals(self, *args: Any, **settings: Any) -> Arrivals | None:
            if settings.get("columns") not in (["at"], ["at", "keys"]) and settings.get("after") is None:
                self.spans.append(args[1:])
            return super().arrivals(*args, **settings)

    watched = world()
    watched.ledger = ledger = Labelled(watched.observer)
    watched.monitor = watched.make()
    watched.predict(traffic(6, 100, steady))
    rows = [label("f1", True, 2 * WINDOW)]
    watched.labels = landed(rows)
    for now in (10, 11):
        watched.clock.set(now * WINDOW)
        watched.run()
    ledger.spans.clear()
    rows += [label("f250", True, 4 * WINDOW), label("nobody", True, 4 * WINDOW)]
    watched.labels = landed(rows)
    watched.run()
    assert [span[0] for span in ledger.spans if span[0] < 9 * WINDOW] == [2 * WINDOW]
    assert [window.labels for window in watched.windows[:3]] == [1, 0, 1]
    assert plain(watched.windows) == plain(again(watched))


def test_a_look_at_the_past_does_not_hide_labels_from_the_next_look() -> None:
    watched = looked()
    watched.labels = landed([FIRST, label("f0", True, 5 * WINDOW)])
    watched.run()
    watched.run(until=4 * WINDOW)
    watched.run()
    assert watched.windows[0].labels == 1
    assert plain(watched.windows) == plain(again(watched))


def test_predictions_of_a_clock_that_was_ahead_are_counted_by_the_next_process() -> None:
    watched = world()
    watched.predict(traffic(3, 100, steady))
    watched.clock.set(2 * WINDOW - 5)
    watched.run()
    watched.monitor = watched.make()
    watched.clock.set(12 * WINDOW)
    watched.run()
    assert [window.predictions for window in watched.windows[:3]] == [100] * 3
    assert plain(watched.windows) == plain(again(watched))


def test_what_came_late_into_the_first_open_window_counts_also_after_a_long_rest() -> None:
    watched = World(bundle(REFERENCE), wait=5 * WINDOW)
    made = traffic(2, 100, steady)
    watched.predict(made[50:])
    watched.clock.set(2 * WINDOW - 5)
    watched.run()
    watched.monitor = watched.make()
    watched.predict(made[:50])
    watched.clock.set(20 * WINDOW)
    watched.run()
    assert [window.predictions for window in watched.windows[:2]] == [100] * 2
    assert plain(watched.windows) == plain(again(watched))


def test_a_label_fact_that_moves_to_another_key_leaves_the_first() -> None:
    source = dataclasses.replace(ARRIVALS, id=("reported",))
    watched = looked()

    def moved(*rows: dict[str, Any]) -> LabelRows:
        found = landed(rows)
        table = found.scan.rows
        assert table is not None
        ends = [each.get("ended") for each in rows]
        ended = pa.array(ends, INSTANT)
        table = table.append_column(SUPERSEDED_AT, ended)
        return dataclasses.replace(
            found,
            label=Label(SourceColumn(source, "late")),
            scan=dataclasses.replace(found.scan, rows=table),
            appended=lambda before: TableScan(len(rows), rows=table.slice(before)),
        )

    first, second = label("f0", True, 4 * WINDOW, reported=1), label("f200", True, 5 * WINDOW, reported=1, landed=1)
    watched.labels = moved(FIRST, first)
    watched.run()
    assert [window.labels for window in watched.windows[:3]] == [1, 0, 1]
    watched.labels = moved(FIRST, {**first, "ended": 5 * WINDOW}, second)
    watched.run()
    assert [window.labels for window in watched.windows[:3]] == [0, 0, 2]


def test_what_is_read_at_once_is_bounded_also_at_the_first_look() -> None:
    class Held(CountedLedger):
        most = 0

        def arrivals(self, *args: Any, **settings: Any) -> Arrivals | None:
            before = self.rows
            found = super().arrivals(*args, **settings)
            if settings.get("columns") != ["at"]:
                self.most = max(self.most, self.rows - before)
            return found

    watched = world()
    watched.ledger = ledger = Held(watched.observer)
    watched.monitor = watched.make(rows_at_once=500)
    watched.predict(traffic(12, 200, steady))
    watched.labels = landed([label("f1", True, 2 * WINDOW)])
    watched.clock.set(20 * WINDOW)
    watched.run()
    assert sum(window.predictions for window in watched.windows) == 12 * 200
    assert ledger.most == 400
