"""Gates as values: the conditions that `training.gates` declares and `delivery` evaluates."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.time import format_duration

LEAST_ROWS = 200  # of a slice


class Gate(msgspec.Struct, frozen=True):
    """A condition a version must meet to go live. `kind`: beats, at_most, at_least, approved, card, and those of the
    subclasses.

    Attributes:
        sure: The condition must hold with this probability; `None`: the measured value decides.
        harm: The gate fails only if a shortfall is shown with this probability.
        by_slice: Columns of the held-out rows; the condition must hold for each of their values.
        least_rows: Number of held-out rows below which a slice has insufficient data.
        insufficient: "fail" or "pass": what becomes of slices with insufficient data.
        margin: How much worse than the champion a version may be.
        block: Duration of the blocks of time that are taken as independent, in microseconds.
        views: Feature views of the slices that were given as a view's feature; the model may do without them.
    """

    kind: str
    metric: str
    value: float
    sure: float | None = None
    harm: float | None = None
    by_slice: tuple[str, ...] = ()
    least_rows: int = LEAST_ROWS
    insufficient: str = "fail"
    margin: float = 0.0
    block: int = 0
    views: tuple[Any, ...] = ()

    @property
    def on_metric(self) -> bool:
        """True if a metric on the held-out rows decides the gate."""
        return self.kind in ("beats", "at_most", "at_least")

    @property
    def names_metric(self) -> bool:
        """True if the gate needs a metric's function, which a model then measures."""
        return self.on_metric or self.kind in ("noise", "missing")

    @property
    def on_rows(self) -> bool:
        """True if the gate scores the held-out rows again, as their metrics alone do not decide it."""
        return bool(self.sure is not None or self.harm is not None or self.by_slice)

    def __str__(self) -> str:
        if self.kind == "approved":
            return f"approved by {self.value:g}"
        if self.kind == "card":
            return "complete card"
        words = {"beats": "beats by", "at_most": "at most", "at_least": "at least"}
        return f"{self.metric} {words[self.kind]} {self.value:g}{self._qualified()}"

    def _qualified(self) -> str:
        """Return how sure a gate is to be and its slices, as the end of its name."""
        sure = "" if self.sure is None else f", {self.sure * 100:g} % sure"
        harm = "" if self.harm is None else f", unless {self.harm * 100:g} % sure of harm"
        return sure + harm + (f", by {', '.join(self.by_slice)}" if self.by_slice else "")


class FairnessGate(Gate, frozen=True, kw_only=True):
    """A limit on how far rates of groups may lie apart. `metric` is demographic parity, equal opportunity or equalised
    odds; `by_slice` is the group's column.

    Attributes:
        ratio: `value` is the least ratio of two rates; else the largest difference.
        threshold: Score from which a row is flagged; `None`: the version's.
    """

    ratio: bool = False
    threshold: float | None = None

    def __str__(self) -> str:
        limit = f"ratio at least {self.value:g}" if self.ratio else f"difference at most {self.value:g}"
        cut = "" if self.threshold is None else f", threshold {self.threshold:g}"
        return f"{self.metric} {limit}{cut}{self._qualified()}"


class DataGate(Gate, frozen=True, kw_only=True):
    """A condition on the training data. `kind`: nulls, range, class_share.

    Attributes:
        columns: Features of the share of nulls; empty: all.
        low, high: Bounds of the values, or of the share of a class; `None`: no bound.
    """

    columns: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.kind == "nulls":
            return f"nulls of {', '.join(self.columns) or 'each feature'} at most {self.value:g}"
        limits = ("at least", self.low), ("at most", self.high)
        bounds = [f"{words} {limit:g}" for words, limit in limits if limit is not None]
        if self.kind == "range":
            return f"{self.metric} {' and '.join(bounds)} but for {self.value:g}"
        return f"class share {' and '.join(bounds)}"


class EngineGate(Gate, frozen=True, kw_only=True):
    """A condition on the bundle as it is served. `kind`: compatible, size, memory, latency, slower.

    Attributes:
        rows: Number of rows of a call.
        quantile: Quantile of the calls' latencies.
        full: Requests that bring every feature count too.
    """

    rows: int = 1
    quantile: float = 0.5
    full: bool = False

    def __str__(self) -> str:
        if self.kind == "compatible":
            return "compatible requests" + (" with every feature" if self.full else "")
        if self.kind in ("size", "memory"):
            return f"{self.kind} at most {self.value:,.0f} bytes"
        calls = f"p{self.quantile * 100:g} of {self.rows:,} {'row' if self.rows == 1 else 'rows'}"
        if self.kind == "slower":
            return f"latency {calls} at most {self.value:g} times the champion's{self._qualified()}"
        return f"latency {calls} at most {format_duration(round(self.value * 1000))}"


class RobustGate(Gate, frozen=True, kw_only=True):
    """A limit on how much worse a metric becomes on disturbed inputs. `kind`: noise, missing.

    Attributes:
        noise: Standard deviation of the noise, in those of each feature in the training data.
    """

    noise: float = 0.0

    def __str__(self) -> str:
        what = f"with noise of {self.noise:g} sd" if self.kind == "noise" else "without any one feature"
        return f"{self.metric} {what} worse by at most {self.value:g}{self._qualified()}"
