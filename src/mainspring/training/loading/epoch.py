"""Rows of one epoch: windows are decoded by threads ahead of the batches that take from them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from mainspring.core.errors import Corrupt, MainspringError
from mainspring.training.loading.columns import Layout, Values
from mainspring.training.loading.files import ROWS, Files
from mainspring.training.loading.order import Order, Piece, Whole
from mainspring.training.loading.pace import Pace

_PIECE_BYTES = 16 << 20  # of rows that are decoded at a time


@dataclass(slots=True)
class _Window:
    """Decoded rows of a window, as they are stored; `rows` are their numbers in the order in which they are taken.

    Rows are moved once, when a batch takes them: to move them while they are decoded would write all of them twice.
    """

    number: int
    arrays: list[Values]
    rows: Whole | None


class Epoch:
    """Rows of an epoch, in memory that windows bound: of each lane in use, one is taken from and one is decoded.

    Args:
        pace: Is added to.
        threads: Windows that are decoded at the same time.
    """

    def __init__(self, files: Files, layout: Layout, order: Order, pace: Pace, threads: int) -> None:
        self.order, self.layout, self.pace = order, layout, pace
        self.stopped = threading.Event()
        self._files = files
        # Large pieces take a quarter less time: PyArrow has fewer to make. Texts may be of any length.
        self._piece = ROWS if layout.texts else max(ROWS, min(order.window, _PIECE_BYTES // max(1, layout.row_bytes)))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        self._lanes: dict[int, _Lane] = {}
        self._adding = threading.Lock()

    def take(self, start: int, stop: int) -> list[Values]:
        """Return copies of the rows at positions `start` to `stop`.

        Raises:
            MainspringError: A file is damaged or changed, or a value has no place in an array.
        """
        rows = self.layout.empty(stop - start)
        pieces = [*self.order.pieces(start, stop)]
        if len(self._lanes) < self.order.lanes:
            self._start(pieces)
        at = 0
        for lane, number, begin, end in pieces:
            until = at + end - begin
            window = self._lanes[lane].window(number)
            for source, into in zip(window.arrays, rows, strict=True):
                if window.rows is None:
                    into[at:until] = source[begin:end]
                else:
                    source.take(window.rows[begin:end], 0, into[at:until], "clip")  # "raise" would copy once more
            at = until
        self.pace.rows += at
        self.pace.bytes += at * self.layout.row_bytes
        return rows

    def _start(self, pieces: list[Piece]) -> None:
        """Have the windows of lanes decoded that no row was taken from yet."""
        for lane, number, _, _ in pieces:
            if lane not in self._lanes:
                self._lanes[lane] = _Lane(self, lane, number)

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes that rows were taken from."""
        return frozenset(self._lanes)

    @property
    def drained(self) -> bool:
        """True once all windows of these lanes are decoded."""
        return all(lane.drained for lane in self._lanes.values())

    def begin(self, lanes: Iterable[int]) -> None:
        """Have the first windows of lanes decoded."""
        self._lanes |= {lane: _Lane(self, lane, 0) for lane in lanes if self.order.windows(lane)}

    def decode(self, lane: int, first: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a lane from a window on, until the epoch is closed."""
        for batch in self._files.read(self.order.spans(lane, first), self.layout.columns, self._piece):
            if self.stopped.is_set():
                raise MainspringError("The loader was closed.")
            yield batch

    def submit(self, lane: _Lane, number: int, into: list[Values]) -> Future[_Window]:
        """Have a thread decode a lane's next window."""

        def decoded() -> _Window:
            begun = time.perf_counter()
            window = lane.decode(number, into)
            with self._adding:
                self.pace.decoded += self.order.size(lane.number, number)
                self.pace.decoding_s += time.perf_counter() - begun
            return window

        return self._pool.submit(decoded)

    def close(self) -> None:
        """End the threads."""
        self.stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._lanes = {}


class _Lane:
    """Windows of a lane, one after another."""

    def __init__(self, epoch: Epoch, number: int, first: int) -> None:
        self.number, self._epoch = number, epoch
        self._rest: tuple[pa.RecordBatch, int] | None = None  # a batch, and the rows of it that are used up
        self._current: _Window | None = None
        self._spare: list[Values] = []  # arrays that the next window can have
        self._begin(first)

    def _begin(self, first: int) -> None:
        self._batches = self._epoch.decode(self.number, first)
        self._rest, self._spare = None, []
        self._next = self._epoch.submit(self, first, self._buffers(first))

    def _buffers(self, number: int) -> list[Values]:
        size = self._epoch.order.size(self.number, number)
        if self._spare and len(self._spare[0]) >= size:
            arrays, self._spare = self._spare, []
            return arrays
        return self._epoch.layout.empty(size)

    @property
    def drained(self) -> bool:
        return self._current is not None and self._current.number + 1 == self._epoch.order.windows(self.number)

    def window(self, number: int) -> _Window:
        """Return a window, and have the one after it decoded; quick where it was the one after the last."""
        if self._current is not None and self._current.number == number:
            return self._current
        begun = time.perf_counter()
        arrived = self._next.result()
        if arrived.number != number:  # a jump, as after a resumption
            self._begin(number)
            arrived = self._next.result()
        self._epoch.pace.waited_s += time.perf_counter() - begun
        before, self._current = self._current, arrived
        if number + 1 < self._epoch.order.windows(self.number):
            self._spare = [] if before is None else before.arrays
            self._next = self._epoch.submit(self, number + 1, self._buffers(number + 1))
        return arrived

    def decode(self, number: int, into: list[Values]) -> _Window:
        """Decode the next rows into arrays. Only one thread at a time does."""
        at, size = 0, self._epoch.order.size(self.number, number)
        while at < size:
            batch, used = self._rest or (next(self._batches, None), 0)
            if batch is None:
                raise Corrupt("A row group has fewer rows than its file says.", fix="write the files anew.")
            piece = batch.slice(used, size - at)
            until = at + piece.num_rows
            self._epoch.layout.write(piece, [array[at:until] for array in into])
            at, used = until, used + piece.num_rows
            self._rest = (batch, used) if used < batch.num_rows else None
        return _Window(number, into, self._epoch.order.taken(self.number, number))
