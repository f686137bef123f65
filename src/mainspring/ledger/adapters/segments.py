"""The prediction log on this machine: a buffer, one thread that writes it to segment files, and one that syncs them.

    add -> buffer -> (20 ms, or at once if somebody waits) -> write -> (0.5 s, or at once) -> fsync

Written bytes are in the kernel and survive the process; synced bytes survive the machine. One sync answers everything
that waits when it begins.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from mainspring.core.errors import MainspringError, StorageFull, Unavailable
from mainspring.core.files import disk_errors
from mainspring.ledger import batches, frames
from mainspring.ledger.adapters.segmentfile import SegmentFile
from mainspring.ledger.adapters.unread import damaged
from mainspring.ledger.model import Batch, Failure, Heading, KeptExplanation, Prediction
from mainspring.ledger.ports import Seals
from mainspring.ledger.recording import Tally

_log = logging.getLogger(__name__)


class _Group:
    """Predictions that are written together, as one frame."""

    def __init__(self) -> None:
        self.headings: dict[Heading, int] = {}
        self.encoded: list[bytes] = []
        self.size = 0  # bytes
        self.waited_for: set[int] = set()  # indices in `encoded` with a waiting caller
        self.promised: dict[str, Future[None] | None] = {"written": None, "synced": None}

    def numbered(self) -> dict[int, Heading]:
        return {number: heading for heading, number in self.headings.items()}

    def promise(self, what: str) -> Future[None]:
        """Return the shared future of all callers that wait for the group to be written or synced."""
        future = self.promised[what]
        if future is None:
            future = self.promised[what] = Future()
            future.set_running_or_notify_cancel()  # shared: no caller may cancel it for the others
        return future

    def settle(self, what: str, error: MainspringError | None) -> None:
        future = self.promised[what]
        if future is not None:
            _settle(future, error)


def _failed(error: MainspringError) -> Future[None]:
    failed: Future[None] = Future()
    failed.set_exception(error)
    return failed


def _settle(future: Future[None], error: MainspringError | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class SegmentLog:
    """A `PredictionLog` over its own segment files.

    Args:
        folder: Folder of the segments; made if missing.
        sealer: Encrypts personal values; without it they are left out.
        max_bytes: Size at which a segment is closed and a new one begun.
        max_age_s: Age at which this happens, at the next write.
        flush_within_s: Maximum time until a batch is written.
        sync_within_s: Maximum time until written bytes are synced.
        max_buffer_bytes: Maximum size of the buffer while the disk is slow; more is rejected, or dropped and counted.
    """

    def __init__(
        self,
        folder: Path,
        sealer: Seals | None = None,
        *,
        max_bytes: int = 64 << 20,
        max_age_s: float = 600.0,
        flush_within_s: float = 0.02,
        sync_within_s: float = 0.5,
        max_buffer_bytes: int = 64 << 20,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._flush_within_s = flush_within_s
        self._sync_within_s = sync_within_s
        self._max_buffer_bytes = max_buffer_bytes
        self._lock = threading.Lock()  # guards the buffer, and the files
        self._group = _Group()
        self._filled, self._hurry_write = threading.Event(), threading.Event()
        self._dirty, self._hurry_sync = threading.Event(), threading.Event()
        self._closing = False
        self._file: SegmentFile | None = None
        self._retired: list[SegmentFile] = []
        self._waiting: list[Future[None]] = []  # for a sync
        self._owed = Tally()  # failures that could not be written: they go with the next frame
        self._troubles: set[str] = set()  # operations that currently fail: "write", "sync"
        self.unlogged: Counter[tuple[str, str]] = Counter()
        self.sealer = sealer
        try:
            self._file = SegmentFile.begin(folder)
        except StorageFull as error:
            self._trouble("write", error)  # serving continues; every write tries again
        self._writer = threading.Thread(target=self._write_forever, name="ledger-write", daemon=True)
        self._syncer = threading.Thread(target=self._sync_forever, name="ledger-sync", daemon=True)
        self._writer.start()
        self._syncer.start()
        atexit.register(self.close)

    def add(self, batch: Batch, *, sync: bool = False) -> Future[None] | None:
        try:
            with self._lock:
                self._check()
                self._take(batch)
                return self._wait("synced", 1) if sync else None
        except Unavailable as error:
            if not sync:
                self.skip(batch.heading.endpoint, "closed" if self._closing else "buffer_full", len(batch.ids))
                return None
            return _failed(error)

    def fail(self, failures: Sequence[Failure], *, sync: bool = False) -> Future[None] | None:
        with self._lock:
            try:
                self._check()
            except Unavailable as error:
                if sync:
                    return _failed(error)
                for each in failures:
                    self._owed.add(each)
            else:
                self._put(failures)
                return self._wait("synced", 1) if sync else None
        return None

    def explain(self, explanations: Sequence[KeptExplanation]) -> None:
        with self._lock:
            try:
                self._check()
            except Unavailable:
                self._lose(explanations)
            else:
                headings = self._group.headings
                number = headings.setdefault(batches.NOTHING, len(headings))
                self._add(batches.encode_explanations(explanations, number))

    def _lose(self, explanations: Sequence[KeptExplanation]) -> None:
        for each in explanations:
            self.skip(each.endpoint, "explanation", 1)

    @property
    def unlogged_failures(self) -> Mapping[tuple[str, str], int]:
        with self._lock:
            return self._owed.counts()

    def append(self, predictions: Sequence[Prediction]) -> None:
        if not predictions:
            return
        with self._lock:
            self._check()
            for batch in batches.batches_of(predictions):
                self._take(batch)
            written = self._wait("written", len(predictions))
        written.result()

    def skip(self, endpoint: str, cause: str, rows: int) -> None:
        self.unlogged[endpoint, cause] += rows

    def damaged(self) -> int:
        return damaged(self._folder)

    def close(self) -> None:
        atexit.unregister(self.close)
        with self._lock:
            self._closing = True
        self._filled.set()
        self._hurry_write.set()
        self._writer.join()
        self._dirty.set()
        self._hurry_sync.set()
        self._syncer.join()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._owed:
            _log.error("Failures of rollouts were not logged, by endpoint and version: %s", self._owed.counts())

    def _check(self) -> None:
        """Raise if there is no room in the buffer. The caller holds the lock, here and in the next methods.

        Raises:
            Unavailable: The log is closed, or the disk is so slow that the buffer is full.
        """
        if self._closing:
            raise Unavailable("The prediction log is closed.")
        if self._group.size >= self._max_buffer_bytes:
            raise Unavailable(f"{self._group.size} bytes of predictions wait to be written to {self._folder}.")

    def _take(self, batch: Batch) -> None:
        """Add a batch to the next group."""
        headings = self._group.headings
        number = headings.get(batch.heading)
        if number is None:
            number = headings[batch.heading] = len(headings)
        self._add(batches.encode(batch, number))

    def _put(self, failures: Sequence[Failure]) -> None:
        """Add failures to what is written next."""
        headings = self._group.headings
        self._add(batches.encode_failures(failures, headings.setdefault(batches.NOTHING, len(headings))))

    def _add(self, encoded: bytes) -> None:
        group = self._group
        group.size += len(encoded)
        if not group.encoded:
            self._filled.set()
        group.encoded.append(encoded)

    def _wait(self, what: str, count: int) -> Future[None]:
        """Return the future of the newest batches, and write them at once."""
        group = self._group
        group.waited_for.update(range(len(group.encoded) - count, len(group.encoded)))
        self._hurry_write.set()
        return group.promise(what)

    def _write_forever(self) -> None:
        while True:
            self._filled.wait()
            self._hurry_write.wait(self._flush_within_s)
            with self._lock:
                if self._owed:
                    self._put(self._owed.take())
                group, self._group = self._group, _Group()
                self._filled.clear()
                self._hurry_write.clear()
                closing = self._closing
            if group.encoded:
                self._write(group)
            if closing:
                return

    def _write(self, group: _Group) -> None:
        try:
            with disk_errors(self._folder):
                self._writable().write(frames.framed(group.numbered(), group.encoded))
        except StorageFull as error:
            self._refuse(group, error, "disk_full")
        except Exception as error:  # whatever the error, waiting callers must get it, and the next frame be tried
            self._refuse(group, Unavailable(f"The prediction log cannot be written: {error!r}."), "disk_error")
        else:
            self._well("write")
            synced = group.promised["synced"]
            if synced is not None:
                with self._lock:
                    self._waiting.append(synced)
                self._hurry_sync.set()
            self._dirty.set()
            group.settle("written", None)

    def _writable(self) -> SegmentFile:
        """Return the segment to write to; a new one if due."""
        file = self._file
        if file is not None and not (
            file.broken or file.size >= self._max_bytes or time.monotonic() - file.begun >= self._max_age_s
        ):
            return file
        begun = SegmentFile.begin(self._folder)
        with self._lock:
            self._file = begun
            if file is not None:
                self._retired.append(file)  # must be synced before it is closed, which may take long
        self._dirty.set()
        self._hurry_sync.set()
        return begun

    def _refuse(self, group: _Group, error: MainspringError, cause: str) -> None:
        lost = [each for place, each in enumerate(group.encoded) if place not in group.waited_for]
        for endpoint, rows in frames.counted(group.numbered(), lost):
            self.skip(endpoint, cause, rows)
        self._lose(frames.explanations_in(lost))
        with self._lock:
            for failure in frames.failures_in(lost):
                self._owed.add(failure)
        self._trouble("write", error)
        group.settle("written", error)
        group.settle("synced", error)

    def _trouble(self, what: str, error: MainspringError) -> None:
        """Log an error once, until writing succeeds again."""
        if what not in self._troubles:
            _log.error("Predictions are not logged (%s): %s", what, error)
            self._troubles.add(what)

    def _well(self, what: str) -> None:
        if what in self._troubles:
            _log.warning("Predictions are logged again (%s); not logged before: %s", what, dict(self.unlogged))
            self._troubles.remove(what)

    def _sync_forever(self) -> None:
        while True:
            self._dirty.wait()
            self._hurry_sync.wait(self._sync_within_s)
            with self._lock:
                self._dirty.clear()
                self._hurry_sync.clear()
                waiting, self._waiting = self._waiting, []
                retired, self._retired = self._retired, []
                current = self._file  # only this thread closes it; the writer just drops its reference
            error = self._sync([file.descriptor for file in (*retired, current) if file is not None])
            for file in retired:
                file.close()
            if error is None:
                self._well("sync")
            else:
                self._trouble("sync", error)
                if current is not None:
                    current.broken = True
            for future in waiting:
                _settle(future, error)
            if not self._writer.is_alive() and not self._dirty.is_set():
                return

    def _sync(self, descriptors: Sequence[int]) -> MainspringError | None:
        try:
            with disk_errors(self._folder):
                for descriptor in descriptors:
                    os.fsync(descriptor)
        except StorageFull as error:
            return error
        except OSError as error:
            return Unavailable(f"The prediction log cannot be synced to disk: {error}.")
        return None
