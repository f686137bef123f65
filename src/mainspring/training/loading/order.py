"""Order of the rows in an epoch: a function of the seed, the epoch and the row groups, for any number of ranks.

Row groups are put in a random order, one after the other. This sequence is cut into `lanes` of equal length, and each
lane into windows, inside which rows are in a random order. A batch takes the same number of rows from every lane, so
that ranks that share a batch read different lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_GROUPS_A_LANE = 4  # at least: where a lane begins inside a row group, the rows before are decoded for nothing
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start` to `stop` of a row group."""

    group: int
    start: int
    stop: int


class Piece(NamedTuple):
    """Rows `start` to `stop` of a window, as shuffled."""

    lane: int
    window: int
    start: int
    stop: int


class Order:
    """Order of an epoch.

    Args:
        groups: Rows of each row group.
        batch_size: Rows of a batch, over all ranks.
        window: Rows that are shuffled among each other, over all lanes. All of them, if there are no more.
        lanes: Most parts that ranks can read separately.
        shuffled: False for the order in which rows are stored.
    """

    def __init__(
        self, groups: Sequence[int], seed: int, epoch: int, *, batch_size: int, window: int, lanes: int, shuffled: bool
    ) -> None:
        self.rows, self._batch, self._seed, self._epoch = sum(groups), batch_size, seed % 2**63, epoch
        self._shuffled = shuffled
        sizes = np.asarray(groups, np.int64)
        self._sequence = self._drawn().permutation(len(sizes)) if shuffled else np.arange(len(sizes))
        self._ends = np.cumsum(sizes[self._sequence])
        self._sizes = sizes
        if not shuffled or self.rows <= window:
            lanes = 1
        self.lanes = max(1, min(lanes, batch_size, len(sizes) // _GROUPS_A_LANE))
        self.window = max(1, window // self.lanes)
        self._full = self.rows // batch_size
        self._of_batch = _shares(batch_size, self.lanes)
        self._of_last = _shares(self.rows % batch_size, self.lanes)
        self.lengths = self._full * self._of_batch + self._of_last
        self._counts = self._of_batch.tolist(), self._of_last.tolist()
        self._begins = np.concatenate([[0], np.cumsum(self.lengths)])

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the rows at positions `start` to `stop` of the epoch, in order."""
        usual, last = self._counts
        while start < stop:
            number, slot = divmod(start, self._batch)
            until = min(stop - number * self._batch, self._batch)
            first = 0
            for lane, count in enumerate(usual if number < self._full else last):
                begin, end = max(slot, first), min(until, first + count)
                if begin < end:
                    before = number * usual[lane] - first
                    yield from self._in_windows(lane, before + begin, before + end)
                first += count
            start = number * self._batch + until

    def _in_windows(self, lane: int, start: int, stop: int) -> Iterator[Piece]:
        while start < stop:
            window, within = divmod(start, self.window)
            count = min(stop - start, self.window - within)
            yield Piece(lane, window, within, within + count)
            start += count

    def windows(self, lane: int) -> int:
        """Return the number of windows of a lane."""
        return -(-int(self.lengths[lane]) // self.window)

    def size(self, lane: int, window: int) -> int:
        """Return the rows of a window."""
        return min(self.window, int(self.lengths[lane]) - window * self.window)

    def spans(self, lane: int, window: int) -> Iterator[Span]:
        """Yield the rows of a lane from a window on, in the order in which they are read."""
        at, until = int(self._begins[lane]) + window * self.window, int(self._begins[lane + 1])
        place = int(np.searchsorted(self._ends, at, "right"))
        while at < until:
            group = int(self._sequence[place])
            begin, end = int(self._ends[place] - self._sizes[group]), int(self._ends[place])
            yield Span(group, at - begin, min(until, end) - begin)
            at, place = end, place + 1

    def places(self, lane: int, window: int) -> Whole | None:
        """Return the place in its window of each row, as they are read, int64 of shape (rows,); `None`: the same."""
        return self._drawn(lane, window).permutation(self.size(lane, window)) if self._shuffled else None

    def taken(self, lane: int, window: int) -> Whole | None:
        """Return the row, as they are read, at each place of a window, int64 of shape (rows,); `None`: the same."""
        places = self.places(lane, window)
        if places is None:
            return None
        found = np.empty_like(places)
        found[places] = np.arange(len(places))
        return found

    def _drawn(self, *of: int) -> Any:
        # A spawn key, because numbers of entropy are filled up with zeros: (1, 2) would be (1, 2, 0, 0).
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self._epoch, *of)))


def _shares(rows: int, parts: int) -> Whole:
    """Return the sizes of almost equal parts, the larger ones first, as `torch.tensor_split` has them."""
    return np.asarray([rows // parts + (part < rows % parts) for part in range(parts)], np.int64)
