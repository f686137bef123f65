"""Speed of a loader, and whether a training waits for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

_WAITING = 0.1  # share of the time from which on a training is bound by its data


@dataclass
class Pace:
    """Amounts and times of loading, added up over epochs; its clock starts when it is made."""

    rows: int = 0  # taken by batches
    bytes: int = 0
    waited_s: float = 0.0  # for windows
    decoded: int = 0  # rows
    decoding_s: float = 0.0  # of all threads together
    _began: float = field(default_factory=time.perf_counter)
    _seen: tuple[float, Pace] | None = None  # the last call of `since`

    def since(self) -> dict[str, float]:
        """Return rows and megabytes a second, and the share of the time spent waiting, since the last call."""
        now = time.perf_counter()
        at, before = self._seen or (self._began, Pace())
        self._seen = now, replace(self, _seen=None)
        seconds = max(1e-9, now - at)
        return {
            "rows_per_s": (self.rows - before.rows) / seconds,
            "mb_per_s": (self.bytes - before.bytes) / 1e6 / seconds,
            "waiting": min(1.0, (self.waited_s - before.waited_s) / seconds),
        }

    def bound(self, threads: int) -> str:
        """Return whether a training was bound by its data or by computing, and the remedy."""
        share = min(1.0, self.waited_s / max(1e-9, time.perf_counter() - self._began))
        if share < _WAITING:
            return f"compute: {share:.0%} of the time was waiting for data."
        speed = self.decoded / max(1e-9, self.decoding_s)
        return (
            f"data: {share:.0%} of the time was waiting for it; a thread decodes {speed:,.0f} rows a second. Fix: "
            f"threads={threads * 2} where processors are idle, fewer columns, or row groups of some 100,000 rows."
        )
