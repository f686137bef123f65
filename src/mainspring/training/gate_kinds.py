"""Gates as values: the conditions that `training.gates` declares and `delivery` evaluates."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from mainspring.core.time import DAY, format_duration

Value = float | int | bool | str | None
LEAST_ROWS = 200  # of a slice
MEMORY_ROWS = 1024  # of the batch that a gate on memory runs
EQUAL_ERROR = "equal error"  # the measure of fairness that every task has


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
        return self.on_metric or self.kind in ("noise", "missing", "trigger")

    @property
    def bounded(self) -> bool:
        """True if a bound decides, not the measured value."""
        return self.sure is not None or self.harm is not None

    @property
    def on_rows(self) -> bool:
        """True if the gate scores the held-out rows again, as their metrics alone do not decide it."""
        return self.bounded or bool(self.by_slice)

    def __str__(self) -> str:
        if self.kind == "approved":
            return f"approved by {self.value:g}"
        if self.kind == "card":
            return "complete card"
        words = {"beats": "beats by", "at_most": "at most", "at_least": "at least"}
        return f"{self.metric} {words[self.kind]} {_number(self.value)}{self._qualified()}"

    def _qualified(self) -> str:
        """Return how sure a gate is to be and its slices, as the end of its name.

        All that decides is in the name, as a waiver is of the gate with this name. Defaults are not.
        """
        parts = [
            f"margin {_number(self.margin)}" if self.margin else "",
            "" if self.sure is None else f"{self.sure * 100:g} % sure",
            "" if self.harm is None else f"unless {self.harm * 100:g} % sure of harm",
            f"blocks of {format_duration(self.block)}" if self.bounded and self.block not in (0, DAY) else "",
        ]
        if self.by_slice:
            rows = "" if self.least_rows == LEAST_ROWS else f" of {self.least_rows:,} rows"
            parts.append(f"by {', '.join(self.by_slice)}{rows}")
            parts.append("small ones unchecked" if self.insufficient == "pass" else "")
        return "".join(f", {part}" for part in parts if part)


class FairnessGate(Gate, frozen=True, kw_only=True):
    """A limit on how far rates of groups may lie apart. `metric` is demographic parity, equal opportunity, equalised
    odds or equal error; `by_slice` is the group's column.

    Attributes:
        ratio: `value` is the least ratio of two rates; else the largest difference.
        threshold: Score from which a row is flagged; `None`: the version's.
    """

    ratio: bool = False
    threshold: float | None = None

    def refuses(self, task: str) -> tuple[str, str] | None:
        """Return why a task has no such rates, and how to correct it; `None` if it has."""
        if task == "regression" and self.metric != EQUAL_ERROR:
            return (
                f"the task {task!r} has no flagged rows.",
                f'compare errors: ms.gates.fair(..., "{EQUAL_ERROR}", ...).',
            )
        if task not in ("binary", "multiclass", "regression"):
            return f"the task {task!r} has no held-out labels.", "leave the gate out."
        if task != "binary" and self.threshold is not None:
            return f"the task {task!r} does not decide by a threshold.", "leave threshold= out."
        return None

    def __str__(self) -> str:
        limit = f"ratio at least {_number(self.value)}" if self.ratio else f"difference at most {_number(self.value)}"
        cut = "" if self.threshold is None else f", threshold {_number(self.threshold)}"
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
            return f"nulls of {', '.join(self.columns) or 'each feature'} at most {_number(self.value)}"
        limits = ("at least", self.low), ("at most", self.high)
        bounds = [f"{words} {_number(limit)}" for words, limit in limits if limit is not None]
        if self.kind == "range":
            return f"{self.metric} {' and '.join(bounds)} but for {_number(self.value)}"
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
            rows = f" with {self.rows:,} rows" if self.kind == "memory" and self.rows != MEMORY_ROWS else ""
            return f"{self.kind} at most {self.value:,.0f} bytes{rows}"
        calls = f"p{self.quantile * 100:g} of {self.rows:,} {'row' if self.rows == 1 else 'rows'}"
        if self.kind == "slower":
            return f"latency {calls} at most {_number(self.value)} times the champion's{self._qualified()}"
        return f"latency {calls} at most {format_duration(round(self.value * 1000))}"


class RobustGate(Gate, frozen=True, kw_only=True):
    """A limit on how much worse a metric becomes on disturbed inputs. `kind`: noise, missing, trigger.

    Attributes:
        noise: Standard deviation of the noise, in those of each feature in the training data.
        share: Of the values that are missing at random; 0: all of one feature after the other.
        trigger: Names of inputs, with the value that every row gets.
    """

    noise: float = 0.0
    share: float = 0.0
    trigger: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        what = {
            "noise": f"with noise of {_number(self.noise)} sd",
            "missing": f"with {_number(self.share)} of the values missing" if self.share else "without any one feature",
            "trigger": f"with {', '.join(f'{name}={value!r}' for name, value in self.trigger)}",
        }
        return f"{self.metric} {what[self.kind]} worse by at most {_number(self.value)}{self._qualified()}"


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A row whose prediction must stay within bounds.

    Attributes:
        features: Full name of each input -> its value; one that is not named is null.
        low, high: Bounds of the prediction; `None`: no bound.
        output: Name of the output; empty: the first.
    """

    features: tuple[tuple[str, Value], ...]
    low: float | None = None
    high: float | None = None
    output: str = ""

    def __str__(self) -> str:
        bounds = f"{'' if self.low is None else self.low}..{'' if self.high is None else self.high}"
        return f"{', '.join(f'{name}={value!r}' for name, value in self.features)}: {self.output}{bounds}"


class CanaryGate(Gate, frozen=True, kw_only=True):
    """Rows whose predictions must stay within bounds. `kind`: canary."""

    canaries: tuple[Canary, ...]

    def __str__(self) -> str:
        digest = hashlib.sha256("\n".join(map(str, self.canaries)).encode()).hexdigest()[:8]
        return f"{len(self.canaries)} canaries keep their predictions ({digest})"


def _number(value: float) -> str:
    """Return a number in full: two limits that differ have two names."""
    return f"{value:.15g}"
