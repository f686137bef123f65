"""Bounded sample of a view's source, small enough for an interactive request, whatever the table's size.

The sample has all needed rows of a few entities, in little memory: the offline read of these entities gives exactly the
same over the sample as over the whole table. Only a scan of the table's keys grows with its size, and that has a time
limit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from mainspring.core.errors import Unavailable
from mainspring.core.expr.sql import quote_name
from mainspring.core.expr.types import columns_of
from mainspring.data import duck
from mainspring.data.arrow import arrow_schema
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, TableScan
from mainspring.features.model import FeatureView, hop
from mainspring.features.offline.asof import check_flag, equal, listed
from mainspring.features.offline.query import COUNTS_FROM
from mainspring.features.offline.versions import COUNTS_UNTIL, has_versions

_HASHES = 1 << 64
_LOOKED_AT = 1_000_000  # rows, to estimate the number of entities


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the cost of one sample.

    Args:
        entities: Number of sampled entities.
        rows: Maximum number of their rows; fewer entities are sampled if they have more.
        seconds: Time-out of the read of the table.
        memory: Memory that DuckDB may use before it spills to disk.
    """

    entities: int = 200
    rows: int = 1_000_000
    seconds: float = 30.0
    memory: str = "512MB"


@dataclass(frozen=True)
class Sample:
    """Some entities, and the rows that an offline read of them at instants in `[start, end]` needs.

    Attributes:
        keys: The entities' keys, one column each, and `_since`: when the first row of each became visible, µs.
        scan: Their rows, as a version of the source's table.
        known: Approximate number of entities in the table.
        start, end: The first and last instant at which any of their rows is visible, UTC epoch microseconds.
    """

    keys: pa.Table
    scan: TableScan
    known: int
    start: int
    end: int


@contextmanager
def bounded(name: str, bounds: Bounds) -> Iterator[Any]:
    """Context with a DuckDB session of one thread that is interrupted after the time limit.

    Raises:
        Unavailable: The time limit was exceeded. `name` is the source.
    """
    con = duck.connect(memory_limit=bounds.memory)
    over = threading.Event()

    def give_up() -> None:
        # Repeatedly: between two statements there is nothing to interrupt.
        wait = bounds.seconds
        while not over.wait(wait):
            con.interrupt()
            wait = 0.02

    watch = threading.Thread(target=give_up, daemon=True)
    try:
        con.execute("SET threads = 1")
        watch.start()
        with duck.duck_errors(name):
            yield con
    except duckdb.InterruptException:
        raise Unavailable(
            f"Reading {name} took more than {bounds.seconds:g} s and was stopped.",
            fix="try again when the machine is less busy; the command line reads tables of any size.",
        ) from None
    finally:
        over.set()
        if watch.is_alive():
            watch.join()
        con.close()


def sample(view: FeatureView, scan: TableScan, now: int, bounds: Bounds) -> Sample | None:
    """Return some of the entities that are known at `now`, always the same ones; `None` if there are none.

    They are chosen by a hash of their keys, so the choice is independent of their data. If one entity alone has more
    rows than `bounds.rows`, `start` is late enough for fewer.

    Raises:
        Unavailable: Reading the table took too long.
        Invalid: The source was landed before the view's entity was declared.
    """
    keys = list(view.entity.keys)
    with bounded(view.source.name, bounds) as con:
        duck.register(con, "source", scan)
        there = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)
        con.execute(
            f"CREATE TEMP VIEW known AS SELECT {listed(keys)}, hash({listed(keys)}) AS _h, "
            f"{COUNTS_FROM} AS _v FROM source WHERE {there} AND {COUNTS_FROM} <= {now}"
        )
        below = _below(con, bounds.entities)
        con.execute(
            f"CREATE TEMP TABLE candidates AS SELECT {listed(keys)}, _h, min(_v) AS _since, max(_v) AS _until, "
            f"count(*) AS _rows FROM known WHERE _h <= {below} GROUP BY ALL"
        )
        (candidates,) = duck.one_row(con, "SELECT count(*) FROM candidates")
        if not candidates:
            return None
        con.execute(
            "CREATE TEMP TABLE chosen AS SELECT * FROM (SELECT *, sum(_rows) OVER (ORDER BY _h) AS _total, "
            "row_number() OVER (ORDER BY _h) AS _n FROM candidates) "
            f"WHERE _n <= {bounds.entities} AND (_total <= {bounds.rows} OR _n = 1)"
        )
        start, end = duck.one_row(con, "SELECT min(_since), max(_until) FROM chosen")
        later = _narrowed(con, view, keys, bounds.rows)
        rows = (
            _rows(con, view, scan, start, now) if later is None else _rows(con, view, scan, later, now, anchored=True)
        )
        chosen = con.sql(f"SELECT {listed(keys)}, _since FROM chosen ORDER BY _h").to_arrow_table()
    chosen = chosen.cast(arrow_schema(view.entity.keys).append(pa.field("_since", pa.int64())))
    part = TableScan(scan.version, rows=rows, schema=rows.schema)
    known = max(chosen.num_rows, round(candidates * _HASHES / (below + 1)))
    return Sample(chosen, part, known, start if later is None else max(start, later), end)


def _below(con: Any, entities: int) -> int:
    """Return a hash threshold below which there are a few times as many entities as wanted.

    It is estimated from some rows of the table, whose entities are a lower bound. If they are few, all are taken.
    """
    (there,) = duck.one_row(con, f"SELECT approx_count_distinct(_h) FROM (SELECT _h FROM known LIMIT {_LOOKED_AT})")
    return int(min(_HASHES - 1, _HASHES * 4 * entities // max(1, there)))


def rows_of(view: FeatureView, scan: TableScan, key: pa.Table, at: int, bounds: Bounds) -> TableScan:
    """Return the rows of the view's source that the offline read of the entities in `key` at the instant `at` needs.

    Raises:
        Unavailable: Reading the table took too long.
        Invalid: The source was landed before the view's entity was declared.
    """
    with bounded(view.source.name, bounds) as con:
        duck.register(con, "source", scan)
        con.register("chosen", key)
        rows = _rows(con, view, scan, at, at, anchored=True)
    return TableScan(scan.version, rows=rows, schema=rows.schema)


def _narrowed(con: Any, view: FeatureView, keys: list[str], most: int) -> int | None:
    """Return the instant from which the chosen entities have at most `most` rows; `None` if all their rows fit."""
    (total,) = duck.one_row(con, "SELECT sum(_rows) FROM chosen")
    if total <= most:
        return None
    share = 1 - most / float(total)
    found = duck.one_row(
        con, f"SELECT quantile_disc(_v, {share!r}) FROM known AS s JOIN chosen AS c ON {equal(keys, 's', 'c')}"
    )
    return int(found[0]) + reach(view)


def _rows(con: Any, view: FeatureView, scan: TableScan, start: int, end: int, *, anchored: bool = False) -> pa.Table:
    """Read the rows of the entities in `chosen` that matter at any instant in `[start, end]`.

    Args:
        anchored: Whether rows of them were visible before `start`: then the last counting row matters, and may be
            arbitrarily old.
    """
    keys, flag = list(view.entity.keys), quote_name(RECORD_PREFIX + view.entity.name)
    needed = [*keys, *view.source.times, VISIBLE_AT, SEQUENCE, *_columns(view)]
    conditions, join = [], ""
    if reach(view):
        conditions.append(f"epoch_us(s.{quote_name(view.source.event_time)}) >= {start - reach(view)}")
    if has_versions(scan, view.source):
        needed.append(SUPERSEDED_AT)
        conditions.append(f"{COUNTS_UNTIL} > {start}")
    if any(feature.window is None for feature in view.features.values()):
        check_flag(scan, view)
        needed.append(RECORD_PREFIX + view.entity.name)
        conditions.append(f"({flag} AND {COUNTS_FROM} >= {f'coalesce(a._from, {start})' if anchored else start})")
        if anchored:
            join = (
                f"LEFT JOIN (SELECT {listed_of(keys, 's')}, max({COUNTS_FROM}) AS _from FROM source AS s "
                f"JOIN chosen AS c ON {equal(keys, 's', 'c')} WHERE {flag} AND {COUNTS_FROM} <= {start} "
                f"GROUP BY ALL) AS a ON {equal(keys, 's', 'a')} "
            )
    rows: pa.Table = con.sql(
        f"SELECT {listed_of(list(dict.fromkeys(needed)), 's')} FROM source AS s JOIN chosen AS c "
        f"ON {equal(keys, 's', 'c')} {join}WHERE {COUNTS_FROM} <= {end} AND ({' OR '.join(conditions)})"
    ).to_arrow_table()
    return rows


def _columns(view: FeatureView) -> list[str]:
    expressions = [each for f in view.features.values() for each in (f.of, f.where) if each is not None]
    return sorted({name for expression in expressions for name in columns_of(expression)})


def reach(view: FeatureView) -> int:
    """Return the maximum age of rows in the view's windows, in microseconds."""
    return max((f.window + hop(f.window) for f in view.features.values() if f.window is not None), default=0)


def listed_of(names: list[str], table: str) -> str:
    return ", ".join(f"{table}.{quote_name(name)}" for name in names)
