"""Heads: each entity's newest row, by which new rows are ranked without a look at the whole table.

An entity's head is its row of the highest rank. Of all rows it is the last that counts, so new rows that become visible
after it need no other. Heads depend on rows alone, not on flags: merging those of two sets of files gives those of
both, however often a row is in them.

A table `heads__<source>` in the lake keeps the heads of the files that were there at some version. Whatever is in other
files is read each time, until it is much; then the table is made anew. It is made from the source's table and can go at
any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from mainspring.core.errors import Conflict, Corrupt, NotFound, StorageFull
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.arrow import INSTANT, arrow_schema, no_rows, widened
from mainspring.data.keyings import Keyings, declared
from mainspring.data.model import HEADS_PREFIX, RECORD_PREFIX, SEQUENCE, VISIBLE_AT, Source, TableScan, TableVersion
from mainspring.data.ports import LakeTables
from mainspring.data.records import present, rank_columns

if TYPE_CHECKING:
    import duckdb

_KEYING = "_keying"
_EVENT, _RECORDED, _FIRST = "_event", "_recorded", "_first"  # of the head; `_first` is the entity's first instant
_VALUES = (_EVENT, _RECORDED, SEQUENCE, VISIBLE_AT, _FIRST)
_COVER = b"cover"  # in the metadata of `_seq`
_HOUR_US = 3_600_000_000
_GROWTH = 8  # of the span of time in which an entity's last row before a late one is looked for


class _Cover(msgspec.Struct, frozen=True):
    """The files whose heads are kept, and the newest of all their rows."""

    version: int
    files: list[str]
    rows: int
    heads: int
    keyings: dict[str, list[str]]
    times: list[str]
    sequence: int | None  # the highest
    event: int | None  # the last, UTC epoch microseconds


class Heads:
    """The heads of a source's table during one ingestion. Views in `con`: `heads_kept`, `heads_others`.

    Args:
        keyings: Those of the table; what the source no longer declares has no heads.
        many_rows: In how many rows without kept heads these are worth keeping.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, lake: LakeTables, source: Source, keyings: Keyings, many_rows: int
    ) -> None:
        self._con = con
        self._lake = lake
        self._source = source
        self._many_rows = many_rows
        self._keyings = declared(source, keyings)
        self._cover: _Cover | None = None
        self._absorbed: set[str] = set()  # names of files whose heads are in the temporary tables of this ingestion
        self._absorbed_rows = 0
        self._opened = False
        self._tops: tuple[int | None, int | None] = (None, None)  # highest `_seq`, last event

    def pin(self, scan: TableScan, known: TableVersion) -> None:
        """Let the heads be those of one version of the table.

        Args:
            scan: The version, with every column that the source declares.
        """
        if not self._opened:
            self._open(scan, known)
            return self._others(scan)
        # An ingestion of many loads reads what it wrote once, not with each load.
        self._others(scan)
        self._absorb(scan)
        return self._others(scan)

    def newest(self) -> tuple[int | None, int | None]:
        """Return the highest `_seq` of the table and its last event in UTC epoch microseconds; None without rows."""
        event = quote_name(self._source.event_time)
        found = duck.one_row(self._con, f"SELECT max({SEQUENCE}), epoch_us(max({event})) FROM heads_others")
        kept = (None, None) if self._cover is None else (self._cover.sequence, self._cover.event)
        return _latest(found[0], kept[0], self._tops[0]), _latest(found[1], kept[1], self._tops[1])

    def competitors(self, arriving: str, name: str, keys: Sequence[str]) -> str:
        """Return SQL: the counting rows of the pinned version that rows of `arriving` may have to be compared with.

        Of each entity those are its head, where all of its arriving rows become visible later; else its rows since the
        first of these, and the last before.
        """
        con, listed = self._con, _list(keys)
        event, recorded, _ = rank_columns(self._source)
        recorded = f", {_RECORDED} AS {recorded}" if recorded != event else ""
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE firsts AS
            SELECT {listed}, min({VISIBLE_AT}) AS _since FROM {arriving} WHERE {present(keys)} GROUP BY ALL""")
        heads = self._merged(name, keys, f"SEMI JOIN firsts USING ({listed})")
        con.execute(f"CREATE OR REPLACE TEMP TABLE met AS SELECT * FROM ({heads}) JOIN firsts USING ({listed})")
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE competing AS
            SELECT {listed}, {_EVENT} AS {event}{recorded}, {VISIBLE_AT}, {SEQUENCE}
            FROM met WHERE {VISIBLE_AT} < _since""")
        self._look_back(name, keys)
        return "SELECT * FROM competing"

    def _look_back(self, name: str, keys: Sequence[str]) -> None:
        """Add to `competing` the rows that entities need whose head is not older than all that arrives.

        The table is searched back in time, in spans that grow: files and groups of rows outside are not read.
        """
        con, listed = self._con, _list(keys)
        con.execute(f"CREATE OR REPLACE TEMP TABLE late AS SELECT {listed}, _since, _first FROM met "
                    f"WHERE {VISIBLE_AT} >= _since")  # fmt: skip
        low, high = duck.one_row(
            con,
            f"SELECT epoch_us(min(_since)), epoch_us(max({VISIBLE_AT})) FROM met WHERE {VISIBLE_AT} >= _since",
        )
        if low is None:
            return
        columns = ", ".join(map(quote_name, dict.fromkeys((*keys, *self._source.times, VISIBLE_AT, SEQUENCE))))
        span, until = max(high - low, _HOUR_US), high + 1
        since = low - span
        wanted = "late"
        while True:
            con.execute(f"""
                CREATE OR REPLACE TEMP TABLE seen AS
                SELECT {columns}, _since FROM (
                    SELECT {columns} FROM kept WHERE {quote_name(RECORD_PREFIX + name)}
                        AND {VISIBLE_AT} >= make_timestamptz({since}::BIGINT)
                        AND {VISIBLE_AT} < make_timestamptz({until}::BIGINT))
                JOIN {wanted} USING ({listed})""")
            con.execute(f"""
                INSERT INTO competing BY NAME
                SELECT {columns} FROM seen WHERE {VISIBLE_AT} >= _since
                UNION ALL
                SELECT {columns} FROM seen WHERE {VISIBLE_AT} < _since
                QUALIFY row_number() OVER (PARTITION BY {listed} ORDER BY {VISIBLE_AT} DESC) = 1""")
            con.execute(f"""
                CREATE OR REPLACE TEMP TABLE lacking AS
                SELECT * FROM {wanted} WHERE _first < _since
                AND ({listed}) NOT IN (SELECT ({listed}) FROM seen WHERE {VISIBLE_AT} < _since)""")
            (first,) = duck.one_row(con, "SELECT epoch_us(min(_first)) FROM lacking")
            if first is None or first >= since:
                return
            con.execute("CREATE OR REPLACE TEMP TABLE looked_for AS SELECT * FROM lacking")
            wanted, until, span = "looked_for", since, span * _GROWTH
            since = max(first, since - span)

    def settle(self) -> None:
        """Come to the newest version, once it is not written to; keep its heads where much is in files without."""
        version = self._lake.version(self._source.name)
        if version is None:
            return
        scan = widened(self._lake.scan(self._source.name, version), self._source)
        known = self._lake.describe(self._source.name, version)
        if not self._opened:
            self._open(scan, known)
        self._others(scan)
        (without,) = duck.one_row(self._con, "SELECT count(*) FROM heads_others")
        heads = 0 if self._cover is None else self._cover.heads
        if (
            scan.files is not None
            and self._keyings
            and without + self._absorbed_rows >= max(self._many_rows, heads // 2)
        ):
            self._write(scan, known)

    def _open(self, scan: TableScan, known: TableVersion) -> None:
        """Find out which heads the lake keeps, if they are of this table and by these keys."""
        self._opened = True
        table = HEADS_PREFIX + self._source.name
        schema = self._schema()
        self._con.register("heads_kept", no_rows(schema))
        try:
            if scan.files is None or self._lake.version(table) is None:
                return
            kept = self._lake.scan(table)
            metadata = (kept.schema or schema).field(SEQUENCE).metadata or {}
            cover = msgspec.json.decode(metadata[_COVER], type=_Cover)
        except (NotFound, Corrupt, KeyError, TypeError, msgspec.DecodeError):
            return
        same = kept.schema is not None and kept.schema.equals(schema)
        same = same and (cover.keyings, cover.times) == (self._keys(), list(self._source.times))
        there = {Path(file).name for file in scan.files}
        restored = known.restored is not None and known.restored > cover.version
        usable = same and not restored and cover.version <= scan.version and bool(there & {*cover.files})
        if usable and not self._lake.damage(table):
            self._con.unregister("heads_kept")
            duck.register(self._con, "heads_kept", kept)
            self._cover = cover

    def _others(self, scan: TableScan) -> None:
        """Make the rows of files without heads readable as `heads_others`."""
        if scan.files is not None:
            covered = self._absorbed | {*(() if self._cover is None else self._cover.files)}
            scan = replace(scan, files=tuple(file for file in scan.files if Path(file).name not in covered))
        self._con.unregister("heads_others")
        self._con.execute("DROP VIEW IF EXISTS heads_others")
        duck.register(self._con, "heads_others", scan)

    def _absorb(self, scan: TableScan) -> None:
        """Take the heads of the files without heads into temporary tables."""
        if scan.files is None:
            return
        self._tops = self.newest()
        for index, keys in enumerate(self._keyings.values()):
            merged = _grouped(keys, self._own(index, keys) + self._ranked(keys, ""))
            self._con.execute(f"CREATE OR REPLACE TEMP TABLE absorbing AS {merged}")
            self._con.execute(f"CREATE OR REPLACE TEMP TABLE heads_own_{index} AS SELECT * FROM absorbing")
        self._con.execute("DROP TABLE IF EXISTS absorbing")
        self._absorbed |= {Path(file).name for file in scan.files}
        self._absorbed_rows += duck.one_row(self._con, "SELECT count(*) FROM heads_others")[0]

    def _merged(self, name: str, keys: Sequence[str], among: str) -> str:
        """Return SQL: the head of each entity, of those that a semi-join lets through."""
        index = list(self._keyings).index(name)
        kept = f"SELECT {_list((*keys, *_VALUES))} FROM heads_kept {among} WHERE {_KEYING} = {quote_text(name)}"
        own = [f"{one} {among}" for one in self._own(index, keys)]
        return _grouped(keys, [kept, *own, *self._ranked(keys, among)])

    def _own(self, index: int, keys: Sequence[str]) -> list[str]:
        return [f"SELECT {_list((*keys, *_VALUES))} FROM heads_own_{index}"] if self._absorbed else []

    def _ranked(self, keys: Sequence[str], among: str) -> list[str]:
        event, recorded, _ = rank_columns(self._source)
        return [f"""
            SELECT {_list(keys)}, {event} AS {_EVENT}, {recorded} AS {_RECORDED}, {SEQUENCE}, {VISIBLE_AT},
                {VISIBLE_AT} AS {_FIRST} FROM heads_others {among} WHERE {present(keys)}"""]  # fmt: skip

    def _write(self, scan: TableScan, known: TableVersion) -> None:
        schema = self._schema()
        parts = []
        for name, keys in self._keyings.items():
            columns = [quote_name(field.name) if field.name in (*keys, *_VALUES) else "NULL" for field in schema][1:]
            parts.append(f"SELECT {', '.join([quote_text(name), *columns])} FROM ({self._merged(name, keys, '')})")
        rows: Any = self._con.sql(" UNION ALL ".join(parts)).to_arrow_table().rename_columns(schema.names).cast(schema)
        sequence, event = self.newest()
        cover = _Cover(
            known.version,
            [Path(file).name for file in scan.files or ()],
            known.rows,
            len(rows),
            self._keys(),
            list(self._source.times),
            sequence,
            event,
        )
        index = schema.get_field_index(SEQUENCE)
        schema = schema.set(index, schema.field(index).with_metadata({_COVER: msgspec.json.encode(cover)}))
        batches = rows.cast(schema).to_batches()
        table, key = HEADS_PREFIX + self._source.name, f"heads of version {known.version}"
        with suppress(StorageFull, Conflict):  # the rows have landed; the next ingestion tries again
            try:
                self._lake.replace(table, batches, schema, key=key)
            except Corrupt:
                if not self._lake.recover(table):
                    raise
                self._lake.replace(table, batches, schema, key=key)

    def _schema(self) -> pa.Schema:
        keys = dict.fromkeys(key for keys in self._keyings.values() for key in keys)
        columns = arrow_schema(self._source.columns)
        instants = [pa.field(name, INSTANT) for name in (_EVENT, _RECORDED)]
        return pa.schema(
            [
                pa.field(_KEYING, pa.string()),
                *(columns.field(key) for key in keys),
                *instants,
                pa.field(SEQUENCE, pa.int64()),
                pa.field(VISIBLE_AT, INSTANT),
                pa.field(_FIRST, INSTANT),
            ]
        )

    def _keys(self) -> dict[str, list[str]]:
        return {name: list(keys) for name, keys in self._keyings.items()}


def _grouped(keys: Sequence[str], parts: Iterable[str]) -> str:
    rank = f"row({_EVENT}, {_RECORDED}, {SEQUENCE}, {VISIBLE_AT})"
    fields = ", ".join(f"_head[{place}] AS {name}" for place, name in enumerate(_VALUES[:-1], start=1))
    return f"""
        SELECT {_list(keys)}, {fields}, {_FIRST} FROM (
            SELECT {_list(keys)}, max({rank}) AS _head, min({_FIRST}) AS {_FIRST}
            FROM ({" UNION ALL BY NAME ".join(parts)}) GROUP BY {_list(keys)})"""


def _latest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(quote_name, names))
