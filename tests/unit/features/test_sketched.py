"""Sketches over many rows: offline joined in several turns, or swept; online read from arrays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.data import duck
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, TableScan
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.declaring import feature_view
from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout, slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import Entity
from mainspring.features.offline import point_in_time
from mainspring.features.offline.query import bind
from mainspring.features.offline.sketched import ROWS_AT_ONCE
from mainspring.features.offline.stored import by_source, run
from mainspring.features.online import OnlineReader
from mainspring.features.online.entity import EntityReader
from mainspring.features.state.blobs import DamagedState, decode, encode

pytestmark = pytest.mark.slow

START = 1_383_350_400_000_000
UTC = pa.timestamp("us", tz="UTC")
USER = Entity("user", keys={"user": ms.Int64})
VISITS = Source("visits", schema={"user": ms.Int64, "page": ms.Int64}, event_time="at")


@feature_view(entity=USER, source=VISITS)
class Visits:
    pages = ms.distinct("page", window="24h")
    middle = ms.quantile("page", 0.5, window="24h")
    usual = ms.top_k("page", 2, window="24h")


def test_rows_of_one_moment_are_few_however_dense() -> None:
    moment = [START] * 50
    table = pa.table(
        {
            "at": pa.array(moment, UTC), "user": pa.array([1] * 50), "page": pa.array(range(50)),
            "_visible_at": pa.array(moment, UTC), "_seq": pa.array(range(50)),
        }
    )  # fmt: skip
    asked = pa.table({"user": [1] * 100, "_at": pa.array([START + number for number in range(100)], UTC)})
    scan = TableScan(1, rows=table, schema=table.schema)
    found = point_in_time(asked, [Visits], lambda _: scan, schema={"user": ms.Int64})
    assert found["Visits.pages"].to_pylist() == [0, *[50] * 99]
    assert found["Visits.middle"].to_pylist() == [None, *[24.0] * 99]


@pytest.mark.parametrize("rows_worth_a_tile", [16, 1_000_000])
def test_swept_or_joined_in_many_turns_is_the_same(rows_worth_a_tile: float) -> None:
    rng = np.random.default_rng(5)
    rows, asked, users = 3_000, 4_000, 3
    event, user = np.sort(rng.integers(START, START + DAY, rows)), rng.integers(0, users, rows)
    page = rng.zipf(1.4, rows) % 200
    table = pa.table(
        {
            "at": pa.array(event, UTC), "user": pa.array(user), "page": pa.array(page),
            "_visible_at": pa.array(event, UTC), "_seq": pa.array(np.arange(rows)),
        }
    )  # fmt: skip
    at, who = rng.integers(START + 20 * HOUR, START + 30 * HOUR, asked), rng.integers(0, users, asked)
    assert asked * rows / users > ROWS_AT_ONCE  # so a join takes turns
    found = point_in_time(
        pa.table({"user": pa.array(who), "_at": pa.array(at, UTC)}),
        [Visits],
        lambda _: TableScan(1, rows=table, schema=table.schema),
        schema={"user": ms.Int64},
        rows_worth_a_tile=rows_worth_a_tile,
    ).to_pylist()
    for number in range(0, asked, 7):
        first = (at[number] - DAY) // HOUR * HOUR
        inside = page[(user == who[number]) & (event >= first) & (event < at[number])].tolist()
        counts = Counter(inside)
        usual = sorted(counts, key=lambda value: (-counts[value], value))[:2]
        assert {name: found[number][f"Visits.{name}"] for name in Visits.names} == {
            "pages": len(counts),
            "middle": float(sorted(inside)[-(-len(inside) // 2) - 1]),
            "usual_1": usual[0],
            "usual_2": usual[1],
        }


class Counted:
    """A connection that counts the rows which DuckDB's operators hand on."""

    def __init__(self, con: Any) -> None:
        self._con = con
        self.rows = 0

    def execute(self, sql: str) -> Any:
        if sql.startswith("CREATE TEMP TABLE"):
            return self._analyzed(sql)
        if sql.startswith("SELECT"):
            self._analyzed(sql)
        return self._con.execute(sql)

    def sql(self, query: str) -> Any:
        self._analyzed(query)
        return self._con.sql(query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def _analyzed(self, sql: str) -> None:
        ((_, plan),) = self._con.execute(f"EXPLAIN (ANALYZE, FORMAT json) {sql}").fetchall()
        self._add(json.loads(plan)["operator"])

    def _add(self, operators: list[Any]) -> None:
        for operator in operators:
            self.rows += operator["intermediate_rows"]
            self._add(operator.get("children", []))


def test_the_work_of_a_hot_entity_is_its_rows_and_observations_not_their_product() -> None:
    rng = np.random.default_rng(3)
    rows, asked = 20_000, 500
    event = np.sort(rng.integers(START, START + 2 * DAY, rows))
    table = pa.table(
        {
            "at": pa.array(event, UTC), "user": pa.array([1] * rows), "page": pa.array(rng.permutation(rows)),
            "_visible_at": pa.array(event, UTC), "_seq": pa.array(np.arange(rows)),
        }
    )  # fmt: skip
    instants = rng.integers(START + DAY, START + 2 * DAY, asked)
    with duck.connect() as con:
        observed = pa.table({"_i": np.arange(asked), "_t": instants, "user": [1] * asked})
        con.register("observed", observed)
        con.register("source", table)
        bind(con, int(instants.min()), int(instants.max()))
        counted = Counted(con)
        names: list[str] = []

        def collect(query: str, kinds: Mapping[str, Any], prefix: str) -> None:
            assert prefix == "Visits."
            assert len(counted.execute(query).fetchall()) == asked
            names.extend(kinds)

        (alone,) = by_source([Visits])["visits"]
        [*run(counted, alone, TableScan(1, rows=table, schema=table.schema), 16, collect)]
    assert tuple(names) == Visits.names
    assert counted.rows < 200 * (rows + asked) < rows * asked


SHOPS = Source(
    "shops", schema={"user": ms.Int64, "page": ms.String, "item": ms.Int64, "x": ms.Float64}, event_time="at"
)


@feature_view(entity=USER, source=SHOPS)
class Shops:
    usual = ms.top_k("page", 3, window="12h")
    usual_month = ms.top_k("page", 3, window="30d")
    items = ms.top_k("item", 3, window="30d")
    pages = ms.distinct("page", window="30d")
    tail = ms.quantile("x", 0.99, window="30d")


def test_a_hot_entity_is_read_online_as_offline() -> None:
    rng = np.random.default_rng(8)
    rows, new = 12_000, 40
    event = np.sort(np.concatenate([
        rng.integers(START, START + 32 * DAY, rows), rng.integers(START + 32 * DAY, START + 32 * DAY + MINUTE, new)
    ]))  # fmt: skip
    item = rng.zipf(1.2, rows + new) % 5_000
    item[-new:] = [70_000, 70_001] * (new // 2)  # seen for the first time after the tiles were made
    table = pa.table(
        {
            "at": pa.array(event, UTC), "user": pa.array([1] * (rows + new)), "item": item,
            "page": [f"page {number}" for number in item], "x": rng.lognormal(3, 2, rows + new),
        }
    )  # fmt: skip
    lake, store, clock = MemoryLake(), MemoryOnlineStore(), ManualClock(START + 32 * DAY + 2 * MINUTE)
    Ingestor(lake, MemoryLocks(), clock).ingest(SHOPS, table, keyings={"user": ("user",)})
    clock.set(START + 32 * DAY)
    Materialiser(lake.scan, store, clock).run(Shops, horizon=2 * MINUTE)
    (state,) = store.read([(slot(Shops), encode_key([1]))])
    assert state is not None
    columns = [column for tiles in decode(state.payload, "").tiles for column in tiles.parts]
    lists = [sum(len(tile[0]) for tile in column if type(tile) is list) for column in columns]
    assert max(lists) <= 1024, "counts of many values are arrays"
    instants = [START + 32 * DAY + after for after in (0, 1, MINUTE // 2, MINUTE, HOUR, 5 * DAY)]
    reader = OnlineReader([Shops], store)
    online = [reader.read({"user": [1]}, now).features for now in instants]
    asked = pa.table({"user": [1] * len(instants), "_at": pa.array(instants, UTC)})
    for worth in (16, 1_000_000):
        offline = point_in_time(asked, [Shops], lake.scan, schema={"user": ms.Int64}, rows_worth_a_tile=worth)
        for name in online[0]:
            assert [found[name][0] for found in online] == offline[name].to_pylist()


@feature_view(entity=USER, source=VISITS)
class Usual:
    page = ms.top_k("page", 1, window="24h")


@pytest.mark.parametrize(
    "damage",
    [
        lambda tiles: tiles.__setitem__(-1, {"whole": b"odd"}),
        lambda tiles: tiles.__setitem__(-1, {"ends": tiles[-1]["whole"], "text": "pages"}),
        lambda tiles: tiles.__setitem__(-1, {}),
        lambda tiles: tiles.__setitem__(0, tiles[0][:-1]),
        lambda tiles: tiles.__setitem__(0, b"\xff" * 8),
        lambda tiles: tiles.__setitem__(0, b"\xff" * 7 + b"\x7f"),
    ],
)
def test_damaged_counts_are_a_damaged_state(damage: Callable[[list[Any]], None]) -> None:
    rows = 2_000
    table = pa.table({"at": pa.array([START] * rows, UTC), "user": pa.array([1] * rows), "page": range(rows)})
    lake, store, clock = MemoryLake(), MemoryOnlineStore(), ManualClock(START + HOUR)
    Ingestor(lake, MemoryLocks(), clock).ingest(VISITS, table, keyings={"user": ("user",)})
    Materialiser(lake, store, clock).run(Usual)
    (held,) = store.read([(slot(Usual), encode_key([1]))])
    assert held is not None
    state = decode(held.payload, "")
    reader = EntityReader(Layout(Usual))
    assert reader.read(state, START + HOUR) == ([0], ["PRESENT"])
    damage(state.tiles[0].parts[0])
    with pytest.raises(DamagedState):
        reader.columns([encode(state)], START + HOUR)
