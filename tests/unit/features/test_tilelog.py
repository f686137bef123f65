"""The log of tiles: exact at every boundary, exactly once, and nothing of rows that are gone."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from kit.depth import deep, examples
from kit.station import TRAINS, instant, train, view
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.ports import LakeTables
from mainspring.features.layout import Layout
from mainspring.features.state import sql as parts
from mainspring.features.tilelog import rows as rows_of
from mainspring.features.tilelog.rows import tiles_table
from mainspring.features.tilelog.slices import Slice

pytestmark = pytest.mark.slow

VIEW = view(
    n=ms.count(window="1h"),
    sum=ms.sum("delay", window="24h"),
    sd=ms.std("delay", window="24h"),
    top=ms.max("delay", window="30d"),
    newest=ms.last("delay", window="24h"),
    median=ms.quantile("delay", 0.5, window="24h"),
    kinds=ms.distinct("delay", window="24h"),
    last=ms.last("delay"),
)
LAYOUT = Layout(VIEW)
TABLE = tiles_table(LAYOUT.slot)
BASE = instant("2013-03-05T00:00:00Z")


class Kept:
    """A slice of a lake as one process keeps it."""

    def __init__(self, lake: LakeTables, *, low: int = 2**52) -> None:
        self.lake = lake
        self.con = duck.connect()
        self.low = low
        self.slice = Slice(self.con, lake, MemoryLocks(), LAYOUT, 1)

    def refresh(self) -> Slice:
        self.slice.refresh(self.lake.scan("trains"), since=self.low, heard=None)
        return self.slice

    def tiles(self, width: int, at: int) -> dict[tuple[str, int], tuple[Any, ...]]:
        """What the log says at an instant: key and start of each tile -> number, sum, greatest value."""
        duck.register(self.con, "logged", self.lake.scan(TABLE))
        pieces, _ = self.slice.tiles.log.read(self.slice.loads)
        self.con.register("held", pa.table({"_append": [p.append for p in pieces], "_load": [p.first for p in pieces]}))
        columns = {5 * MINUTE: "sum(n_0), NULL, NULL", HOUR: "NULL, sum(sum_1), NULL", DAY: "NULL, NULL, max(max_1)"}
        found = self.con.execute(
            f"SELECT k0, _start, {columns[width]} FROM logged "
            "SEMI JOIN held ON held._append = logged._append AND held._load = logged._load "
            f"WHERE _width = {width} AND _enters <= {at // width * width} GROUP BY ALL"
        ).fetchall()
        return {(key, start): (n, total, top) for key, start, n, total, top in found}


def brute(rows: Sequence[dict[str, Any]], width: int, at: int) -> dict[tuple[str, int], tuple[Any, ...]]:
    """The same of the rows: those whose hop is over by the boundary, and which were visible before."""
    boundary = at // width * width
    held = defaultdict(list)
    for row in rows:
        event, known = (int(row[name].timestamp() * 1_000_000) for name in ("left_at", "known_at"))
        start = event // width * width
        if row["station"] is not None and start + width <= boundary and max(event, known) < boundary:
            held[row["station"], start].append(row["delay"])
    made = {
        5 * MINUTE: lambda delays: (len(delays), None, None),
        HOUR: lambda delays: (None, sum(delays), None),
        DAY: lambda delays: (None, None, max(delays)),
    }[width]
    return {place: made(delays) for place, delays in held.items()}


def random_rows(chance: random.Random, number: int) -> list[dict[str, Any]]:
    made = []
    for _ in range(number):
        left = BASE + chance.choice([chance.randrange(0, 3 * DAY), chance.randrange(0, 36) * HOUR])
        known = left + chance.choice([0, 0, 1, 5 * MINUTE, HOUR, chance.randrange(0, 2 * DAY)])
        station = chance.choice(["a", "b", "ü", None])
        made.append({**train("10:00", chance.randrange(-40, 40) / 2, station=station), "left_at": at(left)})
        made[-1]["known_at"] = at(known)
    return made


def at(moment: int) -> Any:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC")).as_py()


def land(lake: LakeTables, rows: Sequence[dict[str, Any]], load_rows: int = 1 << 20, batch: str | None = None) -> None:
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(), batch_rows=7, load_rows=load_rows)
    ingestor.ingest(TRAINS, list(rows), keyings={"station": ("station",)}, batch_id=batch)


@pytest.fixture(params=[pytest.param("memory", marks=deep), "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LakeTables:
    return MemoryLake() if request.param == "memory" else DeltaLake(tmp_path / "lake")


def check(kept: Kept, rows: Sequence[dict[str, Any]], chance: random.Random) -> None:
    for width in LAYOUT.hops:
        for _ in range(3):
            moment = BASE + chance.randrange(0, 5 * DAY)
            assert kept.tiles(width, moment) == brute(rows, width, moment)


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=3)))
def test_the_log_is_exact_at_every_boundary(lake: LakeTables, seed: int) -> None:
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    kept = Kept(lake)
    for number in range(3):
        rows += (batch := random_rows(chance, 25))
        land(lake, batch, load_rows=10, batch=str(number))
        kept.refresh()
        check(kept, rows, chance)
    restarted = Kept(lake)
    version = lake.version(TABLE)
    restarted.refresh()
    check(restarted, rows, chance)
    assert lake.version(TABLE) == version  # nothing was left to write
    restarted.slice.compact(anyway=True)
    check(restarted, rows, chance)
    kept.slice.compact(anyway=True)
    check(kept, rows, chance)
    kept.low = 2**52 + DAY  # reads the log again
    kept.refresh()
    check(kept, rows, chance)


def test_compacting_leaves_what_was_merged_equal(lake: LakeTables) -> None:
    chance = random.Random(7)
    for number in range(12):
        land(lake, random_rows(chance, 20), batch=str(number))
    kept = Kept(lake)
    kept.refresh()
    before = lake.scan(TABLE)
    duck.register(kept.con, "before", before)
    kept.slice.compact(anyway=True)
    duck.register(kept.con, "after", lake.scan(TABLE))
    counts = [
        kept.con.execute(f"SELECT count(*) FROM {name} WHERE _width > 0").fetchall()[0][0]
        for name in ("before", "after")
    ]
    assert counts[1] < counts[0]

    for width in LAYOUT.hops:
        wanted = LAYOUT.parts(LAYOUT.of_hop(width))
        read = [
            kept.con.execute(
                f"SELECT * FROM (SELECT k0, _start, {parts.merged(wanted)} FROM {name} WHERE _width = {width} "
                "GROUP BY ALL) ORDER BY ALL"
            ).fetchall()
            for name in ("before", "after")
        ]
        assert len(read[0]) == len(read[1])
        for old, new in zip(*read, strict=True):
            assert summed_up(old) == summed_up(new)


def summed_up(row: tuple[Any, ...]) -> list[Any]:
    """A tile's values, lists of spreads and of counts as what they amount to."""
    made: list[Any] = []
    for value in row:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            if "m2" in value[0]:
                n = sum(each["n"] for each in value)
                total = sum(each["n"] * each["origin"] + each["shift"] for each in value)
                squares = sum(
                    each["m2"] + each["n"] * (each["origin"] + each["shift"] / each["n"] - total / n) ** 2
                    for each in value
                )
                made.append((n, pytest.approx(total, abs=1e-9), pytest.approx(squares, abs=1e-6)))
                continue
            counts: dict[Any, int] = defaultdict(int)
            for each in value:
                counts[each["x"]] += each["n"]
            made.append(dict(counts))
        else:
            made.append(value)
    return made


def test_the_rest_of_a_load_that_was_cut_short_takes_its_place(lake: LakeTables) -> None:
    chance = random.Random(3)
    rows = random_rows(chance, 20)
    kept = Kept(lake)
    land(lake, random_rows(random.Random(9), 5), batch="first")
    first = random_rows(random.Random(9), 5)

    class Cut(Exception):
        pass

    class Half:
        """The lake, of whose second write nothing comes."""

        writes = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(lake, name)

        def append(self, *arguments: Any, **options: Any) -> int | None:
            self.count()
            return lake.append(*arguments, **options)

        def rewrite(self, *arguments: Any, **options: Any) -> int | None:
            self.count()
            return lake.rewrite(*arguments, **options)

        def count(self) -> None:
            self.writes += 1
            if self.writes == 2:
                raise Cut

    with pytest.raises(Cut):
        land(Half(), rows, batch="cut")  # type: ignore[arg-type]
    kept.refresh()
    check_some = kept.tiles(5 * MINUTE, BASE + 5 * DAY)
    assert sum(n for n, *_ in check_some.values()) < len(first) + len(rows)
    land(lake, rows, batch="cut")
    kept.refresh()
    check(kept, first + rows, chance)


def test_what_is_restored_away_leaves_the_log(lake: LakeTables) -> None:
    chance = random.Random(4)
    first, second, third = (random_rows(chance, 15) for _ in range(3))
    kept = Kept(lake)
    land(lake, first, batch="1")
    kept.refresh()
    version = lake.version("trains")
    land(lake, second, batch="2")
    kept.refresh()
    check(kept, first + second, chance)
    lake.restore("trains", version)
    kept.refresh()
    check(kept, first, chance)
    land(lake, third, batch="3")
    kept.refresh()
    check(kept, first + third, chance)
    kept.slice.compact(anyway=True)
    check(kept, first + third, chance)
    # Back to what the compacted log has no more: it is written again, under another key.
    lake.restore("trains", version)
    kept.refresh()
    land(lake, second, batch="2")
    Kept(lake).refresh()
    kept.refresh()
    check(kept, first + second, chance)


def test_after_compaction_no_file_has_a_tile_of_rows_that_are_gone(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path / "lake")
    kept = Kept(lake)
    land(lake, [train("10:00", 1.0, station="stays"), train("10:00", 1.0, station="erased")], batch="1")
    land(lake, [train("11:00", 1.0, station="erased")], batch="2")
    kept.refresh()
    duck.register(kept.con, "all_rows", lake.scan("trains"))
    left = kept.con.sql("SELECT * FROM all_rows WHERE station <> 'erased'").to_arrow_table()
    lake.replace("trains", left.to_batches(), left.schema, key="erase")
    kept.refresh()
    assert kept.slice.compact()
    assert not kept.slice.compact()
    lake.vacuum(TABLE, [])
    files = list((tmp_path / "lake" / TABLE).glob("*.parquet"))
    assert files
    found = kept.con.execute(f"SELECT DISTINCT k0 FROM read_parquet({[str(file) for file in files]})").fetchall()
    assert {key for (key,) in found} == {"stays", None}


def test_loads_whose_rows_are_all_kept_one_by_one_wait(lake: LakeTables) -> None:
    kept = Kept(lake, low=instant("10:00"))
    land(lake, [train("09:00", 1.0), train("10:00", 2.0)], batch="1")
    kept.refresh()
    version = lake.version(TABLE)
    # The low is a boundary of the widest hop, a day: 09:00 and 10:00 are both behind it.
    assert version is None
    assert kept.slice.tiles.any_untiled
    kept.low = instant("2013-03-06T00:00:00Z")
    kept.slice.forget()
    kept.refresh()
    assert lake.version(TABLE) is not None
    assert not kept.slice.tiles.any_untiled


def content(rows: Slice, heard: int) -> list[list[tuple[Any, ...]]]:
    """The rows of a slice's tables, with the keys of entities instead of their numbers."""
    keyed = f"JOIN (SELECT kid, k0 FROM {rows.entities}) USING (kid)"
    queries = [f"SELECT * EXCLUDE (kid, counted) FROM {rows.entities}"]
    queries += [f"SELECT * EXCLUDE (kid) FROM {rows.raw} {keyed}"]
    queries += [f"SELECT DISTINCT k0, seq FROM {rows.arrived} {keyed} WHERE seq > {heard}"]
    queries += [
        f"SELECT k0, start, enters, {parts.merged(rows_of.parts_of(LAYOUT, width))} FROM {table} {keyed} "
        "GROUP BY k0, start, enters"
        for width, table in rows.tiles.tables.items()
    ]
    return [sorted(map(repr, rows.con.execute(query).fetchall())) for query in queries]  # type: ignore[misc]


def arriving_rows(chance: random.Random, now: int, number: int) -> list[dict[str, Any]]:
    """Rows that are recorded one after another from `now` on, some of them late: no earlier row changes."""
    made = random_rows(chance, number)
    for place, row in enumerate(made):
        row["known_at"] = at(now + place)
        row["left_at"] = at(now + place - chance.choice([0, 1, HOUR, chance.randrange(0, 2 * DAY)]))
    return made


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=10)))
def test_a_slice_that_grows_is_the_one_that_is_read_anew(tmp_path: Path, seed: int) -> None:
    """Files are compacted, and single rows settle, in the course of it; both are refreshed without a read of all."""
    lake, chance = DeltaLake(tmp_path / "lake"), random.Random(seed)
    land(lake, arriving_rows(chance, BASE, 20), batch="0")
    kept = Slice(duck.connect(), lake, MemoryLocks(), LAYOUT, 1)
    low, heard, compacted, settled = BASE, 0, 0, 0
    kept.refresh(lake.scan("trains"), since=low, heard=heard)
    for number in range(1, 9):
        files = set(lake.scan("trains").files or ())
        land(lake, arriving_rows(chance, BASE + number * 6 * HOUR, chance.randrange(50, 80)), batch=str(number))
        if number % 3 == 0:
            low, heard = BASE + (number - 1) * 6 * HOUR, kept.newest
            kept.trim(low, anyway=True)
        scan, before = lake.scan("trains"), kept.low
        compacted += not files <= {*(scan.files or ())}
        kept.refresh(scan, since=low, heard=heard)
        settled += kept.low > before
        assert not kept.ordered
    fresh = Slice(duck.connect(), lake, MemoryLocks(), LAYOUT, 2)
    fresh.refresh(scan, since=kept.low, heard=heard)
    assert content(kept, heard) == content(fresh, heard)
    assert kept.content == fresh.content
    assert compacted
    assert settled


def test_rows_that_were_deleted_beside_a_compaction_are_seen(tmp_path: Path) -> None:
    lake, chance = DeltaLake(tmp_path / "lake"), random.Random(1)
    kept = Kept(lake)
    for number in range(2):
        land(lake, arriving_rows(chance, BASE + number * DAY, 300), batch=str(number))
        if number == 0:
            kept.refresh()
    assert lake.expire("trains", "left_at", BASE)
    assert kept.refresh().content == Kept(lake).refresh().content
