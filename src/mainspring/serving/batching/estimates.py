"""Estimates that the batcher learns: how long a batch takes (t = a + b·rows), and how much traffic arrives."""

from __future__ import annotations

from math import sqrt

_MEMORY = 0.95  # the weight of the past at each new batch: some twenty batches count
_FAR, _FAR_US = 3.0, 100.0
_SURPRISES = 3  # batches in a row, all slower or all faster than they had any right to be: the line has moved
_FORGET = 0.03
_NORMAL = 1.2533  # the standard deviation of a normal error over the mean of its size: sqrt(pi / 2)
_RECENT = 0.8  # the weight of the past at each new batch
_HALF = 0.5  # the same, of how full batches are
_SCARCE = 0.5  # rows lost per batch, from which on the executor's time is scarce


class Cost:
    """A least-squares line through the batches that ran, the newest weighing most. Microseconds.

    Nothing is known at first: `predict` is 0 until a batch has run.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._time = self._rows_rows = self._rows_time = 0.0
        self._fixed = self._per_row = 0.0
        self._errors = self._squares = 0.0  # relative, without sign, and their squares, weighted like the rest
        self._surprises = 0  # how many in a row, negative where they were faster

    def observe(self, rows: int, took_us: float) -> None:
        """Learn from a batch. One that took far longer than predicted met something else too, so it counts in part."""
        if self._weight > 2:
            predicted = self.predict(rows)
            took_us = min(took_us, _FAR * predicted + _FAR_US)
            self._compare(predicted, took_us)
        self._weight = self._weight * _MEMORY + 1
        self._rows = self._rows * _MEMORY + rows
        self._time = self._time * _MEMORY + took_us
        self._rows_rows = self._rows_rows * _MEMORY + rows * rows
        self._rows_time = self._rows_time * _MEMORY + rows * took_us
        self._fit()

    def predict(self, rows: float) -> float:
        """Return how long a batch of `rows` should take, µs."""
        return self._fixed + self._per_row * rows

    @property
    def deviation(self) -> float:
        """The standard deviation of what batches took from what was predicted, as a part of that."""
        return sqrt(self._squares / self._weight) if self._weight else 0.0

    @property
    def usual_deviation(self) -> float:
        """The same by the mean of what they are off: of most batches, where a few were held up by something else."""
        return _NORMAL * self._errors / self._weight if self._weight else 0.0

    @property
    def fixed_us(self) -> float:
        return self._fixed

    @property
    def per_row_us(self) -> float:
        return self._per_row

    def _compare(self, predicted: float, took_us: float) -> None:
        error = (took_us - predicted) / predicted if predicted > 0 else 0.0
        if abs(error) > 2 * self.usual_deviation + 0.05:
            way = 1 if error > 0 else -1
            self._surprises = self._surprises + way if self._surprises * way >= 0 else way
        else:
            self._surprises = 0
        self._errors = self._errors * _MEMORY + abs(error)
        self._squares = self._squares * _MEMORY + error * error
        if abs(self._surprises) >= _SURPRISES:
            # The slope is kept in shape by scaling the past to what is measured now, rather than by a line through
            # points of two lines.
            self._surprises = 0
            for name in ("_weight", "_rows", "_time", "_rows_rows", "_rows_time", "_errors", "_squares"):
                setattr(self, name, getattr(self, name) * _FORGET)

    def _fit(self) -> None:
        mean_rows, mean_time = self._rows / self._weight, self._time / self._weight
        spread = self._rows_rows / self._weight - mean_rows * mean_rows
        if spread > 1e-6 * mean_rows * mean_rows:
            slope = (self._rows_time / self._weight - mean_rows * mean_time) / spread
            # Neither part of the cost is negative, whatever the noise says.
            self._per_row = min(max(slope, 0.0), mean_time / mean_rows)
            self._fixed = mean_time - self._per_row * mean_rows
        else:  # batches of one size tell nothing of the slope: take it from zero rows, which errs on the late side
            self._fixed, self._per_row = 0.0, mean_time / mean_rows


class Traffic:
    """Counts between batches, averaged over the recent ones.

    Attributes:
        arrived: Rows since the last batch began, the refused ones included.
        missed: Those of them that were refused, and would not have been by an idle executor.
        rate: Rows per µs.
        waiting: Rows that wait, or would, when a batch begins.
    """

    __slots__ = ("_arrivals", "_begun", "_lost", "_time", "arrived", "missed", "rate", "waiting")

    def __init__(self) -> None:
        self.arrived = self.missed = 0
        self.rate = self.waiting = 0.0
        self._arrivals = self._time = self._lost = 0.0
        self._begun: int | None = None

    @property
    def scarce(self) -> bool:
        """True while requests are being refused that an idle executor would have answered in time."""
        return self._lost >= _SCARCE

    def choice(self, rows: int) -> None:
        """Note how many rows a batch can choose from."""
        self.waiting += _HALF * (rows - self.waiting)

    def begin(self, now: int) -> None:
        """Note that a batch begins."""
        if self._begun is not None:
            self._arrivals = self._arrivals * _RECENT + self.arrived
            self._time = self._time * _RECENT + now - self._begun
            self._lost = self._lost * _RECENT + self.missed * (1 - _RECENT)
            self.rate = self._arrivals / max(1.0, self._time)
        self._begun, self.arrived, self.missed = now, 0, 0
