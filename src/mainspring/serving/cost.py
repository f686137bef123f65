"""How long a batch takes, learnt from those that ran: t = a + b·rows."""

from __future__ import annotations

_MEMORY = 0.95  # the weight of the past at each new batch: some twenty batches count
_FAR, _FAR_US = 3.0, 100.0


class Cost:
    """A least-squares line through the batches that ran, the newest weighing most. Microseconds.

    Nothing is known at first: `predict` is 0 until a batch has run.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._time = self._rows_rows = self._rows_time = 0.0
        self._fixed = self._per_row = 0.0

    def observe(self, rows: int, took_us: float) -> None:
        """Learn from a batch. One that took far longer than predicted met something else too, so it counts in part."""
        if self._weight > 2:
            took_us = min(took_us, _FAR * self.predict(rows) + _FAR_US)
        self._weight = self._weight * _MEMORY + 1
        self._rows = self._rows * _MEMORY + rows
        self._time = self._time * _MEMORY + took_us
        self._rows_rows = self._rows_rows * _MEMORY + rows * rows
        self._rows_time = self._rows_time * _MEMORY + rows * took_us
        mean_rows, mean_time = self._rows / self._weight, self._time / self._weight
        spread = self._rows_rows / self._weight - mean_rows * mean_rows
        if spread > 1e-6 * mean_rows * mean_rows:
            slope = (self._rows_time / self._weight - mean_rows * mean_time) / spread
            # Neither part of the cost is negative, whatever the noise says.
            self._per_row = min(max(slope, 0.0), mean_time / mean_rows)
            self._fixed = mean_time - self._per_row * mean_rows
        else:  # batches of one size tell nothing of the slope: take it from zero rows, which errs on the late side
            self._fixed, self._per_row = 0.0, mean_time / mean_rows

    def predict(self, rows: int) -> float:
        """Return how long a batch of `rows` should take, µs."""
        return self._fixed + self._per_row * rows
