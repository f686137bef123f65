"""The offline read, the online read over every store, and a brute-force oracle give the same at every microsecond."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from kit.histories import FIELDS, KEYS, PAIR, History, histories, lake_table, landed, near
from kit.oracle import DAY, HOUR, MINUTE, Row, value_at
from kit.reach import within_reach
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import DType
from mainspring.core.time import SECOND, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import TableScan
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import feature_dtype, slot
from mainspring.features.materialise import Materialiser, materialisation
from mainspring.features.materialise.continuing import Continuation
from mainspring.features.materialise.rebuild import Built
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader, OnlineRows
from mainspring.features.ports import OnlineStore
from mainspring.features.state.blobs import SETTLING

ASKED = [*KEYS, ("never", 7), (None, 1), ("1", None), (None, None)]
SCHEMA = {"k": ms.String, "n": ms.Int64, **FIELDS}
REQUESTS = [(1.5, 2), (0.0, 0), (None, -3), (float("nan"), None), (-2.25, 7)]  # values of the fields, row by row
WORST = ("MISSING", "EXPIRED", "NULL")
TILED = st.sampled_from([0, 0, 0.001, 16])  # 0: with every width of tiles


class Cases:
    """How many values were compared; printed at the end of the run."""

    offline = 0
    online = 0
    states = 0
    computed = 0
    continued = 0
    stores: ClassVar[set[str]] = set()


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(
            f"\npoint in time: {Cases.offline} random values offline and {Cases.online} online equal to the oracle's "
            f"({', '.join(sorted(Cases.stores))}), {Cases.computed} computed from them, "
            f"{Cases.states} states equal to a rebuild's, {Cases.continued} were continued"
        )


def agree(found: Any, wanted: Any, dtype: DType) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if not isinstance(wanted, float) and dtype not in (DType.Float32, DType.Float64):
        return type(found) is type(wanted) and found == wanted
    if math.isnan(wanted) or math.isinf(wanted):
        return math.isnan(found) if math.isnan(wanted) else bool(found == wanted)
    # Float32 is half a unit in the last place away from the double, on either side of a rounding edge.
    tolerance = 1.2e-7 if dtype == DType.Float32 else 1e-9
    return math.isclose(found, wanted, rel_tol=tolerance, abs_tol=1e-30)


def explain(history: History, name: str, key: Any, now: int, found: Any, wanted: Any) -> str:
    rows = "\n".join(
        f"  {row.key} event {row.event - history.base} visible {row.visible(history.lag) - history.base} {row.values}"
        for row in history.rows
    )
    return f"{history.features[name]} of {key} at {now - history.base}: {found}, should be {wanted}\n{rows}"


def check_offline(
    history: History, table: TableScan, rows: list[Row], instants: list[int], rows_worth_a_tile: float
) -> None:
    asked, observations = observed(instants)
    found = point_in_time(
        observations, [history.view, history.ask], lambda _: table, schema=SCHEMA, rows_worth_a_tile=rows_worth_a_tile
    )
    assert found.column_names == [*observations.column_names, *history.view.columns, *history.ask.columns]
    kept = ["k", "n", "w", "_at"]  # a NaN of q would differ from itself
    assert found.select(kept).equals(observations.select(kept))
    check_stored(history, history.view, found, rows, asked)
    check_computed(history, {name: found.column(name).to_pylist() for name in found.column_names})


def observed(instants: list[int]) -> tuple[list[tuple[Any, int]], pa.Table]:
    """Every key at each of the instants."""
    asked = [(key, now) for now in instants for key in ASKED]
    return asked, pa.table(
        {
            "k": pa.array([key[0] for key, _ in asked], pa.string()),
            "n": pa.array([key[1] for key, _ in asked], pa.int64()),
            "q": pa.array([field(row, 0) for row in range(len(asked))], pa.float64()),
            "w": pa.array([field(row, 1) for row in range(len(asked))], pa.int64()),
            "_at": pa.array([now for _, now in asked], pa.timestamp("us", tz="UTC")),
        }
    )


def check_stored(
    history: History, view: FeatureView, found: pa.Table, rows: list[Row], asked: list[tuple[Any, int]]
) -> None:
    """What was found of a view of some of the history's features is what the oracle says."""
    for name in view.features:
        feature, dtype = history.features[name], feature_dtype(view, name)
        column = found.column(f"{view.name}.{name}")
        values = (column.cast(pa.int64()) if dtype == DType.Timestamp else column).to_pylist()
        for (key, now), value in zip(asked, values, strict=True):
            wanted, _ = value_at(feature, rows, key, now, history.lag)
            assert agree(value, wanted, dtype), explain(history, name, key, now, value, wanted)
            Cases.offline += 1


def field(row: int, place: int) -> Any:
    return REQUESTS[row % len(REQUESTS)][place]


def check_computed(history: History, found: Mapping[str, list[Any]]) -> None:
    """What is computed from values that were found is what the functions give, bit for bit."""
    for name, computed in history.computed.items():
        group = history.ask if name.startswith("Ask.") else history.view
        dtype = feature_dtype(group, name.partition(".")[2], SCHEMA)
        for row, value in enumerate(found[name]):
            known = {each: found[each][row] for each in computed.inputs}
            wanted = computed.of(known)
            if wanted is not None and dtype in (DType.Float32, DType.Float64):
                wanted = float(wanted)
            assert type(value) is type(wanted), (name, known, value, wanted)
            assert value == wanted or (value != value and wanted != wanted), (name, known, value, wanted)
            Cases.computed += 1


def reading(history: History, store: OnlineStore) -> OnlineReader:
    return OnlineReader([history.view, history.ask], store, schema=SCHEMA)


def check_online(history: History, rows: list[Row], reader: OnlineReader, instants: list[int]) -> None:
    columns = {
        "k": [key[0] for key in ASKED],
        "n": [key[1] for key in ASKED],
        "q": [field(row, 0) for row in range(len(ASKED))],
        "w": [field(row, 1) for row in range(len(ASKED))],
    }
    for now in instants:
        read = reader.read(columns, now)
        check_computed(history, {**columns, **read.features})
        check_derived_statuses(history, read)
        for name, feature in history.features.items():
            dtype = feature_dtype(history.view, name)
            full_name = f"Facts.{name}"
            answers = zip(ASKED, read.features[full_name], read.statuses[full_name], strict=True)
            for key, value, status in answers:
                wanted, wanted_status = value_at(feature, rows, key, now, history.lag)
                assert agree(value, wanted, dtype), explain(history, name, key, now, value, wanted)
                assert status == wanted_status, explain(history, name, key, now, status, wanted_status)
                Cases.online += 1


def check_derived_statuses(history: History, read: OnlineRows) -> None:
    assert set(read.statuses) == set(history.view.columns)
    for name, computed in history.computed.items():
        if name.startswith("Facts."):
            for row, (value, status) in enumerate(zip(read.features[name], read.statuses[name], strict=True)):
                of = {read.statuses[each][row] for each in computed.inputs}
                worst = next((each for each in WORST if each in of), "NULL")
                assert status == (worst if value is None else "PRESENT")


COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=examples(gate=6, deep=40),
)


@COMMON
@given(history=histories(), data=st.data())
def test_offline_is_the_oracle(history: History, data: st.DataObject) -> None:
    edges = st.sampled_from(history.edges())
    anywhere = st.integers(history.base - DAY, history.base + 60 * DAY)
    hops = st.integers(0, 60 * 24 * 12).map(lambda n: history.base + n * 5 * MINUTE)
    instants = data.draw(st.lists(st.one_of(near(edges), near(hops), anywhere), min_size=1, max_size=12))
    check_offline(history, lake_table(history, history.rows, 0), history.rows, instants, data.draw(TILED))


@COMMON
@given(history=histories(), data=st.data())
def test_views_that_are_read_together_are_the_oracle(history: History, data: st.DataObject) -> None:
    some = st.sets(st.sampled_from(sorted(history.view.features)), min_size=1)
    parts = data.draw(st.lists(some, min_size=2, max_size=3))
    views = [
        FeatureView(f"Part{number}", PAIR, history.source, {name: history.view.features[name] for name in sorted(part)})
        for number, part in enumerate(parts)
    ]
    instants = data.draw(st.lists(near(st.sampled_from(history.edges())), min_size=1, max_size=6))
    asked, observations = observed(instants)
    scanned = lake_table(history, history.rows, 0)
    found = point_in_time(observations, views, lambda _: scanned, schema=SCHEMA, rows_worth_a_tile=data.draw(TILED))
    for view in views:
        check_stored(history, view, found, history.rows, asked)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "lmdb", "redis", "postgres"])
@settings(COMMON, max_examples=examples(gate=3, deep=40))
@given(history=histories(), data=st.data())
def test_online_is_the_oracle_between_materialisations(
    online_stores: Callable[[], dict[str, OnlineStore]], kind: str, history: History, data: st.DataObject
) -> None:
    emptied = online_stores()
    if kind not in emptied:
        pytest.skip(f"the server of {kind} is not installed")
    store = emptied[kind]
    Cases.stores.add(kind)
    clock = ManualClock()
    tables = {"facts": lake_table(history, [], 0)}
    materialiser = Materialiser(tables.__getitem__, store, clock, entities_at_once=2)
    reader = reading(history, store)
    through, there, until = history.base, 0, history.base
    for step in range(data.draw(st.integers(1, 3))):
        through += data.draw(st.one_of(st.sampled_from([0, 1, HOUR, 13 * HOUR, 3 * DAY]), st.integers(0, 30 * DAY)))
        horizon = data.draw(st.sampled_from([0, 1, HOUR, 6 * HOUR, 3 * DAY]))
        there = data.draw(st.integers(there, len(history.rows)))
        rows = history.rows[:there]
        tables["facts"] = lake_table(history, rows, step + 1)
        clock.set(through)
        materialiser.run(history.view, horizon=horizon)
        first, last = through - SETTLING, through + horizon
        until = max(until, last)
        edges = [at for at in history.edges() if first < at < last] or [through]
        drawn = st.lists(st.one_of(near(st.sampled_from(edges)), st.integers(first, last)), min_size=1, max_size=6)
        instants = [first, through, last, *(min(max(at, first), last) for at in data.draw(drawn))]
        check_online(history, rows, reader, instants)
    check_rebuilt(history, store, tables["facts"], clock, until - through)
    materialiser.close()


@settings(COMMON, max_examples=examples(gate=2, deep=20))
@given(history=histories(), data=st.data())
def test_what_ingestion_lands_is_read_as_the_oracle_reads_it(
    tmp_path_factory: pytest.TempPathFactory, history: History, data: st.DataObject
) -> None:
    """The same, with the lake and the flags of ingestion in between, in batches and loads of any size."""
    lake = data.draw(st.sampled_from([MemoryLake, lambda: DeltaLake(tmp_path_factory.mktemp("lake"))]))()
    clock, store = ManualClock(), MemoryOnlineStore()
    ingestor = Ingestor(
        lake, MemoryLocks(), clock, data.draw(st.integers(1, 50)), load_rows=data.draw(st.integers(1, 50))
    )
    materialiser = Materialiser(lake, store, clock)
    through, there = history.base, 0
    for step in range(data.draw(st.integers(1, 3))):
        upto = data.draw(st.integers(there, len(history.rows)))
        batch = landed(history, history.rows[there:upto])
        report = ingestor.ingest(history.source, batch, keyings={"pair": ("k", "n")}, batch_id=f"batch-{step}")
        assert (report.rows, report.quarantined) == (upto - there, 0)
        there = upto
        for _ in range(data.draw(st.integers(1, 3))):  # the later times nothing has landed
            through += data.draw(st.one_of(st.integers(0, 2 * HOUR), st.integers(0, 20 * DAY)))
            clock.set(through)
            if data.draw(st.booleans()):  # a new process, which knows nothing of the earlier one's memory
                materialiser.close()
                materialiser = Materialiser(data.draw(st.sampled_from([lake, lake, lake.scan])), store, clock)
            materialiser.run(history.view, horizon=DAY)
        rows = history.rows[:there]
        instants = data.draw(st.lists(st.integers(through - SETTLING, through + DAY), min_size=1, max_size=4))
        check_online(history, rows, reading(history, store), instants)
        edges = [at for at in history.edges() if at <= through] or [through]
        instants += data.draw(st.lists(near(st.sampled_from(edges)), min_size=1, max_size=4))
        check_offline(history, lake.scan("facts"), rows, instants, data.draw(TILED))
    materialiser.close()
    # Where nothing landed, a new process leaves what has settled meanwhile to one that looks at the rows.
    clock.set(through + 1)
    materialiser = Materialiser(lake.scan, store, clock)
    materialiser.run(history.view, horizon=DAY)
    check_rebuilt(history, store, lake.scan("facts"), clock, DAY)
    materialiser.close()


@settings(COMMON, max_examples=examples(gate=3, deep=100))
@given(history=histories(versioned=st.just(False)), data=st.data())
def test_what_a_stream_lands_is_read_as_the_oracle_reads_it(
    monkeypatch: pytest.MonkeyPatch, history: History, data: st.DataObject
) -> None:
    """Batches seconds apart, whose rows are late by seconds or minutes: most states are continued, and some settle."""
    monkeypatch.setattr(materialisation, "Continuation", Counted)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    recorded, rows = history.base, []
    for seq in range(40):
        row = history.rows[seq % len(history.rows)]
        recorded += rng.randrange(6 * SECOND)
        event = recorded - rng.choice((0, 0, 0, 1, 7 * SECOND, 40 * SECOND, 3 * MINUTE, -20 * SECOND))
        rows.append(replace(row, key=KEYS[seq % 2], event=event, recorded=recorded, seq=seq))
    history = replace(history, rows=rows)
    lake, clock, store = MemoryLake(), ManualClock(), MemoryOnlineStore()
    ingestor, materialiser = Ingestor(lake, MemoryLocks(), clock), Materialiser(lake, store, clock, entities_at_once=2)
    horizon = rng.choice((0, 10 * SECOND, HOUR))
    early = rng.choice((0, 20 * SECOND))  # rows that land before they can be seen
    through, there = history.base, 0
    for step in range(12):
        through += rng.choice((0, 1, 2 * MINUTE, *(rng.randrange(15 * SECOND) for _ in range(9))))
        clock.set(through)
        upto = there + sum(row.recorded <= through + early for row in rows[there:])
        if upto > there or not there:
            batch = landed(history, rows[there:upto])
            ingestor.ingest(history.source, batch, keyings={"pair": ("k", "n")}, batch_id=f"batch-{step}")
            there = upto
        materialiser.run(history.view, horizon=horizon, gradually=rng.random() < 0.7)
        edges = [at for at in history.edges() if through - SETTLING < at < through + horizon] or [through]
        near_edges = [rng.choice(edges) + rng.choice((-1, 0, 1)) for _ in range(3)]
        instants = [through, *(min(max(at, through - SETTLING), through + horizon) for at in near_edges)]
        check_online(history, rows[:there], reading(history, store), instants)
    clock.set(through + 5 * MINUTE)
    materialiser.run(history.view, horizon=horizon)  # all rows settle
    check_rebuilt(history, store, lake.scan("facts"), clock, horizon)
    materialiser.close()


class Counted(Continuation):
    """A continuation that counts the states."""

    def states(self, changed: str, position: int, until: int, at_once: int) -> Iterator[Built]:
        for built in super().states(changed, position, until, at_once):
            Cases.continued += 1
            yield built


def check_rebuilt(history: History, store: OnlineStore, table: TableScan, clock: ManualClock, horizon: int) -> None:
    """What increments left is what one run over everything makes, byte for byte, as far as a window can reach."""
    whole = MemoryOnlineStore()
    materialiser = Materialiser(lambda _: table, whole, clock)
    materialiser.run(history.view, horizon=horizon)
    materialiser.close()
    wanted = [(slot(history.view), encode_key(key)) for key in KEYS]
    for mine, fresh in zip(store.read(wanted), whole.read(wanted), strict=True):
        if fresh is not None:
            assert mine is not None
            assert within_reach(mine.payload, history.view, fresh.position) == fresh.payload
            Cases.states += 1
