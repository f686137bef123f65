"""States that are continued by new rows, where only a state made anew from all rows would answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from kit.station import World, instant, train, view
from mainspring.core.errors import Unavailable
from mainspring.core.time import HOUR, SECOND, format_instant
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser, materialisation
from mainspring.features.materialise.continuing import Continuation
from mainspring.features.materialise.rebuild import Built
from mainspring.features.model import EntityState, FeatureView
from mainspring.features.state.blobs import Candidates, DamagedState, Recent, State, decode, encode, grown

pytestmark = pytest.mark.slow

WINDOWS = view(n=ms.count(window="1h"), total=ms.sum("delay", window="24h"))
ALL = view(n=ms.count(window="1h"), total=ms.sum("delay", window="24h"), last=ms.last("delay"))
RANKED = view(newest=ms.last_k("delay", 3, window="1h"), last=ms.last("delay"))
LASTS = view(last=ms.last("delay"))


class Stream:
    """A world that was materialised at noon, and counts the states that are continued since."""

    def __init__(self, features: FeatureView, monkeypatch: pytest.MonkeyPatch, store: Any = None) -> None:
        counts = self.counts = [0, 0]  # continued, made anew

        class Counted(Continuation):
            def states(self, changed: str, position: int, until: int, at_once: int) -> Any:
                for built in super().states(changed, position, until, at_once):
                    assert isinstance(built, Built)
                    counts[0] += 1
                    yield built
                counts[1] += len(self.left[0])

        monkeypatch.setattr(materialisation, "Continuation", Counted)
        self.world = World(features)
        if store is not None:
            self.world.store = store
        self.noon = instant("12:00")
        self.materialiser = Materialiser(self.world.lake, self.world.store, self.world.clock, entities_at_once=1)
        self.world.clock.set(self.noon)
        self.land(train("11:00", 1.0), train("11:59", 2.0), train("12:00", 4.0, station="berri"))
        self.run()

    def at(self, seconds: float) -> str:
        return format_instant(self.noon + int(seconds * SECOND))

    def row(self, left: float, delay: float, known: float | None = None, station: str = "mile end") -> dict[str, Any]:
        return train(self.at(left), delay, self.at(left if known is None else known), station)

    def land(self, *rows: dict[str, Any]) -> None:
        self.world.land(*rows)

    def run(self, seconds: float = 0.0) -> None:
        self.world.clock.set(self.noon + int(seconds * SECOND))
        self.materialiser.run(self.world.view, horizon=HOUR, gradually=True)

    def agrees(self, *seconds: float, stations: Sequence[str] = ("mile end", "berri")) -> None:
        for second in seconds:
            for station in stations:
                self.world.both(self.at(second), station)


@pytest.mark.parametrize("features", [WINDOWS, ALL, RANKED, LASTS])
def test_rows_in_order_are_added(features: FeatureView, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(features, monkeypatch)
    for second in range(5, 50, 5):
        stream.land(stream.row(second, second), stream.row(second, -second, station="berri"))
        stream.run(second)
    stream.agrees(45, 44, 7, 3500)
    assert stream.counts == [18, 0]


@pytest.mark.parametrize("features", [WINDOWS, RANKED])
def test_rows_out_of_order_are_added_in_between(features: FeatureView, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(features, monkeypatch)
    stream.land(stream.row(10, 1.0), stream.row(20, 2.0))
    stream.run(20)
    stream.land(stream.row(15, 8.0, 15), stream.row(12, 16.0, 12), stream.row(12, 32.0, 12))
    stream.run(25)
    stream.agrees(25, 17, 12, 11, stations=("mile end",))
    assert stream.counts[0] == 2 - (features is RANKED)  # an out-of-order record makes a last value anew


def test_a_last_value_that_is_overtaken_stands_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(ALL, monkeypatch)
    stream.land(stream.row(1, 10.0, 10))
    stream.run(10)
    stream.land(stream.row(4, 20.0, 5))  # a later event, known earlier
    stream.run(20)
    stream.agrees(20, 10, 7)
    assert stream.world.both(stream.at(20))["last"] == 20.0
    assert stream.counts == [1, 1]


def test_a_row_that_belongs_in_a_tile_makes_the_state_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(WINDOWS, monkeypatch)
    stream.run(100)
    stream.land(stream.row(101, 8.0), stream.row(-300, 16.0), stream.row(101, 32.0, station="berri"))
    stream.run(102)
    stream.agrees(102, 101, 60)
    assert stream.counts == [1, 1]


def test_a_row_from_before_the_rows_in_memory_makes_the_state_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(WINDOWS, monkeypatch)
    stream.land(stream.row(5, 8.0), stream.row(-3 * 3600, 16.0))
    stream.run(6)
    stream.agrees(6, 5, 4)
    assert stream.counts == [0, 1]


def test_an_entity_that_is_seen_before_its_first_known_row_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(WINDOWS, monkeypatch)
    stream.land(stream.row(5, 8.0, 1800, station="laurier"))
    stream.run(5)
    stream.land(stream.row(8, 16.0, station="laurier"))
    stream.run(8)
    stream.agrees(8, 7, 1800, stations=("laurier",))
    assert stream.counts == [0, 2]


def test_late_rows_of_an_entity_that_was_idle_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(WINDOWS, monkeypatch)
    stream.run(600)
    for second in range(600, 660, 10):
        stream.land(stream.row(second - 300, 8.0))
        stream.run(second)
    stream.agrees(650, 649, 600, stations=("mile end",))
    assert stream.counts == [0, 6]


class DyingStore(MemoryOnlineStore):
    dies = False

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        super().write(view, rows)
        if self.dies:
            self.dies = False
            raise Unavailable("The store went away.")


@pytest.mark.parametrize("pause_s", [0, 1])
def test_rows_are_added_once_after_a_run_that_was_killed(pause_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DyingStore()
    stream = Stream(WINDOWS, monkeypatch, store)
    stream.land(stream.row(5, 8.0), stream.row(5, 16.0, station="berri"))
    store.dies = True
    with pytest.raises(Unavailable):
        stream.run(5)
    stream.materialiser = Materialiser(stream.world.lake, store, stream.world.clock)  # another process
    stream.run(5 + pause_s)
    stream.agrees(5 + pause_s, 5, 4)
    assert stream.counts[1] >= 1


def test_rows_that_became_visible_are_added_once_after_a_run_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = DyingStore()
    stream = Stream(WINDOWS, monkeypatch, store)
    stream.land(stream.row(7200, 8.0))
    stream.run(5)
    store.dies = True
    with pytest.raises(Unavailable):
        stream.materialiser.run(WINDOWS, horizon=3 * HOUR)  # at the same instant
    stream.materialiser.run(WINDOWS, horizon=3 * HOUR)
    stream.agrees(7200, 7201, 3600, stations=("mile end",))


@pytest.mark.parametrize("start", [b"\x94", b"\xc1"])
def test_a_damaged_state_is_made_anew(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(WINDOWS, monkeypatch)
    for (slot, key), state in stream.world.store.states().items():
        if state.payload.startswith(b"\x93"):
            damaged = EntityState(state.position, start + state.payload[1:20], state.landed)
            stream.world.store.write(slot, [(key, damaged)])
    stream.land(stream.row(5, 8.0))
    stream.run(5)
    stream.agrees(5, 4, stations=("mile end",))
    assert stream.counts == [0, 1]


@given(st.binary(max_size=80), st.integers(0, 90))
def test_damaged_rows_of_a_state_are_found(noise: bytes, place: int) -> None:
    state = encode(State(1, Candidates([1], [1], [[2.0]]), [], Recent([], [], [])))
    rows = b"".join(msgspec.msgpack.encode((n, 0, True, float(n))) for n in range(3))
    whole = grown(1, 3, 1, len(state), 3, True, content=[state, rows])
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    for payload in (damaged, grown(1, 3, 1, len(whole), 0, True, content=[whole])):
        try:
            decode(payload, "Trains")
        except DamagedState:
            continue
        assert payload == damaged  # noise may be a state too
    assert decode(whole, "Trains").lasts.values == [[2.0, 0.0, 1.0, 2.0]]


def test_many_new_rows_are_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(WINDOWS, monkeypatch)
    monkeypatch.setattr(materialisation, "MOST_ROWS", 2)
    stream.land(*(stream.row(5, 8.0) for _ in range(3)))
    stream.run(5)
    stream.agrees(5, 4)
    assert stream.counts == [0, 0]
