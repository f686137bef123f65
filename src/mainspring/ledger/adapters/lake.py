"""Predictions in the lake: reads over its table and over the segments that are not compacted yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id
from mainspring.core.locks import Locks
from mainspring.core.time import HOUR
from mainspring.data.model import TableScan
from mainspring.data.ports import LakeTables
from mainspring.ledger.adapters import scanning
from mainspring.ledger.adapters.belonging import Belonging
from mainspring.ledger.adapters.compaction import Compaction
from mainspring.ledger.adapters.newest import NewestFirst
from mainspring.ledger.adapters.tables import SCHEMAS, LedgerTables, dataset_of
from mainspring.ledger.adapters.unread import damaged, segments, unread, unread_explanations, unread_failures
from mainspring.ledger.column_batches import observed_rows
from mainspring.ledger.columns import (
    FAILURE_SCHEMA,
    INSTANT,
    OBSERVED_FAILURE,
    OBSERVED_PREDICTION,
    READ,
    READ_BY_ROW,
    SCHEMA,
    WATCHED,
    explanations_from,
    failures_from,
    observed,
    read_of,
)
from mainspring.ledger.model import (
    EXPLANATIONS,
    FAILURES,
    PREDICTIONS,
    SAMPLED,
    Failure,
    KeptExplanation,
    Prediction,
    Selection,
    Value,
)
from mainspring.ledger.ports import Arrivals, Cursor, Observations, Observed, Observer, PredictionPage
from mainspring.ledger.sealing import Opener, revealed

LOCK = "predictions"
_OBSERVED_AT_ONCE = 131_072
_OBSERVED = {PREDICTIONS: (OBSERVED_PREDICTION, SCHEMA), FAILURES: (OBSERVED_FAILURE, FAILURE_SCHEMA)}
_ROWS_AT_ONCE = 20_000  # per batch of `arrivals`; some 20 MB


class LakePredictions:
    """`PredictionStore` over the segments of `SegmentLog` and a lake table.

    Args:
        folder: Folder of the segments.
        lake: Lake that receives the predictions, in the table `predictions`.
        locks: Locks; the lock `predictions` allows one compaction at a time.
        opener: Decrypts personal values; by default none can be decrypted.
        at_once_bytes: Bytes of a segment that are compacted at once: 8 MiB are some 25,000 predictions, 200 MB as rows.
        observer: Counts each prediction once, as it comes into the table.
    """

    def __init__(
        self,
        folder: Path,
        lake: LakeTables,
        locks: Locks,
        opener: Opener | None = None,
        *,
        at_once_bytes: int = 8 << 20,
        observer: Observer | None = None,
    ) -> None:
        self._folder = folder
        self._lake = lake
        self._locks = locks
        self._opener = Opener(None) if opener is None else opener
        self._newest = NewestFirst()
        self._observer = observer
        self._tables = LedgerTables(lake)
        self._compaction = Compaction(
            folder, self._tables, self._opener, at_once_bytes=at_once_bytes, observer=observer
        )

    @property
    def torn_bytes(self) -> int:
        """Bytes of incomplete, unacknowledged writes of dead writers that this object has seen."""
        return self._compaction.torn_bytes

    @property
    def damaged_frames(self) -> int:
        """Batches with corrupted bytes that this object has seen; their segment is set aside."""
        return self._compaction.damaged_frames

    def compact(self) -> int:
        with self._locks.hold(LOCK):
            return self._compaction.run(self)

    def damaged(self) -> int:
        return damaged(self._folder)

    def waiting(self) -> int:
        return sum(1 for _ in unread(self._folder))

    def hours(self) -> Counter[int]:
        found: Counter[int] = Counter()
        dataset = self._tables.dataset()
        for batch in () if dataset is None else dataset.to_batches(columns=["at"]):
            at = batch["at"].cast(pa.int64()).to_numpy()
            starts, rows = np.unique(at // HOUR * HOUR, return_counts=True)
            found.update(dict(zip(starts.tolist(), rows.tolist(), strict=True)))
        return found

    def between(self, since: int, until: int) -> Iterator[Observed]:
        if self._tables.version() is None:
            return
        at = pc.field("at")
        wanted = (at >= pa.scalar(since, INSTANT)) & (at < pa.scalar(until, INSTANT))
        names = (
            "id",
            "endpoint",
            "version",
            "digest",
            "at",
            "latency_us",
            "share",
            "features",
            "score",
            "personal",
            "sealed",
        )
        for table in self._batches(self._lake.scan(PREDICTIONS), names, wanted):
            yield from observed_rows(table, self._opener)

    def tidy(self, *, made_before: int | None = None, replaced_before: int, entries: int = 1_000) -> int:
        with self._locks.hold(LOCK):
            removed = 0
            for table in SCHEMAS:
                if self._tables.version(table) is None:
                    continue
                expired = 0 if made_before is None else self._lake.expire(table, "at", made_before)
                removed += expired if table == PREDICTIONS else 0
                self._lake.vacuum(table, [], replaced_before=replaced_before)
                self._lake.shorten(table, entries, replaced_before=replaced_before)
            if self._observer is not None:
                self._observer.tidy(replaced_before=replaced_before, entries=entries)
            return removed

    def erase(self, keys: Mapping[str, Value], *, dry_run: bool = False) -> int:
        with self._locks.hold(LOCK):
            if dry_run:
                return sum(1 for _ in self._of_subject(keys))
            self._compaction.run(self)
            for segment in segments(self._folder):
                segment.blank()
            dataset = self._tables.dataset()
            ids = [] if dataset is None else [*Belonging(keys, self._opener).ids(dataset)]
            for table in (EXPLANATIONS, PREDICTIONS) if ids else ():
                if self._tables.version(table) is not None:
                    self._lake.erase(table, {"id": ids})
            return len(ids)

    def of_subject(self, keys: Mapping[str, Value]) -> Iterator[Prediction]:
        return map(self.revealed, self._of_subject(keys))

    def _of_subject(self, keys: Mapping[str, Value]) -> Iterator[Prediction]:
        mine, seen = Belonging(keys, self._opener), set[str]()
        for each in filter(mine.holds, unread(self._folder)):  # segments first, as in `find`
            seen.add(each.id)
            yield each
        dataset = self._tables.dataset()
        ids = set() if dataset is None else {*mine.ids(dataset)} - seen
        for part in self.scan(Selection(), ids) if ids else ():
            yield from part

    def find(self, prediction_id: str) -> Prediction:
        check_id(prediction_id, "prediction")
        # Segments first: predictions compacted meanwhile are in the lake before they leave the segments.
        for prediction in unread(self._folder, containing=prediction_id):
            if prediction.id == prediction_id:
                return prediction
        found = (
            None if self._tables.version() is None else self._newest.find(self._lake.scan(PREDICTIONS), prediction_id)
        )
        if found is not None:
            return found
        raise NotFound(
            f"There is no prediction {prediction_id!r}.",
            fix="give the id in the response; a new prediction is available within a second.",
        )

    def revealed(self, prediction: Prediction) -> Prediction:
        return revealed(prediction, self._opener)

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        selection, found, cursor = Selection(endpoint=endpoint), list[Prediction](), None
        while len(found) < limit:
            page = self.newest(selection, limit - len(found), cursor)
            found += page.predictions
            cursor = page.next
            if cursor is None:
                break
        return found

    def digests(self) -> set[str]:
        # Segments first, as in `find`.
        found = {prediction.digest for prediction in unread(self._folder)}
        dataset = self._tables.dataset()
        if dataset is not None:
            for batch in dataset.to_batches(columns=["digest"]):
                found.update(str(digest) for digest in pc.unique(batch["digest"]).to_pylist())
        return found

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        dataset = self._tables.dataset()
        if dataset is None:
            return SCHEMA.empty_table().select(list(READ))
        at = pc.field("at")
        wanted = (
            scanning.same("endpoint", endpoint) & (at >= pa.scalar(since, INSTANT)) & (at < pa.scalar(until, INSTANT))
        )
        found = dataset.to_table(columns=[*READ, "sealed"], filter=wanted).sort_by("at")
        return read_of(found, self._opener)

    def arrivals(
        self,
        endpoint: str,
        since: int,
        until: int | None = None,
        *,
        after: int | None = None,
        by: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Arrivals | None:
        if self._tables.version() is None or by == -1:
            return Arrivals(-1, iter(()))
        scan = self._lake.scan(PREDICTIONS, by) if after is None else self._lake.appended(PREDICTIONS, after)
        if scan is None:
            return None
        wanted = scanning.same("endpoint", endpoint) & (pc.field("at") >= pa.scalar(since, INSTANT))
        if until is not None:
            wanted &= pc.field("at") < pa.scalar(until, INSTANT)
        return Arrivals(scan.version, self._batches(scan, columns or WATCHED, wanted))

    def newest(self, selection: Selection, limit: int = 50, before: Cursor | None = None) -> PredictionPage:
        # Segments first, as in `find`.
        waiting = [
            each
            for each in unread(self._folder)
            if selection.holds(each) and (before is None or (each.at, each.id) < before)
        ]
        found = PredictionPage([], None)
        if self._tables.version() is not None:
            found = self._newest.page(self._lake.scan(PREDICTIONS), selection, limit, before)
        if not waiting:
            return found
        newest = {each.id: each for each in (*found.predictions, *waiting)}
        page = sorted(newest.values(), key=lambda each: (each.at, each.id), reverse=True)
        if found.searched is not None:
            page = [each for each in page if each.at > found.searched]
            return PredictionPage(page, found.next, found.searched)
        more = found.next is not None or len(page) > limit
        page = page[:limit]
        return PredictionPage(page, Cursor(page[-1].at, page[-1].id) if more else None)

    def sample(self, selection: Selection, count: int, *, seed: int = 0) -> list[str]:
        dataset = self._tables.dataset()
        return [] if dataset is None else scanning.sample(dataset, selection, count, seed)

    def sample_by_key(self, selection: Selection, count: int) -> list[str]:
        dataset = self._tables.dataset()
        return [] if dataset is None else scanning.sample_by_key(dataset, selection, count)

    def scan(self, selection: Selection, ids: Collection[str] | None = None) -> Iterator[list[Prediction]]:
        dataset = self._tables.dataset()
        return iter(()) if dataset is None else scanning.scan(dataset, selection, ids)

    def failures(self, rollout: str) -> list[Failure]:
        dataset = self._tables.dataset(FAILURES)
        return [] if dataset is None else failures_from(dataset.to_table(filter=scanning.same("rollout", rollout)))

    def failed(self, rollout: str, ids: Collection[str]) -> set[str]:
        # Segments first, as in `find`.
        found = {each.id for each in unread_failures(self._folder, rollout) if each.rollout == rollout}
        dataset = self._tables.dataset(FAILURES)
        if dataset is not None:
            wanted = scanning.same("rollout", rollout) & pc.field("id").isin([*ids])
            found.update(map(str, dataset.to_table(columns=["id"], filter=wanted)["id"].to_pylist()))
        return found.intersection(ids)

    def explanations(self, prediction_id: str) -> list[KeptExplanation]:
        check_id(prediction_id, "prediction")
        # Segments first, as in `find`.
        found = [each for each in unread_explanations(self._folder, prediction_id) if each.id == prediction_id]
        dataset = self._tables.dataset(EXPLANATIONS)
        if dataset is not None:
            found += explanations_from(dataset.to_table(filter=scanning.same("id", prediction_id)))
        return sorted({each.origin: each for each in reversed(found)}.values(), key=lambda each: each.origin)

    def explained(self, endpoint: str, version: str, since: int, until: int) -> list[KeptExplanation]:
        dataset = self._tables.dataset(EXPLANATIONS)
        if dataset is None:
            return []
        wanted = (pc.field("at") >= pa.scalar(since, INSTANT)) & (pc.field("at") < pa.scalar(until, INSTANT))
        for name, text in (("endpoint", endpoint), ("version", version), ("origin", SAMPLED)):
            wanted &= scanning.same(name, text)
        found = {each.id: each for each in explanations_from(dataset.to_table(filter=wanted))}
        return sorted(found.values(), key=lambda each: (each.at, each.id))

    def observations(self, rollout: str, after: str = "", *, since: int = 0) -> Observations | None:
        positions = [int(each) for each in after.split(":")] if after else [-1, -1]
        wanted = scanning.same("rollout", rollout) & (pc.field("at") >= pa.scalar(since, INSTANT))
        ends, parts = [], []
        for table, position in zip((PREDICTIONS, FAILURES), positions, strict=True):
            version = self._tables.version(table)
            if position > (-1 if version is None else version):
                return None
            scan = None if version is None else self._since(table, position)
            ends.append(-1 if scan is None else scan.version)
            if scan is not None:
                columns, schema = _OBSERVED[table]
                # Beside whole files that are new: what was written anew, as by `tidy`, has its old number.
                new = wanted & (pc.field("arrival") > position)
                parts.append((dataset_of(scan, schema), columns, new))
        return Observations(":".join(map(str, ends)), _observed(parts))

    def _since(self, table: str, position: int) -> TableScan:
        found = self._lake.appended(table, position) if position >= 0 else None
        return self._lake.scan(table) if found is None else found

    def _batches(self, scan: TableScan, columns: Sequence[str], wanted: pc.Expression) -> Iterator[pa.Table]:
        dataset = dataset_of(scan)
        if dataset is None:
            return
        by_row = "sealed" not in columns and not READ_BY_ROW.isdisjoint(columns)
        needed = ("id", "share", "personal", "sealed") if by_row else ()
        kept: list[pa.RecordBatch] = []
        # No read-ahead: memory holds one batch of rows and a part of a row group.
        for batch in dataset.to_batches(
            columns=list(dict.fromkeys([*columns, *needed])),
            filter=wanted,
            batch_size=_ROWS_AT_ONCE,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        ):
            if batch.num_rows:
                kept.append(batch)
            if sum(each.num_rows for each in kept) >= _ROWS_AT_ONCE:
                yield self._table(kept, columns, by_row=by_row)
                kept = []
        if kept:
            yield self._table(kept, columns, by_row=by_row)

    def _table(self, batches: list[pa.RecordBatch], columns: Sequence[str], *, by_row: bool) -> pa.Table:
        table = pa.Table.from_batches(batches)
        return read_of(table, self._opener, columns) if by_row else table.select(list(columns))


def _observed(parts: Sequence[tuple[ds.Dataset | None, Sequence[str], pc.Expression]]) -> Iterator[pa.Table]:
    for dataset, columns, wanted in parts:
        if dataset is None:
            continue
        for batch in dataset.to_batches(
            columns=list(columns),
            filter=wanted,
            batch_size=_OBSERVED_AT_ONCE,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        ):
            if batch.num_rows:
                yield observed(pa.Table.from_batches([batch]))
