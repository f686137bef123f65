"""Predictions in the lake: compaction of the segments into one table, and reads over table and segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mainspring.core.errors import Corrupt, NotFound
from mainspring.core.ids import check_id
from mainspring.core.locks import Locks
from mainspring.core.time import HOUR
from mainspring.data.model import TableScan
from mainspring.data.ports import LakeTables
from mainspring.ledger import frames
from mainspring.ledger.adapters import scanning
from mainspring.ledger.adapters.newest import NewestFirst
from mainspring.ledger.adapters.unread import DamagedSegment, Progress, Segment, damaged, segments, tidy, unread
from mainspring.ledger.batches import batches_of
from mainspring.ledger.column_batches import ColumnBatch, gathered, joined, observed_rows, without_collection
from mainspring.ledger.columns import (
    FAILURE_SCHEMA,
    INSTANT,
    OBSERVED_FAILURE,
    OBSERVED_PREDICTION,
    READ,
    READ_BY_ROW,
    SCHEMA,
    WATCHED,
    failures_batch,
    failures_from,
    from_table,
    observed,
    read_of,
)
from mainspring.ledger.model import FAILURES, PREDICTIONS, Failure, Prediction, Selection
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
        key: The installation's key for personal values, 32 bytes; without it they cannot be decrypted.
        at_once_bytes: Bytes of a segment that are compacted at once: 4 MiB are some 10,000 predictions, 100 MB as rows.
        observer: Counts each prediction once, as it comes into the table.

    Attributes:
        torn_bytes: Bytes of incomplete, unacknowledged writes of dead writers that this object has seen.
        damaged_frames: Batches with corrupted bytes; their segment is set aside.
    """

    def __init__(
        self,
        folder: Path,
        lake: LakeTables,
        locks: Locks,
        key: bytes | None = None,
        *,
        at_once_bytes: int = 4 << 20,
        observer: Observer | None = None,
    ) -> None:
        self._folder = folder
        self._lake = lake
        self._locks = locks
        self._at_once_bytes = at_once_bytes
        self._opener = Opener(key)
        self._newest = NewestFirst()
        self._observer = observer
        self.torn_bytes = 0
        self.damaged_frames = 0

    def compact(self) -> int:
        with self._locks.hold(LOCK):
            tidy(self._folder)
            for table in (PREDICTIONS, FAILURES):
                self._version(table)
            observer = self._observer
            if observer is not None and self._version() is not None and not observer.started():
                observer.doubt("before", None, None)  # the table is older than the observer
            moved = sum(self._compact(segment) for segment in segments(self._folder))
            if observer is not None:
                observer.settle(self)
            return moved

    def damaged(self) -> int:
        return damaged(self._folder)

    def _compact(self, segment: Segment) -> int:
        # Checked before reading: bytes behind the last frame of a segment without a writer are torn.
        live = segment.live()
        moved = 0
        try:
            # Later writes are left to the next compaction, since a writer may be faster than this one.
            progress, size = segment.progress(), segment.sync()
            if progress.planned > progress.done:  # a compaction was killed here
                found = segment.read(progress.done, progress.planned)
                added, progress = self._carry_out(segment, progress, found)
                moved += added
            while (found := segment.some(progress.done, size, self._at_once_bytes)).end > progress.done:
                damaged = progress.damaged + found.damaged
                progress = msgspec.structs.replace(progress, planned=found.end, damaged=damaged)
                segment.advance(progress)
                added, progress = self._carry_out(segment, progress, found)
                moved += added
        except DamagedSegment:
            if not live:  # else its writer may be ending, and the next compaction handles it
                segment.set_aside()
            return moved
        if not live:
            self.torn_bytes += found.torn
            self.damaged_frames += progress.damaged
            if progress.damaged:
                segment.set_aside()
            else:
                segment.forget()
        return moved

    def _carry_out(self, segment: Segment, plan: Progress, found: frames.Frames) -> tuple[int, Progress]:
        """Move the planned range. Return the number of predictions added (0 if the lake already had it) and the
        progress.

        The lake's append returns when its rows are durable: only then is the range done.
        """
        batches, failures, undecodable = _decoded(found)
        key = f"{segment.name}:{plan.done}-{plan.planned}"
        lost = [failures_batch(failures, self._arrival(FAILURES))] if failures else []
        if plan.doubtful:
            lost = self._missing(FAILURES, lost, FAILURE_SCHEMA)
            batches = self._unknown(key, batches)
        if lost:
            self._lake.append(FAILURES, lost, FAILURE_SCHEMA, key=key)
        version = None
        if batches:
            arrival = self._arrival(PREDICTIONS)
            version = self._lake.append(PREDICTIONS, [each.record_batch(arrival) for each in batches], SCHEMA, key=key)
            if self._observer is not None:  # after the append: a prediction that the lake lacks was never observed
                self._observer.observe(key, [each.observed(self._opener) for each in batches])
        done = msgspec.structs.replace(plan, done=plan.planned, damaged=plan.damaged + undecodable)
        segment.advance(done)
        return 0 if version is None else sum(len(each.ids) for each in batches), done

    def _unknown(self, key: str, batches: list[ColumnBatch]) -> list[ColumnBatch]:
        """Return the predictions that the lake does not have; the observer counts the times of the others again."""
        rows = [batch.record_batch() for batch in batches]
        missing = self._missing(PREDICTIONS, rows, SCHEMA)
        if missing is rows:
            return batches
        if self._observer is not None:
            at = np.concatenate([batch.at for batch in batches])
            self._observer.doubt(key, int(at.min()), int(at.max()) + 1)
        predictions = from_table(pa.Table.from_batches(missing, SCHEMA))
        return gathered((each.heading, each) for each in batches_of(predictions))

    def _arrival(self, table: str) -> int:
        """Return the number of the next write: the version that it makes, unknown to every earlier reader."""
        version = self._version(table)
        return 0 if version is None else version + 1

    def _missing(self, table: str, batches: list[pa.RecordBatch], schema: pa.Schema) -> list[pa.RecordBatch]:
        """Return the rows that the lake does not have; the same list if it has none of them."""
        dataset = self._dataset(table)
        rows = pa.Table.from_batches(batches, schema)
        if dataset is None or not rows.num_rows:
            return batches
        at, span = pc.field("at"), pc.min_max(rows["at"])
        near = (at >= span["min"]) & (at <= span["max"])
        known = pc.is_in(rows["id"], dataset.to_table(columns=["id"], filter=near)["id"].combine_chunks())
        return rows.filter(pc.invert(known)).to_batches() if pc.any(known).as_py() else batches

    def hours(self) -> Counter[int]:
        found: Counter[int] = Counter()
        dataset = self._dataset()
        for batch in () if dataset is None else dataset.to_batches(columns=["at"]):
            at = batch["at"].cast(pa.int64()).to_numpy()
            starts, rows = np.unique(at // HOUR * HOUR, return_counts=True)
            found.update(dict(zip(starts.tolist(), rows.tolist(), strict=True)))
        return found

    def between(self, since: int, until: int) -> Iterator[Observed]:
        if self._version() is None:
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
            for table in (PREDICTIONS, FAILURES):
                if self._version(table) is None:
                    continue
                expired = 0 if made_before is None else self._lake.expire(table, "at", made_before)
                removed += expired if table == PREDICTIONS else 0
                self._lake.vacuum(table, [], replaced_before=replaced_before)
                self._lake.shorten(table, entries, replaced_before=replaced_before)
            if self._observer is not None:
                self._observer.tidy(replaced_before=replaced_before, entries=entries)
            return removed

    def find(self, prediction_id: str) -> Prediction:
        check_id(prediction_id, "prediction")
        # Segments first: predictions compacted meanwhile are in the lake before they leave the segments.
        for prediction in unread(self._folder, containing=prediction_id):
            if prediction.id == prediction_id:
                return prediction
        dataset = self._dataset()
        if dataset is not None:
            try:  # by the files' statistics: ids begin with their time
                table = dataset.to_table(filter=pc.field("id") == prediction_id)
            except pa.ArrowNotImplementedError:
                table = dataset.to_table(filter=scanning.same("id", prediction_id))
            found = from_table(table)
            if found:
                return found[0]
        raise NotFound(
            f"There is no prediction {prediction_id!r}.",
            fix="give the id in the response; a new prediction is available within a second.",
        )

    def revealed(self, prediction: Prediction) -> Prediction:
        return revealed(prediction, self._opener)

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        newest = {each.id: each for each in unread(self._folder) if endpoint in (None, each.endpoint)}
        dataset = self._dataset()
        if dataset is not None and limit > 0:
            wanted = None if endpoint is None else scanning.same("endpoint", endpoint)
            instants = dataset.to_table(columns=["at"], filter=wanted)["at"].cast(pa.int64()).to_numpy()
            if instants.size:
                smallest = np.partition(instants, -min(limit, instants.size))[-min(limit, instants.size)]
                since = pc.field("at") >= pa.scalar(int(smallest), INSTANT)
                table = dataset.to_table(filter=since if wanted is None else since & wanted)
                newest |= {each.id: each for each in from_table(table)}
        return sorted(newest.values(), key=lambda each: (each.at, each.id), reverse=True)[:limit]

    def digests(self) -> set[str]:
        # Segments first, as in `find`.
        found = {prediction.digest for prediction in unread(self._folder)}
        dataset = self._dataset()
        if dataset is not None:
            for batch in dataset.to_batches(columns=["digest"]):
                found.update(str(digest) for digest in pc.unique(batch["digest"]).to_pylist())
        return found

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        dataset = self._dataset()
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
        if self._version() is None or by == -1:
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
        if self._version() is not None:
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
        dataset = self._dataset()
        return [] if dataset is None else scanning.sample(dataset, selection, count, seed)

    def scan(self, selection: Selection, ids: Collection[str] | None = None) -> Iterator[list[Prediction]]:
        dataset = self._dataset()
        return iter(()) if dataset is None else scanning.scan(dataset, selection, ids)

    def failures(self, rollout: str) -> list[Failure]:
        dataset = self._dataset(FAILURES)
        return [] if dataset is None else failures_from(dataset.to_table(filter=scanning.same("rollout", rollout)))

    def observations(self, rollout: str, after: str = "", *, since: int = 0) -> Observations | None:
        positions = [int(each) for each in after.split(":")] if after else [-1, -1]
        wanted = scanning.same("rollout", rollout) & (pc.field("at") >= pa.scalar(since, INSTANT))
        ends, parts = [], []
        for table, position in zip((PREDICTIONS, FAILURES), positions, strict=True):
            version = self._version(table)
            if position > (-1 if version is None else version):
                return None
            scan = None if version is None else self._since(table, position)
            ends.append(-1 if scan is None else scan.version)
            if scan is not None:
                columns, schema = _OBSERVED[table]
                # Beside whole files that are new: what was written anew, as by `tidy`, has its old number.
                new = wanted & (pc.field("arrival") > position)
                parts.append((_dataset(scan, schema), columns, new))
        return Observations(":".join(map(str, ends)), _observed(parts))

    def _since(self, table: str, position: int) -> TableScan:
        found = self._lake.appended(table, position) if position >= 0 else None
        return self._lake.scan(table) if found is None else found

    def _batches(self, scan: TableScan, columns: Sequence[str], wanted: pc.Expression) -> Iterator[pa.Table]:
        dataset = _dataset(scan)
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

    def _version(self, table: str = PREDICTIONS) -> int | None:
        """Return the newest version of a table, after reverting a write that a power cut interrupted.

        The predictions of that write are still in their segment: no range is done before its rows are durable.
        """
        try:
            return self._lake.version(table)
        except Corrupt:
            if not self._lake.recover(table):
                raise
            return self._lake.version(table)

    def _dataset(self, table: str = PREDICTIONS) -> ds.Dataset | None:
        if self._version(table) is None:
            return None
        return _dataset(self._lake.scan(table), SCHEMA if table == PREDICTIONS else FAILURE_SCHEMA)


def _dataset(scan: TableScan, schema: pa.Schema = SCHEMA) -> ds.Dataset | None:
    """Return the rows of a scan; columns that the table had not yet are null."""
    if scan.rows is not None:
        return ds.dataset(pa.concat_tables([schema.empty_table(), scan.rows], promote_options="default"))
    return ds.dataset(list(scan.files or ()), schema=schema, format="parquet") if scan.files else None


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


def _decoded(found: frames.Frames) -> tuple[list[ColumnBatch], list[Failure], int]:
    """Return the predictions and failures of frames, and how many frames hold something else."""
    batches: list[ColumnBatch] = []
    failures: list[Failure] = []
    undecodable = 0
    for payload in found.payloads:
        try:
            with without_collection():
                made, failed = frames.decode_batches(payload)
                batches += gathered(made)
        except Corrupt:
            undecodable += 1
        else:
            failures += failed
    return joined(batches), failures, undecodable
