"""Processes that pull from a warehouse and are killed: run by test_pulls_kill.py, not a test itself.

`pulls_victim.py steps FOLDER FIRST STRIDE` pulls in FOLDER, again and again in children that each kill themselves
(SIGKILL) at a later step of the catalog or the lake, until one ends. `... moments FOLDER SEED` kills at random moments
instead. `... whole FOLDER` pulls without a kill. Then each prints what is there as one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb

from death.materialise_victim import Dying as DyingStore
from death.materialise_victim import after, at_step, forked
from kit.pulls import NOW, PARCELS
from mainspring.core.expr.dialects import dialect
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.pulls_catalog import CatalogPulls
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.data.ingest import Ingestor
from mainspring.data.warehouse.arrivals import arrivals
from mainspring.data.warehouse.pulling import Puller
from mainspring.project.catalog import open_catalog

LIVES = 200
ROWS = 120


class Dying(DyingStore):
    """A store that kills its process before one of its changes, when told to."""

    steps = ("append", "rewrite", "record", "keep", "shed")


def prepare(folder: Path) -> None:
    """Write a table with many rows of one arrival, copies of rows, and rows that fail a check."""
    with duckdb.connect(str(folder / "depot.db")) as con:
        con.execute("SET timezone = 'UTC'")
        con.execute(f"""CREATE TABLE parcels AS SELECT
            (n // 2) * CASE n % 11 WHEN 0 THEN 100 ELSE 1 END AS parcel, 'p' || n % 3 AS place, n / 7 AS kg,
            make_timestamptz(n * 1000) AS packed_at, make_timestamptz((n // 50) * 10) AS loaded
            FROM range({ROWS}) t(n) UNION ALL SELECT 5, 'p1', 1.0, make_timestamptz(1), make_timestamptz(20)
            FROM range(9)""")


def play(folder: Path, step: Callable[[], None]) -> None:
    """Pull all rows, in small batches."""
    locks, clock = FileLocks(folder / "locks"), ManualClock(NOW)
    lake = Dying(DeltaLake(folder / "lake"), step)
    engine = open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), locks)
    warehouse = DuckdbWarehouse(folder / "depot.db")
    order = arrivals(dialect("duckdb"), "parcels", "loaded", "15us", warehouse.columns("parcels"))
    store = Dying(CatalogPulls(engine, "lake"), step)
    ingestor = Ingestor(lake, locks, clock, batch_rows=20)
    keyings = {"place": ("place",)}
    Puller(PARCELS, order, warehouse, lake, ingestor, store, locks, clock, keyings, batch_rows=40).pull()


def content(folder: Path) -> dict[str, str]:
    """Return the rows of the table, as a digest in an order of their own, and which of them are last values."""
    lake, found = DeltaLake(folder / "lake"), {}
    with duck.connect() as con:
        for table, columns in (
            (PARCELS.name, "* EXCLUDE (_seq, _batch, _record_place)"),
            (PARCELS.name, "place, parcel, packed_at, _record_place"),
            (f"{PARCELS.name}__quarantine", "* EXCLUDE (_seq, _batch)"),
        ):
            duck.register(con, "read", lake.scan(table))
            where = "WHERE _record_place" if "_record_place" in columns and "EXCLUDE" not in columns else ""
            rows = con.execute(f"SELECT {columns} FROM read {where} ORDER BY ALL").fetchall()
            found[f"{table}: {columns}"] = f"{len(rows)} {hashlib.sha256(repr(rows).encode()).hexdigest()}"
    return found


def killed(folder: Path, killer: Callable[[int], Callable[[], Callable[[], None]]]) -> int:
    """Pull in children with killers until one ends by itself; return the number that died."""
    for life in range(LIVES):
        made = killer(life)
        status = forked(lambda made=made: play(folder, made()))  # type: ignore[misc]
        if status == 0:
            return life
        if status != signal.SIGKILL:
            raise SystemExit(f"a child ended with {status}")
    raise SystemExit("no child ended")


def main() -> None:
    what, name, *rest = sys.argv[1:]
    folder, deaths = Path(name), 0
    folder.mkdir(exist_ok=True)
    prepare(folder)
    if what == "steps":
        first, stride = map(int, rest)
        deaths = killed(folder, lambda life: lambda: at_step(first + life % stride))
    elif what == "moments":
        chance = random.Random(rest[0])
        deaths = killed(folder, lambda life: lambda: after(chance.random() * (1 + life / 5)))
    else:
        play(folder, lambda: None)
    print(json.dumps(content(folder) | {"deaths": str(deaths)}), flush=True)


if __name__ == "__main__":
    main()
