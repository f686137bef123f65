"""Compaction: predictions, failures and explanations move from the log's segments into the lake, each once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Corrupt
from mainspring.core.garbage import without_collection
from mainspring.ledger import frames
from mainspring.ledger.adapters.tables import SCHEMAS, LedgerTables
from mainspring.ledger.adapters.unread import DamagedSegment, Progress, Segment, segments, tidy
from mainspring.ledger.batches import batches_of
from mainspring.ledger.column_batches import ColumnBatch, gathered, joined
from mainspring.ledger.columns import SCHEMA, explanations_batch, failures_batch, from_table
from mainspring.ledger.model import EXPLANATIONS, FAILURES, PREDICTIONS
from mainspring.ledger.ports import Observer, Past
from mainspring.ledger.sealing import Opener


class Compaction:
    """Moves what was appended to a folder's segments into the lake. The caller excludes other compactions.

    Args:
        folder: Folder of the segments.
        tables: Tables that receive what was appended.
        opener: Decrypts personal values for the observer, and encrypts them under their subjects' keys.
        at_once_bytes: Bytes of a segment that are compacted at once.
        observer: Counts each prediction once, as it comes into the table.

    Attributes:
        torn_bytes: Bytes of incomplete, unacknowledged writes of dead writers that this object has seen.
        damaged_frames: Batches with corrupted bytes; their segment is set aside.
    """

    def __init__(
        self, folder: Path, tables: LedgerTables, opener: Opener, *, at_once_bytes: int, observer: Observer | None
    ) -> None:
        self._folder = folder
        self._tables = tables
        self._opener = opener
        self._at_once_bytes = at_once_bytes
        self._observer = observer
        self.torn_bytes = 0
        self.damaged_frames = 0

    def run(self, past: Past) -> int:
        """Return the number of predictions that were moved.

        Args:
            past: Predictions in the table, from which the observer settles its doubts.
        """
        tidy(self._folder)
        for table in SCHEMAS:
            self._tables.version(table)
        observer = self._observer
        if observer is not None and self._tables.version() is not None and not observer.started():
            observer.doubt("before", None, None)  # the table is older than the observer
        moved = sum(self._compacted(segment) for segment in segments(self._folder))
        if observer is not None:
            observer.settle(past)
        return moved

    def _compacted(self, segment: Segment) -> int:
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
        batches, beside, undecodable = self._decoded(found)
        key = f"{segment.name}:{plan.done}-{plan.planned}"
        for table, rows in beside.items():
            # An explanation may come twice: its prediction can have one of each origin, and readers take one of each.
            new = self._missing(table, rows, SCHEMAS[table]) if plan.doubtful and table == FAILURES else rows
            if new:
                self._tables.lake.append(table, new, SCHEMAS[table], key=key)
        if plan.doubtful:
            batches = self._unknown(key, batches)
        version = None
        if batches:
            arrival = self._arrival(PREDICTIONS)
            version = self._tables.lake.append(
                PREDICTIONS,
                [each.under_subjects(self._opener).record_batch(arrival) for each in batches],
                SCHEMA,
                key=key,
            )
            if self._observer is not None:  # after the append: a prediction that the lake lacks was never observed
                self._observer.observe(key, [each.observed(self._opener) for each in batches])
        done = msgspec.structs.replace(plan, done=plan.planned, damaged=plan.damaged + undecodable)
        segment.advance(done)
        return 0 if version is None else sum(len(each.ids) for each in batches), done

    def _decoded(self, found: frames.Frames) -> tuple[list[ColumnBatch], dict[str, list[pa.RecordBatch]], int]:
        """Return the predictions of frames, the rows for the tables beside, and how many frames hold something else."""
        contents: list[frames.Decoded] = []
        batches: list[ColumnBatch] = []
        undecodable = 0
        for payload in found.payloads:
            try:
                with without_collection():
                    content = frames.decode_batches(payload)
                    batches += gathered(content.batches)
            except Corrupt:
                undecodable += 1
            else:
                contents.append(content)
        failures = [each for content in contents for each in content.failures]
        explanations = [each for content in contents for each in content.explanations]
        beside = {
            FAILURES: [failures_batch(failures, self._arrival(FAILURES))] if failures else [],
            EXPLANATIONS: [explanations_batch(explanations, self._arrival(EXPLANATIONS))] if explanations else [],
        }
        return joined(batches), beside, undecodable

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
        version = self._tables.version(table)
        return 0 if version is None else version + 1

    def _missing(self, table: str, batches: list[pa.RecordBatch], schema: pa.Schema) -> list[pa.RecordBatch]:
        """Return the rows that the lake does not have; the same list if it has none of them."""
        dataset = self._tables.dataset(table)
        rows = pa.Table.from_batches(batches, schema)
        if dataset is None or not rows.num_rows:
            return batches
        at, span = pc.field("at"), pc.min_max(rows["at"])
        near = (at >= span["min"]) & (at <= span["max"])
        known = pc.is_in(rows["id"], dataset.to_table(columns=["id"], filter=near)["id"].combine_chunks())
        return rows.filter(pc.invert(known)).to_batches() if pc.any(known).as_py() else batches
