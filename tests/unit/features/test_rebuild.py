"""States that are built anew beside those that are served, and take their place at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

import mainspring as ms
from kit.depth import examples
from kit.reach import within_reach
from kit.station import TRAINS, instant, train, view
from mainspring.core.errors import Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.materialise.provenance import LEDGER_KEY
from mainspring.features.model import EntityState, Mark

pytestmark = pytest.mark.slow

VIEW = view(n=ms.count(window="1h"), mean=ms.mean("delay", window="24h"), last=ms.last("delay"))
STATIONS = [f"station {number}" for number in range(7)]
KEYINGS = {"station": ("station",)}


class WatchedStore(MemoryOnlineStore):
    """A store that tells before every step: what is served then, and which keys are written where."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        self.served: list[list[bytes]] = []
        self.written: list[tuple[str, list[bytes]]] = []
        self._steps = count(1)
        self.dies_at = dies_at

    def _step(self) -> None:
        found = self.read([(slot(VIEW), encode_key([station])) for station in STATIONS])
        self.served.append([b"" if state is None else state.payload for state in found])
        if next(self._steps) == self.dies_at:
            raise Unavailable("The store went away.")

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        self._step()
        super().write(view, rows)
        self.written.append((view, [key for key, _ in rows if key != LEDGER_KEY]))
        self._step()

    def advance(self, view: str, mark: Mark) -> None:
        self._step()
        super().advance(view, mark)
        self._step()

    def swap(self, view: str, by: str) -> None:
        self._step()
        super().swap(view, by)
        self._step()

    def payloads(self) -> dict[bytes, bytes]:
        return {key[1]: state.payload for key, state in self.states().items() if key[0] == slot(VIEW)}


def rows(hours: range = range(6, 18)) -> list[dict[str, object]]:
    return [
        train(f"2013-03-05T{hour:02}:{7 * number:02}:00Z", hour + number / 8, station=station)
        for hour in hours
        for number, station in enumerate(STATIONS)
    ]


def landed(*batches: Sequence[dict[str, object]]) -> MemoryLake:
    lake = MemoryLake()
    for batch in batches:
        land(lake, batch)
    return lake


def land(lake: MemoryLake, batch: Sequence[dict[str, object]]) -> None:
    Ingestor(lake, MemoryLocks(), ManualClock()).ingest(TRAINS, list(batch), keyings=KEYINGS)


def states(store: WatchedStore) -> dict[bytes, bytes]:
    """What is held, as far as windows can reach it now."""
    position = store.position(slot(VIEW))
    assert position is not None
    return {
        key: within_reach(payload, VIEW, position) for key, payload in store.payloads().items() if key != LEDGER_KEY
    }


def test_a_reader_sees_the_old_states_until_all_new_ones_are_there() -> None:
    lake, store, clock = landed(rows()), WatchedStore(), ManualClock(instant("12:00"))
    materialiser = Materialiser(lake, store, clock, entities_at_once=2)
    materialiser.run(VIEW)
    before = store.served[-1]
    assert all(before)
    store.served.clear()
    clock.set(instant("15:00"))
    report = materialiser.rebuild(VIEW)
    assert (report.entities, report.through) == (7, instant("15:00"))
    after = store.served[-1]
    assert [served for served in store.served if served not in (before, after)] == []
    assert before != after
    assert store.views() == [slot(VIEW)]


def test_the_first_states_appear_together() -> None:
    store = WatchedStore()
    Materialiser(landed(rows()), store, ManualClock(instant("12:00")), entities_at_once=2).run(VIEW)
    assert all(not any(served) or all(served) for served in store.served)


def test_what_others_materialise_meanwhile_is_in_the_new_states() -> None:
    lake, clock = landed(rows(range(6, 12))), ManualClock(instant("12:00"))
    locks = MemoryLocks()

    class Busy(WatchedStore):
        at_work = False

        def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
            super().write(view, rows)
            if view != slot(VIEW) and not self.at_work:
                self.at_work = True
                land(lake, [train("12:10", 99.0, station=STATIONS[0]), train("12:20", 1.0, station="new")])
                clock.set(instant("12:30"))
                assert worker.run(VIEW, horizon=HOUR).through == instant("12:30")

    store = Busy()
    worker = Materialiser(lake, store, clock, locks=locks)
    store.at_work = True
    worker.run(VIEW)
    store.at_work = False
    Materialiser(lake, store, clock, locks=locks, entities_at_once=2).rebuild(VIEW)
    mark = store.mark(slot(VIEW))
    assert mark is not None
    assert (mark.position, mark.until) == (instant("12:30"), instant("13:30"))
    whole = WatchedStore()
    Materialiser(lake, whole, clock).run(VIEW, horizon=HOUR)
    assert states(store) == states(whole)


def test_a_build_that_dies_anywhere_goes_on_and_leaves_the_same() -> None:
    lake, clock = landed(rows()), ManualClock(instant("12:00"))
    whole = WatchedStore()
    Materialiser(lake, whole, clock, entities_at_once=2).run(VIEW, horizon=HOUR)
    died = again = 0
    steps = range(1, 30, examples(gate=3, deep=1))
    for step in steps:
        store = WatchedStore(dies_at=step)
        clock.set(instant("11:00"))
        try:
            Materialiser(lake, store, clock, entities_at_once=2).run(VIEW, horizon=HOUR)
        except Unavailable:
            died += 1
        store.dies_at = None
        before = len(store.written)
        clock.set(instant("12:00"))
        Materialiser(lake, store, clock, entities_at_once=2).run(VIEW, horizon=HOUR)
        assert states(store) == states(whole)
        assert store.views() == [slot(VIEW)]
        if 2 < step < 8:  # two chunks are there
            built = [key for view, keys in store.written[before:] if view != slot(VIEW) for key in keys]
            again += len(built) < 2 * len(STATIONS)
    assert died > len(steps) // 3
    assert again


@pytest.mark.parametrize("more", [0, 2])
def test_a_lake_whose_rows_were_replaced_by_others_is_noticed(more: int) -> None:
    store, clock = WatchedStore(), ManualClock(instant("18:00"))
    Materialiser(landed(rows(range(6, 7))), store, clock).run(VIEW)
    other = landed(rows(range(7, 8)), *([rows(range(9, 10))[:more]] if more else []))
    Materialiser(other, store, clock).run(VIEW)
    whole = WatchedStore()
    Materialiser(other, whole, clock).run(VIEW)
    assert states(store) == states(whole)


def test_a_large_state_is_told() -> None:
    long = "x" * 1_100_000
    texts = ms.Source("texts", schema={"station": ms.String, "text": ms.String}, event_time="at")
    lake = MemoryLake()
    Ingestor(lake, MemoryLocks(), ManualClock()).ingest(
        texts, [{"at": train("10:00", 1.0)["left_at"], "station": "a", "text": long}], keyings=KEYINGS
    )
    store = MemoryOnlineStore()
    report = Materialiser(lake, store, ManualClock(2**51)).run(view(texts, text=ms.last("text")))
    assert report.largest_bytes > 1_100_000
    assert "largest state of Trains" in report.warnings[0]
    assert report.seconds > 0
