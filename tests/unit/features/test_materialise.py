from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.depth import examples
from kit.reach import within_reach
from kit.station import STATION, TRAINS, World, instant, train, view
from mainspring.core.errors import Invalid, NotFound, Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, ManualClock, format_instant
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.materialise.provenance import LEDGER_KEY, read_ledger
from mainspring.features.model import EntityState, Mark
from mainspring.features.online import OnlineReader

pytestmark = pytest.mark.slow

VIEW = view(
    n=ms.count(window="1h"), day=ms.mean("delay", window="24h"), sd=ms.std("delay", window="24h"), last=ms.last("delay")
)
STATIONS = [f"station {number}" for number in range(7)]
KEYINGS = {"station": ("station",)}


class RecordingStore(MemoryOnlineStore):
    """A store that remembers which keys were written, and dies at one step if told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        self.written: list[list[bytes]] = []
        self.steps = 0
        self.dies_at = dies_at

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            raise Unavailable("The store went away.")

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        self._step()
        super().write(view, rows)
        self.written.append([key for key, _ in rows if key != LEDGER_KEY])
        self._step()

    def advance(self, view: str, mark: Mark) -> None:
        self._step()
        super().advance(view, mark)
        self._step()

    def reachable(self) -> dict[tuple[str, bytes], bytes]:
        """What is held of VIEW, as far as windows can reach it now."""
        position = self.position(slot(VIEW))
        assert position is not None
        return {
            key: within_reach(state.payload, VIEW, position)
            for key, state in self.states().items()
            if key[1] != LEDGER_KEY
        }


def hourly(day: str = "2013-03-05", hours: Sequence[int] = range(6, 18)) -> list[dict[str, Any]]:
    return [
        train(f"{day}T{hour:02}:{7 * number:02}:00Z", hour + number / 8, station=station)
        for hour in hours
        for number, station in enumerate(STATIONS)
    ]


def landed(*batches: Sequence[dict[str, Any]]) -> MemoryLake:
    lake = MemoryLake()
    for batch in batches:
        Ingestor(lake, MemoryLocks(), ManualClock()).ingest(TRAINS, list(batch), keyings=KEYINGS)
    return lake


def rebuilt(lake: Any, now: int, horizon: int) -> dict[tuple[str, bytes], bytes]:
    store = RecordingStore()
    materialiser = Materialiser(lake, store, ManualClock(now))
    materialiser.run(VIEW, horizon=horizon)
    materialiser.close()
    return store.reachable()


def test_a_run_that_dies_at_any_step_and_runs_again_leaves_the_same() -> None:
    lake = landed(hourly())
    now, later = instant("10:00"), instant("12:00")
    wanted = rebuilt(lake, later, HOUR)
    died = 0
    steps = range(1, 13, examples(gate=3, deep=1))
    for step in steps:
        store = RecordingStore()
        clock = ManualClock(now)
        materialiser = Materialiser(lake, store, clock, entities_at_once=2)
        materialiser.run(VIEW, horizon=HOUR)
        clock.set(later)
        store.dies_at = store.steps + step
        try:
            materialiser.run(VIEW, horizon=HOUR)
        except Unavailable:
            died += 1
            # A new process knows nothing of the old one's memory.
            materialiser = Materialiser(lake, store, clock, entities_at_once=3)
            materialiser.run(VIEW, horizon=HOUR)
        assert store.reachable() == wanted
        assert store.mark(slot(VIEW)).position == later  # type: ignore[union-attr]
        materialiser.close()
    assert died == len([step for step in steps if step <= 10])  # four writes and an advance, before and after each


def test_a_second_run_writes_nothing_new() -> None:
    store = RecordingStore()
    materialiser = Materialiser(landed(hourly()), store, ManualClock(instant("2013-03-08T00:00:00Z")))
    report = materialiser.run(VIEW)
    assert (report.view, report.entities, report.rows) == ("Trains", 7, 84)
    assert report.through == instant("2013-03-08T00:00:00Z")
    before = store.reachable()
    report = materialiser.run(VIEW)
    assert (report.entities, report.rows) == (0, 0)
    assert store.reachable() == before
    assert len(store.written) == 1


def test_only_what_changed_is_computed() -> None:
    lake, store, clock = landed(hourly()), RecordingStore(), ManualClock(instant("2013-03-06T00:00:00Z"))
    materialiser = Materialiser(lake, store, clock)
    materialiser.run(VIEW)
    Ingestor(lake, MemoryLocks(), clock).ingest(
        TRAINS, [train("2013-03-06T01:00:00Z", 1.0, station=STATIONS[3])], keyings=KEYINGS
    )
    clock.advance(2 * HOUR)
    report = materialiser.run(VIEW)
    assert (report.entities, report.rows) == (1, 1)
    assert store.written[-1] == [encode_key([STATIONS[3]])]


@pytest.mark.parametrize("late", [HOUR, 5 * DAY, 400 * DAY])
def test_a_row_that_lands_late_by_any_amount_is_found(late: int) -> None:
    world = World(VIEW, hourly())
    materialiser = Materialiser(world.lake, world.store, world.clock)
    world.clock.set(instant("18:00") + late)
    materialiser.run(VIEW)
    # Long true and long knowable, but landed only now; the flags of rows that were there change.
    world.land(train("17:58", 99.0, station=STATIONS[0]), train("05:00", 1.0, station="a new one"))
    report = materialiser.run(VIEW)
    assert (report.entities, report.rows) == (2, 2)
    read = OnlineReader([VIEW], world.store).read({"station": [STATIONS[0], "a new one"]}, world.clock.now())
    assert read.features["Trains.last"] == [99.0, 1.0]
    assert read.statuses["Trains.last"] == ["PRESENT", "PRESENT"]
    now = world.clock.now()
    for place, station in enumerate([STATIONS[0], "a new one"]):
        offline = world.offline(now, station)
        assert offline == {name: read.features[f"Trains.{name}"][place] for name in VIEW.features}


class DyingLake(MemoryLake):
    """A lake whose third write fails."""

    writes = 0

    def append(self, *arguments: Any, **options: Any) -> int | None:
        self.writes += 1
        if self.writes == 3:
            raise Unavailable("The lake went away.")
        return super().append(*arguments, **options)


def test_the_rest_of_an_ingestion_that_was_cut_short_is_found() -> None:
    lake, store, clock = DyingLake(), RecordingStore(), ManualClock(instant("2013-03-06T00:00:00Z"))
    materialiser = Materialiser(lake, store, clock)
    rows = [*hourly()][::-1]  # the newest come first, so what is missing has smaller numbers than what is there
    with pytest.raises(Unavailable):
        Ingestor(lake, MemoryLocks(), clock, batch_rows=30).ingest(TRAINS, rows, keyings=KEYINGS, batch_id="b")
    assert materialiser.run(VIEW).rows == 60
    assert (
        Ingestor(lake, MemoryLocks(), clock, batch_rows=30).ingest(TRAINS, rows, keyings=KEYINGS, batch_id="b").rows
        == 24
    )
    materialiser.run(VIEW)
    assert store.reachable() == rebuilt(lake, clock.now(), 0)


def test_a_lake_that_goes_back_takes_the_store_with_it() -> None:
    lake, store, clock = landed(hourly()), RecordingStore(), ManualClock(instant("2013-03-06T00:00:00Z"))
    first = lake.version("trains")
    Ingestor(lake, MemoryLocks(), clock).ingest(TRAINS, [train("17:59", 5.0, station="gone")], keyings=KEYINGS)
    materialiser = Materialiser(lake, store, clock)
    materialiser.run(VIEW)
    assert store.read([(slot(VIEW), encode_key(["gone"]))]) != [None]
    materialiser = Materialiser(lambda name: lake.scan(name, first), store, clock)
    materialiser.run(VIEW)
    assert store.read([(slot(VIEW), encode_key(["gone"]))]) == [None]
    assert store.reachable() == rebuilt(landed(hourly()), clock.now(), 0)


def test_a_later_instant_than_now_settles_nothing_that_is_not_known_yet() -> None:
    world = World(VIEW, hourly())
    world.clock.set(instant("10:00"))
    assert world.materialiser.run(VIEW, through=instant("15:00")).through == instant("10:00")
    for at in ("10:00", "10:31", "14:59"):
        read = OnlineReader([VIEW], world.store).read({"station": [STATIONS[2]]}, instant(at))
        assert {k[7:]: v[0] for k, v in read.features.items()} == world.offline(at, STATIONS[2])
    # And a run after it is not held up.
    world.clock.set(instant("16:00"))
    assert world.materialiser.run(VIEW).through == instant("16:00")
    assert world.store.position(slot(VIEW)) == instant("16:00")


def test_the_position_never_goes_back() -> None:
    world = World(VIEW, hourly())
    world.clock.set(instant("12:00"))
    assert world.materialiser.position(VIEW) is None
    world.materialiser.run(VIEW)
    assert world.materialiser.run(VIEW, through=instant("09:00")).through == instant("12:00")
    world.clock.set(instant("11:30"))
    assert world.materialiser.run(VIEW).through == instant("12:00")
    assert world.materialiser.position(VIEW) == instant("12:00")


def test_a_clock_that_was_far_ahead_costs_nothing_once_it_is_right() -> None:
    world = World(VIEW, hourly())
    asked = {"station": [*STATIONS, "never"]}
    world.clock.set(instant("12:00"))
    world.materialiser.run(VIEW, horizon=HOUR)
    right = OnlineReader([VIEW], world.store).read(asked, instant("12:30"))
    world.clock.set(instant("2100-01-01T00:00:00Z"))
    world.materialiser.run(VIEW, horizon=HOUR)
    still = OnlineReader([VIEW], world.store).read(asked, instant("2100-01-01T00:30:00Z"))
    assert still.features["Trains.n"] == [0] * 8
    assert still.features["Trains.last"][:7] == [17 + number / 8 for number in range(7)]
    world.clock.set(instant("12:00"))
    assert world.materialiser.run(VIEW, horizon=HOUR).through == instant("12:00")
    assert OnlineReader([VIEW], world.store).read(asked, instant("12:30")) == right
    assert world.both("16:00", STATIONS[1])["n"] == 1


def test_a_small_step_of_the_clock_loses_nothing() -> None:
    five = view(n=ms.count(window="5m"), last=ms.last("delay"))
    world = World(five, [train("10:58", 1.0), train("11:01", 2.0)])
    world.clock.set(instant("11:50"))  # 48 minutes ahead
    world.materialiser.run(five, horizon=HOUR)
    world.clock.set(instant("11:02"))
    assert world.materialiser.run(five, horizon=HOUR).through == instant("11:50")
    assert OnlineReader([five], world.store).read({"station": ["mile end"]}, instant("11:02")).features == {
        "Trains.n": [2],
        "Trains.last": [2.0],
    }


def test_progress_counts_entities_and_rows() -> None:
    seen: list[tuple[int, int, int]] = []
    materialiser = Materialiser(landed(hourly()), MemoryOnlineStore(), ManualClock(2**51), entities_at_once=3)
    materialiser.run(VIEW, progress=lambda *done: seen.append(done))
    assert seen == [(0, 7, 0), (3, 7, 36), (6, 7, 72), (7, 7, 84)]


def test_over_delta_only_new_files_are_read_and_the_result_is_the_same(tmp_path: Path) -> None:
    lake, store, clock = DeltaLake(tmp_path), RecordingStore(), ManualClock(instant("2013-03-06T00:00:00Z"))
    ingestor = Ingestor(lake, MemoryLocks(), clock)
    materialiser = Materialiser(lake, store, clock)
    batches = [
        hourly(),  # then new rows; then a late one, which rewrites a flag; then nothing but a new entity
        hourly("2013-03-06", range(3)),
        [train("17:59", 5.0, "2013-03-06T03:00:00Z", STATIONS[1]), train("17:59", 7.0, station=STATIONS[2])],
        [train("2013-03-06T05:00:00Z", 1.0, station="new"), train("2013-03-06T05:00:00Z", 1.0, station=None)],
    ]
    for batch in batches:
        ingestor.ingest(TRAINS, batch, keyings=KEYINGS)
        materialiser.run(VIEW, horizon=HOUR)
        assert store.reachable() == rebuilt(lake, clock.now(), HOUR)
        clock.advance(2 * HOUR)


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=15)))
def test_steps_of_a_stream_write_only_what_landed_and_answer_as_the_past(seed: int) -> None:
    draw = random.Random(seed)
    world = World(VIEW, hourly(hours=range(6, 11)))
    store = world.store = RecordingStore()
    materialiser = Materialiser(world.lake, store, world.clock)
    world.clock.set(instant("12:00"))
    materialiser.run(VIEW, horizon=HOUR)
    settled = world.clock.now()
    for _ in range(examples(gate=20, deep=60)):
        world.clock.advance(draw.choice((1, 20, 700, 5_000, 35_000, 61_000)) * SECOND // 1_000)
        now = world.clock.now()
        rows = []
        for station in draw.sample(STATIONS, draw.randrange(4)):
            left = now - draw.choice((0, 0, 1, 90, 4_000)) * SECOND
            known = now + draw.choice((0, 0, 0, 40, 3_000)) * SECOND
            rows.append(train(format_instant(left), draw.randrange(99) / 8, format_instant(known), station))
        if rows:
            world.land(*rows)
        written = len(store.written)
        materialiser.run(VIEW, horizon=HOUR)
        touched = {key for keys in store.written[written:] for key in keys}
        landed = {encode_key([row["station"]]) for row in rows}
        if now - settled < MINUTE:
            assert touched == landed
        else:
            assert touched >= landed
            settled = now
        reader = OnlineReader([VIEW], store)
        if draw.random() < 0.5:
            station, at = draw.choice(STATIONS), draw.choice((now, now - 59 * SECOND, now + 50 * MINUTE))
            features = reader.read({"station": [station]}, at).features
            online = {name.partition(".")[2]: values[0] for name, values in features.items()}
            assert online == pytest.approx(world.offline(at, station), rel=1e-12)


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=15)))
def test_a_stream_settles_a_few_entities_at_a_time(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    lake = DeltaLake(tmp_path / "lake")
    world = World(VIEW, hourly(hours=range(6, 11)), lake=lake)
    store = world.store = RecordingStore()
    materialiser = Materialiser(lake, store, world.clock)
    world.clock.set(instant("12:00"))
    world.land(*(train("12:00", 1.0, station=station) for station in STATIONS))
    materialiser.run(VIEW, horizon=HOUR)
    store.dies_at = store.steps + draw.randrange(50, 80)
    for _ in range(30):  # after a death a round of settling begins anew
        world.clock.advance(5 * SECOND)
        now = world.clock.now()
        station = draw.choice(STATIONS)
        world.land(train(format_instant(now - draw.choice((0, 90)) * SECOND), 1.0, format_instant(now), station))
        written = len(store.written)
        try:
            materialiser.run(VIEW, horizon=HOUR, gradually=True)
        except Unavailable:
            materialiser.run(VIEW, horizon=HOUR, gradually=True)
        touched = [key for keys in store.written[written:] for key in keys]
        assert encode_key([station]) in touched
        assert len(touched) <= 4
        if draw.random() < 0.8:
            continue
        station, at = draw.choice(STATIONS), draw.choice((now, now - 59 * SECOND, now + 50 * MINUTE))
        features = OnlineReader([VIEW], store).read({"station": [station]}, at).features
        online = {name.partition(".")[2]: values[0] for name, values in features.items()}
        assert online == pytest.approx(world.offline(at, station), rel=1e-12)
    ledger = read_ledger(store, slot(VIEW))
    assert ledger is not None
    assert ledger.position > instant("12:00")
    world.clock.advance(4 * MINUTE)
    materialiser.run(VIEW, horizon=HOUR, gradually=True)  # it has been due for too long
    assert store.reachable() == rebuilt(lake, world.clock.now(), HOUR)


def test_entities_settle_over_a_minute_however_often_a_stream_lands(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path / "lake")
    world = World(VIEW, lake=lake)
    store = RecordingStore()
    materialiser = Materialiser(lake, store, world.clock)
    world.clock.set(instant("12:00"))
    world.land(*(train("12:00", 1.0, station=f"station {number}") for number in range(300)))
    materialiser.run(VIEW, horizon=HOUR)
    world.clock.advance(MINUTE)
    written = len(store.written)
    every_s = examples(gate=3, deep=1)
    for _ in range(0, 65, every_s):
        world.clock.advance(every_s * SECOND)
        world.land(train(format_instant(world.clock.now()), 1.0, station="station 299"))
        materialiser.run(VIEW, horizon=HOUR, gradually=True)
    settled = [len(keys) - 1 for keys in store.written[written:]]  # the first is of the train that came
    assert {key for keys in store.written[written:] for key in keys} == {
        encode_key([f"station {number}"]) for number in range(300)
    }
    assert max(settled) <= 15 + 1
    assert len([number for number in settled if number]) <= 20 + 1


def test_what_was_not_ingested_for_the_entity_is_told() -> None:
    world = World(VIEW)
    with pytest.raises(NotFound):
        world.materialiser.run(VIEW)
    world.ingestor.ingest(TRAINS, hourly(), keyings={})
    with pytest.raises(Invalid, match="before entity 'station'"):
        world.materialiser.run(VIEW)
    with pytest.raises(Invalid, match="before entity 'station'"):
        world.offline("10:00")
    world.ingestor.conform(TRAINS, KEYINGS)
    world.clock.set(instant("12:00"))
    assert world.materialiser.run(VIEW).entities == 7


def test_an_entity_whose_keys_changed_is_told() -> None:
    other = ms.Entity(STATION.name, keys={"station": ms.String, "delay": ms.Int64})
    world = World(VIEW, hourly())
    with pytest.raises(Invalid, match=r"had the keys \['station'\]"):
        world.materialiser.run(view(entity=other, last=ms.last("delay")))


def test_a_changed_view_does_not_touch_what_the_old_one_serves() -> None:
    world = World(VIEW, hourly())
    world.clock.set(instant("12:00"))
    world.materialiser.run(VIEW)
    held = world.store.states()
    changed = view(**VIEW.features, more=ms.max("delay", window="6h"))
    world.materialiser.run(changed)
    assert {key: world.store.states()[key] for key in held} == held
    read = OnlineReader([changed], world.store).read({"station": [STATIONS[0]]}, instant("12:00"))
    assert read.features["Trains.more"] == [11.0]


class Overtaken(MemoryLocks):
    """Locks that one has to wait for: meanwhile somebody else does something, once."""

    def __init__(self, by: Callable[[], None]) -> None:
        super().__init__()
        self._by: Callable[[], None] | None = by

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 60.0) -> Iterator[None]:
        by, self._by = self._by, None
        if by is not None:
            by()
        with super().hold(name, wait_s=wait_s):
            yield


def test_whoever_waited_for_a_later_materialisation_does_not_take_it_for_one_of_the_future() -> None:
    world = World(VIEW, [train("10:00", 5.0), train("16:00", 7.0, known="16:30")])
    world.clock.set(instant("09:00"))
    world.materialiser.run(VIEW)

    def later() -> None:
        world.clock.set(instant("12:00"))
        world.materialiser.run(VIEW, horizon=5 * HOUR)

    waiting = Materialiser(world.lake, world.store, world.clock, locks=Overtaken(later))
    waiting.run(VIEW, horizon=HOUR)

    mark = world.store.mark(slot(VIEW))
    assert mark is not None
    assert (mark.position, mark.until) == (instant("12:00"), instant("17:00"))
    read = OnlineReader([VIEW], world.store).read({"station": ["mile end"]}, instant("16:45"))
    assert read.features["Trains.last"] == [7.0]
