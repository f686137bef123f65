"""Predictions in the lake: compaction of the segments into one table, and reads over table and segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from mainspring.core.errors import Corrupt, NotFound
from mainspring.core.ids import check_id
from mainspring.core.locks import Locks
from mainspring.data.model import TableScan
from mainspring.data.ports import LakeTables
from mainspring.ledger import frames
from mainspring.ledger.adapters.unread import DamagedSegment, Progress, Segment, damaged, segments, tidy, unread
from mainspring.ledger.columns import INSTANT, READ, READ_BY_ROW, SCHEMA, WATCHED, from_table, read_of, to_batch
from mainspring.ledger.model import PREDICTIONS, Prediction
from mainspring.ledger.ports import Arrivals
from mainspring.ledger.sealing import Opener, revealed

LOCK = "predictions"
_ROWS_AT_ONCE = 20_000  # that `arrivals` gives; some 20 MB


class LakePredictions:
    """`PredictionStore` over the segments of `SegmentLog` and a lake table.

    Args:
        folder: Folder of the segments.
        lake: Lake that receives the predictions, in the table `predictions`.
        locks: One compaction at a time: the lock is `predictions`.
        key: The installation's key for personal values, 32 bytes; without it none can be shown.
        at_once_bytes: How much of a segment is compacted at once: 4 MiB are some 10,000 predictions, 100 MB as rows.

    Attributes:
        torn_bytes: What dead writers left half-written, and had told nobody of, as far as this object has seen.
        damaged_frames: Batches whose bytes are not what was written; their segment is set aside.
    """

    def __init__(
        self, folder: Path, lake: LakeTables, locks: Locks, key: bytes | None = None, *, at_once_bytes: int = 4 << 20
    ) -> None:
        self._folder = folder
        self._lake = lake
        self._locks = locks
        self._at_once_bytes = at_once_bytes
        self._opener = Opener(key)
        self.torn_bytes = 0
        self.damaged_frames = 0

    def compact(self) -> int:
        with self._locks.hold(LOCK):
            tidy(self._folder)
            self._version()
            return sum(self._compact(segment) for segment in segments(self._folder))

    def damaged(self) -> int:
        return damaged(self._folder)

    def _compact(self, segment: Segment) -> int:
        # Asked before reading: what is behind the last frame of a segment that was dead by then is torn.
        live = segment.live()
        moved = 0
        try:
            # Later writes belong to the next compaction, since a writer may be faster than this one.
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
            if not live:  # else its writer may be about to end, and the next compaction finds it dead
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
        """Move the planned range; return how many predictions that added, none if the lake had it, and the progress.

        The lake's append returns when its rows are durable: only then is the range done.
        """
        predictions, undecodable = _decoded(found)
        if plan.doubtful:
            predictions = self._missing(predictions)
        version = None
        if predictions:
            key = f"{segment.name}:{plan.done}-{plan.planned}"
            version = self._lake.append(PREDICTIONS, [to_batch(predictions)], SCHEMA, key=key)
        done = msgspec.structs.replace(plan, done=plan.planned, damaged=plan.damaged + undecodable)
        segment.advance(done)
        return 0 if version is None else len(predictions), done

    def _missing(self, predictions: list[Prediction]) -> list[Prediction]:
        """Return those of the predictions that the lake does not have."""
        dataset = self._dataset()
        if dataset is None or not predictions:
            return predictions
        instants = [each.at for each in predictions]
        at = pc.field("at")
        near = (at >= pa.scalar(min(instants), INSTANT)) & (at <= pa.scalar(max(instants), INSTANT))
        known = set(dataset.to_table(columns=["id"], filter=near)["id"].to_pylist())
        return [each for each in predictions if each.id not in known]

    def tidy(self, *, made_before: int | None = None, replaced_before: int, entries: int = 1_000) -> int:
        with self._locks.hold(LOCK):
            if self._version() is None:
                return 0
            removed = 0 if made_before is None else self._lake.expire(PREDICTIONS, "at", made_before)
            self._lake.vacuum(PREDICTIONS, [], replaced_before=replaced_before)
            self._lake.shorten(PREDICTIONS, entries, replaced_before=replaced_before)
            return removed

    def find(self, prediction_id: str) -> Prediction:
        check_id(prediction_id, "prediction")
        # The segments first: what is compacted meanwhile is in the lake before it leaves them.
        for prediction in unread(self._folder, containing=prediction_id):
            if prediction.id == prediction_id:
                return prediction
        dataset = self._dataset()
        if dataset is not None:
            found = from_table(dataset.to_table(filter=pc.field("id") == prediction_id))
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
            wanted = None if endpoint is None else pc.field("endpoint") == endpoint
            instants = dataset.to_table(columns=["at"], filter=wanted)["at"].cast(pa.int64()).to_numpy()
            if instants.size:
                smallest = np.partition(instants, -min(limit, instants.size))[-min(limit, instants.size)]
                since = pc.field("at") >= pa.scalar(int(smallest), INSTANT)
                table = dataset.to_table(filter=since if wanted is None else since & wanted)
                newest |= {each.id: each for each in from_table(table)}
        return sorted(newest.values(), key=lambda each: (each.at, each.id), reverse=True)[:limit]

    def digests(self) -> set[str]:
        # The segments first, as in `find`.
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
            (pc.field("endpoint") == endpoint) & (at >= pa.scalar(since, INSTANT)) & (at < pa.scalar(until, INSTANT))
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
        wanted = (pc.field("endpoint") == endpoint) & (pc.field("at") >= pa.scalar(since, INSTANT))
        if until is not None:
            wanted &= pc.field("at") < pa.scalar(until, INSTANT)
        return Arrivals(scan.version, self._batches(scan, columns or WATCHED, wanted))

    def _batches(self, scan: TableScan, columns: Sequence[str], wanted: pc.Expression) -> Iterator[pa.Table]:
        dataset = _dataset(scan)
        if dataset is None:
            return
        by_row = not READ_BY_ROW.isdisjoint(columns)
        needed = ("id", "share", "personal", "sealed") if by_row else ()
        kept: list[pa.RecordBatch] = []
        # Nothing is read ahead: what is in memory is one batch of rows and a part of a row group.
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

    def _version(self) -> int | None:
        """Return the newest version of the table; a write that a loss of power cut short is taken back first.

        Its predictions are still in their segment: no range is done before its rows are durable.
        """
        try:
            return self._lake.version(PREDICTIONS)
        except Corrupt:
            if not self._lake.recover(PREDICTIONS):
                raise
            return self._lake.version(PREDICTIONS)

    def _dataset(self) -> ds.Dataset | None:
        if self._version() is None:
            return None
        return _dataset(self._lake.scan(PREDICTIONS))


def _dataset(scan: TableScan) -> ds.Dataset | None:
    if scan.rows is not None:
        return ds.dataset(scan.rows)
    return ds.dataset(list(scan.files or ()), schema=SCHEMA, format="parquet") if scan.files else None


def _decoded(found: frames.Frames) -> tuple[list[Prediction], int]:
    """Return the predictions of frames, and how many frames hold something else."""
    predictions: list[Prediction] = []
    undecodable = 0
    for payload in found.payloads:
        try:
            predictions += frames.decode(payload)
        except Corrupt:
            undecodable += 1
    return predictions, undecodable
