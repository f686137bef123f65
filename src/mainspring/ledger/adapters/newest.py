"""Predictions of the lake's table, file by file, the newest first: files that cannot hold what is asked stay unread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.expr.sql import quote_text
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.ledger.columns import SCHEMA, from_table
from mainspring.ledger.model import ANY_KEY, Prediction, Selection
from mainspring.ledger.ports import Cursor, PredictionPage

MOST_ROWS = 800_000  # that one page looks through, or half as many where it finds some in each file
_REMEMBERED = 20_000  # files
_LAST = chr(0x10FFFF)  # behind every character of an id


class NewestFirst:
    """Pages of predictions, newest first. It remembers the times of the files that it has seen, which never change."""

    def __init__(self) -> None:
        self._spans: OrderedDict[str, _Span] = OrderedDict()

    def page(
        self,
        scan: TableScan,
        selection: Selection,
        limit: int,
        before: Cursor | None,
        *,
        most_rows: int = MOST_ROWS,
    ) -> PredictionPage:
        """Return the next `limit` predictions of a selection after a cursor; see `PredictionStore.newest`."""
        found: list[Prediction] = []
        looked = 0
        with duck.session(threads=1) as connection:
            for high, rows, part in self._parts(scan, selection, before):
                complete = [each for each in found if each.at > high]
                if len(complete) > limit:
                    break
                if looked and looked + rows > most_rows:
                    return PredictionPage(complete, Cursor(high + 1, ""), high)
                read = _read(connection, part, selection, limit + 1, before)
                looked += 2 * rows if read else rows  # to decode the documents of a few takes as long as to look
                found = _ordered([*found, *read])[: limit + 1]
        more = len(found) > limit
        found = found[:limit]
        return PredictionPage(found, Cursor(found[-1].at, found[-1].id) if more else None)

    def find(self, scan: TableScan, prediction_id: str) -> Prediction | None:
        """Return the prediction with this id."""
        wanted = f"SELECT * FROM predictions WHERE id = {quote_text(prediction_id)} LIMIT 1"
        with duck.session(threads=1) as connection:
            for _, _, part in self._parts(scan, Selection(), None, prediction_id):
                with duck.duck_errors("predictions", part):
                    duck.register(connection, "predictions", part)
                    found: pa.Table = connection.sql(wanted).to_arrow_table()
                if len(found):
                    return from_table(found.select(SCHEMA.names))[0]
        return None

    def _parts(
        self, scan: TableScan, selection: Selection, before: Cursor | None, prediction_id: str | None = None
    ) -> Iterator[tuple[int, int, TableScan]]:
        """Yield the last instant, the rows and the scan of each file that may hold some, the newest first."""
        if scan.rows is not None:
            if len(scan.rows):
                yield 2**63 - 1, len(scan.rows), TableScan(scan.version, rows=scan.rows, schema=SCHEMA)
            return
        end = min(
            [each for each in (selection.until, None if before is None else before.at + 1) if each is not None],
            default=2**63,
        )
        spans = [(self._span(file), file) for file in scan.files or ()]
        wanted = [
            (span, file)
            for span, file in spans
            if span.low < end and span.high >= (selection.since or -(2**63)) and span.may_hold(selection, prediction_id)
        ]
        for span, file in sorted(wanted, key=lambda each: -each[0].high):
            yield span.high, span.rows, TableScan(scan.version, files=(file,), schema=SCHEMA)

    def _span(self, file: str) -> _Span:
        if file not in self._spans:
            self._spans[file] = _Span.of(pq.read_metadata(file))
            while len(self._spans) > _REMEMBERED:
                self._spans.popitem(last=False)
        return self._spans[file]


class _Span(NamedTuple):
    """Statistics of one file: the first and last instant, the rows, and bounds of columns, where they are known."""

    low: int
    high: int
    rows: int
    bounds: Mapping[str, tuple[Any, Any]]

    @classmethod
    def of(cls, metadata: pq.FileMetaData) -> _Span:
        at = _bounds(metadata, "at")
        low, high = (-(2**63), 2**63 - 1) if at is None else (_micros(at[0]), _micros(at[1]))
        found = {name: bounds for name in ("id", "endpoint", "version", "score") if (bounds := _bounds(metadata, name))}
        return cls(low, high, metadata.num_rows, found)

    def may_hold(self, selection: Selection, prediction_id: str | None) -> bool:
        """Return whether a row may have the id, if one is given, and fulfil the conditions on bounded columns."""
        begun = selection.id_prefix
        wanted: tuple[tuple[str, Any, Any], ...] = (
            ("id", prediction_id, prediction_id),
            ("id", begun or None, begun + _LAST if begun else None),
            ("endpoint", selection.endpoint, selection.endpoint),
            ("version", selection.version, selection.version),
            ("score", selection.score_from, selection.score_to),
        )
        for name, low, high in wanted:
            if name in self.bounds:
                smallest, largest = self.bounds[name]
                if (low is not None and low > largest) or (high is not None and high < smallest):
                    return False
        return True


def _bounds(metadata: pq.FileMetaData, name: str) -> tuple[Any, Any] | None:
    """Return the smallest and the largest value of a column; `None` where a part of the file does not say."""
    if name not in metadata.schema.names:
        return None
    column = metadata.schema.names.index(name)
    lows: list[Any] = []
    highs: list[Any] = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        lows.append(statistics.min)
        highs.append(statistics.max)
    return (min(lows), max(highs)) if lows else None


def _micros(instant: Any) -> int:
    return int(pa.scalar(instant, pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py())


def _ordered(predictions: list[Prediction]) -> list[Prediction]:
    newest = {each.id: each for each in predictions}
    return sorted(newest.values(), key=lambda each: (each.at, each.id), reverse=True)


def _read(
    connection: Any, scan: TableScan, selection: Selection, limit: int, before: Cursor | None
) -> list[Prediction]:
    conditions = _conditions(selection)
    if before is not None:
        at = f"make_timestamptz({before.at})"
        conditions.append(f'("at" < {at} OR ("at" = {at} AND id < {quote_text(before.id)}))')
        conditions.append(f'"at" <= {at}')  # by which row groups are left out
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    with duck.duck_errors("predictions", scan):
        duck.register(connection, "predictions", scan)
        # First the instants alone: documents are decoded only of the rows that are shown, and of those beside them.
        newest = f'SELECT epoch_us("at") FROM predictions {where} ORDER BY "at" DESC LIMIT {limit}'
        instants = {int(at) for (at,) in connection.execute(newest).fetchall()}
        if not instants:
            return []
        those = ", ".join(f"make_timestamptz({at})" for at in sorted(instants))
        shown = f'{where} {"AND" if where else "WHERE"} "at" IN ({those})'
        found: pa.Table = connection.sql(f"SELECT * FROM predictions {shown}").to_arrow_table()
    return [each for each in from_table(found.select(SCHEMA.names)) if selection.holds(each)]


def _conditions(selection: Selection) -> list[str]:
    found = [
        f"{name} = {quote_text(value)}"
        for name, value in (("endpoint", selection.endpoint), ("version", selection.version))
        if value is not None
    ]
    if selection.id_prefix:
        found.append(f"starts_with(id, {quote_text(selection.id_prefix)})")
    if selection.since is not None:
        found.append(f'"at" >= make_timestamptz({selection.since})')
    if selection.until is not None:
        found.append(f'"at" < make_timestamptz({selection.until})')
    if selection.score_from is not None:
        found.append(f"score >= {selection.score_from!r}")
    if selection.score_to is not None:
        found.append(f"score <= {selection.score_to!r}")
    for name, text in selection.keys.items():
        key = "" if name == ANY_KEY else msgspec.json.encode(name).decode()
        quoted = msgspec.json.encode(text).decode()
        values = [f"{key}:{quoted}", f"{key}:{quoted[1:-1]},", f"{key}:{quoted[1:-1]}}}"]
        exact = " OR ".join(f"contains(keys, {quote_text(value)})" for value in values)
        found.append(f"contains(keys, {quote_text(quoted[1:-1])}) AND ({exact})")  # most rows fail the first
    if selection.status is not None:
        found.append(f"contains(statuses, {quote_text(f':{msgspec.json.encode(selection.status).decode()}')})")
    return found
