"""Recent arrivals at a queue and their losses, by which the batcher expects what arrives next."""

from __future__ import annotations

_RECENT = 0.8  # the weight of the past at each new batch
_HALF = 0.5  # the same, of how full batches are
_SCARCE = 0.5  # rows lost per batch, from which on the executor's time is scarce


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
