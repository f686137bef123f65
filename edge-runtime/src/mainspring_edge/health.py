"""Health of a package while it runs: rows, errors, latency, and a profile of its columns."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_LATENCIES = 1024
_COLUMNS = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a package on trial.

    Attributes:
        trial_s: How long it has to stay healthy.
        most_error_share: The largest share of failed rows, once there are `least_rows`.
        least_rows: Rows before the share is judged. The trial waits for them if any row failed.
        most_p99_us: The largest 99th percentile of a call's latency.
    """

    trial_s: float = 600.0
    most_error_share: float = 0.02
    least_rows: int = 20
    most_p99_us: int | None = None


@dataclass(slots=True)
class _Column:
    count: int = 0
    nulls: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    def add(self, value: Any) -> None:
        self.count += 1
        if value is None or (isinstance(value, float) and math.isnan(value)):
            self.nulls += 1
        elif isinstance(value, int | float):
            number = float(value)
            self.total += number
            self.least, self.most = min(self.least, number), max(self.most, number)

    def summary(self) -> dict[str, Any]:
        known = self.count - self.nulls
        numbers = {"mean": self.total / known, "min": self.least, "max": self.most} if math.isfinite(self.least) else {}
        return {"count": self.count, "nulls": self.nulls, **numbers}


@dataclass(slots=True)
class Health:
    """Counts since the package was activated, or since `take`. Thread-safe."""

    rows: int = 0
    errors: int = 0
    _latencies: list[int] = field(default_factory=list)
    _columns: dict[str, _Column] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, rows: Sequence[Mapping[str, Any]], outputs: Mapping[str, Sequence[Any]], took_us: int) -> None:
        """Count answered rows."""
        with self._lock:
            self.rows += len(rows)
            self._latencies.append(took_us)
            del self._latencies[:-_LATENCIES]
            for row in rows:
                for name, value in row.items():
                    self._column(name, value)
            for name, values in outputs.items():
                for value in values:
                    self._column(name, value)

    def failed(self, rows: int) -> None:
        """Count rows that the model failed on."""
        with self._lock:
            self.rows += rows
            self.errors += rows

    def quantile_us(self, share: float) -> int | None:
        """Return a quantile of the newest calls' latencies, `None` before the first call."""
        with self._lock:
            ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def verdict(self, limits: Limits) -> str:
        """Return what is wrong by the limits, or nothing."""
        rows, errors = self.rows, self.errors
        if rows >= limits.least_rows and errors > limits.most_error_share * rows:
            return f"{errors} of {rows} rows failed; the limit is a share of {limits.most_error_share:g}"
        p99 = self.quantile_us(0.99)
        if (
            limits.most_p99_us is not None
            and p99 is not None
            and rows >= limits.least_rows
            and p99 > limits.most_p99_us
        ):
            return f"the 99th percentile of the latency is {p99:,} µs; the limit is {limits.most_p99_us:,} µs"
        return ""

    def unsure(self, limits: Limits) -> bool:
        """Return whether rows failed, and there are too few to judge their share."""
        return self.errors > 0 and self.rows < limits.least_rows

    def profile(self) -> dict[str, Any]:
        """Return rows, errors, latency (µs) and a summary of each column."""
        with self._lock:
            columns = {name: column.summary() for name, column in self._columns.items()}
            rows, errors = self.rows, self.errors
        latency = {"p50_us": self.quantile_us(0.5), "p99_us": self.quantile_us(0.99)}
        return {"rows": rows, "errors": errors, **latency, "columns": columns}

    def _column(self, name: str, value: Any) -> None:
        if name in self._columns or len(self._columns) < _COLUMNS:
            self._columns.setdefault(name, _Column()).add(value)
