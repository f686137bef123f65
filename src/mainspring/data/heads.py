"""Heads: each entity's newest row, against which new rows are ranked without reading the whole table.

An entity's head is its row of highest rank. It is the last of its rows that counts, so new rows that become visible
after it need no other row for comparison. Heads depend only on rows, not on flags: merging the heads of two sets of
files gives the heads of both, even if the sets overlap.

A table `heads__<source>` in the lake stores the heads of the files that existed at some version. Once rows in other
files are many, the table is rebuilt. It is derived from the source's table and may be deleted at any time. Of a file
the number of rows and their newest values are read once, and the rest only if new rows may be older than its rows. The
heads of a large load are taken while it is ingested, so that its file need not be read for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.core.errors import Conflict, Corrupt, NotFound, StorageFull
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.data import duck
from mainspring.data.arrow import INSTANT, arrow_schema, no_rows, widened
from mainspring.data.flags import Counted, arrow_of, present, rank_columns
from mainspring.data.keyings import Keyings, declared
from mainspring.data.model import HEADS_PREFIX, RECORD_PREFIX, SEQUENCE, VISIBLE_AT, Source, TableScan, TableVersion
from mainspring.data.ports import LakeTables

if TYPE_CHECKING:
    import duckdb

_KEYING = "_keying"
_EVENT, _RECORDED, _FIRST = "_event", "_recorded", "_first"  # of the head; `_first` is the entity's first `_visible_at`
_VALUES = (_EVENT, _RECORDED, SEQUENCE, VISIBLE_AT, _FIRST)
_COVER = b"cover"  # key in the metadata of `_seq`
_HOUR_US = 3_600_000_000
_GROWTH = 8  # growth factor of the time span searched for an entity's last row before a late one
_FEW = 50  # 1/50 of `many_rows`: up to this number, recent rows are read instead of heads
_HEADS_EACH = 5  # average number of unmerged heads per entity that triggers a merge


class _Cover(msgspec.Struct, frozen=True):
    """The files whose heads are stored, and the newest values among all their rows."""

    version: int
    files: list[str]
    rows: int
    heads: int
    keyings: dict[str, list[str]]
    times: list[str]
    sequence: int | None  # the highest `_seq`
    event: int | None  # the latest event time, UTC epoch microseconds


class _Newest(NamedTuple):
    """Number of rows in a file, and the newest values among them; times are UTC epoch microseconds."""

    rows: int
    sequence: int | None
    event: int | None
    visible: int | None


class Heads:
    """Heads of a source's table during one ingestion. Creates the views `heads_kept`, `heads_others`, `kept_newest` and
    `kept` in `con`, the last three where it needs them.

    Args:
        keyings: The table's keyings; those with undeclared columns have no heads.
        many_rows: Number of rows without stored heads from which heads are stored anew.
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
        self._absorbed: set[str] = set()  # names of files whose heads are in this ingestion's temporary tables
        self._absorbed_rows = 0
        self._merged_rows: dict[int, int] = {}  # rows of these tables after their last merge
        self._noted: dict[str, pa.Table] = {}  # heads of a load that is not stored yet
        self._opened = False
        self._pinned: TableScan | None = None
        self._uncovered = False  # True if the pinned version has files without heads
        self._without: TableScan | None = None  # the files without heads
        self._viewed = False  # whether `heads_others` is of these
        self._tops: tuple[int | None, int | None] = (None, None)  # highest `_seq`, latest event time

    def pin(self, scan: TableScan, known: TableVersion) -> None:
        """Set the table version that the heads refer to.

        Args:
            scan: The version, with every column that the source declares.
        """
        self._pinned, self._noted = scan, {}
        first = not self._opened
        if first:
            self._open(scan, known)
        self._others(scan)
        # An ingestion of many loads reads its own files at most once, not for each load.
        if self._uncovered and not first:
            self._absorb(scan)
            self._others(scan)

    def newest(self) -> tuple[int | None, int | None]:
        """Return the table's highest `_seq` and its latest event time in UTC epoch microseconds; None without rows."""
        kept = (None, None) if self._cover is None else (self._cover.sequence, self._cover.event)
        found = self._others_newest()
        return _latest(found.sequence, kept[0], self._tops[0]), _latest(found.event, kept[1], self._tops[1])

    def competitors(self, arriving: str, name: str, keys: Sequence[str], rows: int, since: int) -> str | None:
        """Return a SQL query of the pinned version's counting rows that rows of `arriving` must be compared with; None
        if there are certainly none.

        If few rows became visible since the first arriving event, these suffice: all others are older than the arriving
        rows, and were known before them. Otherwise the query gives, for each entity, its head if all its arriving rows
        become visible later; else its rows since the first arriving one, and the last before that.

        Args:
            rows, since: Number of arriving rows, and their first event time.
        """
        con, listed = self._con, _list(keys)
        event, recorded, _ = rank_columns(self._source)
        scan, most = self._visible(since)
        if most == 0:
            return None
        duck.register(con, "kept_newest", scan)
        newest = f"FROM kept_newest WHERE {VISIBLE_AT} >= make_timestamptz({since}::BIGINT)"
        few = max(rows, self._many_rows // _FEW)
        if most is None or most > few:
            (most,) = duck.one_row(con, f"SELECT count(*) FROM (SELECT {SEQUENCE} {newest} LIMIT {few + 1})")
        if most <= few:
            columns = _list(dict.fromkeys((*keys, *self._source.times, VISIBLE_AT, SEQUENCE)))
            counting = f"{present(keys)} AND {quote_name(RECORD_PREFIX + name)}"
            return f"SELECT {columns} {newest} AND {counting} ORDER BY {event}, {recorded}, {SEQUENCE}"
        self.open_kept()
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

    def open_kept(self) -> None:
        """Create the view `kept` of the pinned version."""
        assert self._pinned is not None
        duck.register(self._con, "kept", self._pinned)

    def _visible(self, since: int) -> tuple[TableScan, int | None]:
        """Return the files of the pinned version that may have a row visible since an instant, and the number of their
        rows; None if that is unknown.
        """
        scan = self._pinned
        assert scan is not None
        newest = self._newest_of(scan)
        if newest is None or scan.files is None:
            return scan, None
        pairs = zip(scan.files, newest, strict=True)
        late = {file: one.rows for file, one in pairs if one.visible is not None and one.visible >= since}
        return replace(scan, files=tuple(late)), sum(late.values())

    def _newest_of(self, scan: TableScan) -> list[_Newest] | None:
        """Return the newest values of each file; None if they are unknown."""
        if scan.files is None:
            return None
        try:
            return [_newest_in(file, self._source.event_time) for file in scan.files]
        except (OSError, pa.ArrowException):  # DuckDB will say why
            return None

    def _others_newest(self) -> _Newest:
        """Return the newest values of all rows in files without heads."""
        scan = self._without
        assert scan is not None
        newest = self._newest_of(scan)
        if newest is None:
            self._open_others()
            columns = [f"epoch_us(max({name}))" for name in (quote_name(self._source.event_time), VISIBLE_AT)]
            query = f"SELECT count(*), max({SEQUENCE}), {', '.join(columns)} FROM heads_others"
            return _Newest(*duck.one_row(self._con, query))
        sequences, events, visibles = ([one[place] for one in newest] for place in (1, 2, 3))
        return _Newest(sum(one.rows for one in newest), _latest(*sequences), _latest(*events), _latest(*visibles))

    def _look_back(self, name: str, keys: Sequence[str]) -> None:
        """Add to `competing` the rows needed for entities whose head is not older than all their arriving rows.

        The table is searched backwards in growing time spans, so that files and row groups outside them are not read.
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

    def note(self, name: str, keys: Sequence[str], rows: pa.Table, counted: Counted) -> None:
        """Take the heads of a large load before it is stored; `rows` may include rows of the table."""
        if len(rows) < self._many_rows:
            return
        event, heads = self._source.event_time, rows.take(arrow_of(counted.heads))
        columns: dict[str, Any] = {key: heads[key] for key in keys}
        columns |= {_EVENT: heads[event], _RECORDED: heads[self._source.recorded_time or event]}
        columns |= {column: heads[column] for column in (SEQUENCE, VISIBLE_AT)}
        self._noted[name] = pa.table(columns | {_FIRST: rows[VISIBLE_AT].take(arrow_of(counted.firsts))})

    def landed(self, rows: pa.Table, version: int | None) -> None:
        """Drop the noted heads, or register them as the heads of a version's files.

        Args:
            version: A version with exactly these rows and those of the pinned version; None if that is uncertain.
        """
        noted, self._noted = self._noted, {}
        if version is None or not noted or noted.keys() != self._keyings.keys():
            return
        scan = widened(self._lake.scan(self._source.name, version), self._source)
        if scan.files is None:
            return
        if not self._opened:
            self._open(scan, self._lake.describe(self._source.name, version))
        elif self._uncovered and self._pinned is not None:
            self._absorb(self._pinned)
        for index, (name, keys) in enumerate(self._keyings.items()):
            self._add(index, keys, noted[name])
        self._absorbed |= _names(scan)
        self._absorbed_rows += len(rows)
        sequence, event = (pc.max(rows[one].cast(pa.int64())).as_py() for one in (SEQUENCE, self._source.event_time))
        self._tops = _latest(sequence, self._tops[0]), _latest(event, self._tops[1])

    def _add(self, index: int, keys: Sequence[str], heads: pa.Table) -> None:
        """Add heads of a keying to its temporary table; merge equal keys there once there may be many."""
        con, own = self._con, f"heads_own_{index}"
        con.register("noted", heads)
        if self._absorbed:
            con.execute(f"INSERT INTO {own} FROM noted")
        else:
            con.execute(f"CREATE OR REPLACE TEMP TABLE {own} AS FROM noted")
        con.unregister("noted")
        there = duck.one_row(con, f"SELECT count(*) FROM {own}")[0]
        if not self._absorbed:
            self._merged_rows[index] = there
        elif there >= _HEADS_EACH * self._merged_rows[index]:
            self._merge(index, keys, [])

    def settle(self) -> None:
        """Move to the newest version after the last write; store its heads if many rows lack stored ones."""
        version = self._lake.version(self._source.name)
        if version is None:
            return
        scan = widened(self._lake.scan(self._source.name, version), self._source)
        known = self._lake.describe(self._source.name, version)
        if not self._opened:
            self._open(scan, known)
        self._others(scan)
        without = self._others_newest().rows
        heads = 0 if self._cover is None else self._cover.heads
        if (
            scan.files is not None
            and self._keyings
            and without + self._absorbed_rows >= max(self._many_rows, heads // 2)
        ):
            self._write(scan, known)

    def _open(self, scan: TableScan, known: TableVersion) -> None:
        """Load the lake's stored heads, if they fit this table and these keyings."""
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
        there = _names(scan)
        restored = known.restored is not None and known.restored > cover.version
        usable = same and not restored and cover.version <= scan.version and bool(there & {*cover.files})
        if usable and not self._lake.damage(table):
            self._con.unregister("heads_kept")
            duck.register(self._con, "heads_kept", kept)
            self._cover = cover

    def _others(self, scan: TableScan) -> None:
        """Find the files without heads."""
        if scan.files is not None:
            covered = self._absorbed | {*(() if self._cover is None else self._cover.files)}
            scan = replace(scan, files=tuple(file for file in scan.files if _name(file) not in covered))
        self._uncovered = scan.files != ()
        self._without, self._viewed = scan, False

    def _open_others(self) -> None:
        """Create the view `heads_others` of the rows in files without heads."""
        if self._viewed or self._without is None:
            return
        self._con.unregister("heads_others")
        self._con.execute("DROP VIEW IF EXISTS heads_others")
        duck.register(self._con, "heads_others", self._without)
        self._viewed = True

    def _absorb(self, scan: TableScan) -> None:
        """Compute the heads of files without heads into the temporary tables."""
        if scan.files is None:
            return
        self._tops = self.newest()
        for index, keys in enumerate(self._keyings.values()):
            self._merge(index, keys, self._ranked(keys, ""))
        self._absorbed |= _names(scan)
        self._absorbed_rows += self._others_newest().rows

    def _merge(self, index: int, keys: Sequence[str], others: list[str]) -> None:
        con, own = self._con, f"heads_own_{index}"
        con.execute(f"CREATE OR REPLACE TEMP TABLE absorbing AS {_grouped(keys, self._own(index, keys) + others)}")
        con.execute(f"DROP TABLE IF EXISTS {own}")
        con.execute(f"ALTER TABLE absorbing RENAME TO {own}")
        self._merged_rows[index] = duck.one_row(con, f"SELECT count(*) FROM {own}")[0]

    def _merged(self, name: str, keys: Sequence[str], among: str) -> str:
        """Return a SQL query of the head of each entity that the semi-join `among` lets through."""
        index = list(self._keyings).index(name)
        kept = f"SELECT {_list((*keys, *_VALUES))} FROM heads_kept {among} WHERE {_KEYING} = {quote_text(name)}"
        own = [f"{one} {among}" for one in self._own(index, keys)]
        if own and self._cover is None and not self._uncovered:
            there = duck.one_row(self._con, f"SELECT count(*) FROM heads_own_{index}")[0]
            if there == self._merged_rows[index]:  # of a single load, or merged already: one head per entity
                return own[0]
        return _grouped(keys, [kept, *own, *self._ranked(keys, among)])

    def _own(self, index: int, keys: Sequence[str]) -> list[str]:
        return [f"SELECT {_list((*keys, *_VALUES))} FROM heads_own_{index}"] if self._absorbed else []

    def _ranked(self, keys: Sequence[str], among: str) -> list[str]:
        self._open_others()
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
            sorted(_names(scan)),
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
        with suppress(StorageFull, Conflict):  # the rows are stored; the next ingestion retries
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


@lru_cache(maxsize=20_000)
def _newest_in(file: str, event: str) -> _Newest:
    """Return the newest values in a Parquet file, which never changes."""
    metadata = pq.read_metadata(file)
    columns = [_highest(file, metadata, name) for name in (SEQUENCE, event, VISIBLE_AT)]
    return _Newest(metadata.num_rows, *columns)


def _highest(file: str, metadata: pq.FileMetaData, name: str) -> int | None:
    """Return a column's highest value, None without rows: by the file's statistics, or else by its rows."""
    place = metadata.schema.to_arrow_schema().get_field_index(name)
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    values: list[Any] = [one.max_raw for one in found if one is not None and one.has_min_max]
    if len(values) == len(found):
        return max(values, default=None)
    highest: int | None = pc.max(pq.read_table(file, columns=[name])[name].cast(pa.int64())).as_py()
    return highest


def _names(scan: TableScan) -> set[str]:
    return {_name(file) for file in scan.files or ()}


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _latest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(quote_name, names))
