"""Guards of a rollout: metrics that may end it, and that a candidate must not make worse to succeed."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.time import SECOND, parse_duration

__all__ = ["errors", "latency", "outcome", "output", "quality", "score"]

ERRORS, LATENCY, SCORE, QUALITY, OUTCOME = "errors", "latency", "score", "quality", "outcome"
OUTPUT = "output"
LOSSES = {  # loss of one prediction -> tasks for which it exists
    "error": ("binary", "multiclass"),
    "brier": ("binary",),
    "log_loss": ("binary", "multiclass"),
    "absolute_error": ("regression",),
    "squared_error": ("regression",),
}
SLOWER = 0.1  # how much slower a candidate may be, where a plan does not say


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """A metric that is compared between the arms at every look.

    Attributes:
        kind: errors, latency, score, quality, outcome or output.
        metric: The loss of a quality guard, the label's column of an outcome, the name of an output.
        tolerance: How much worse the candidate may be. Of errors and score it is relative: 0.5 allows one and a half
            times as many events. Of quality, outcome and output it is a difference of means, in the metric's own unit.
        slower: Of latency: how much slower the candidate may be, relative: 0.1 allows 1.1 times the champion's latency.
        at_most: Of errors: a share of requests that is harmless, whatever the champion's share is.
        within_us: Of quality and outcome: a prediction counts once it is so old, with the label known by then.
        higher_is_better: Of an outcome or output: the direction in which it is good.
        effect: Of a goal: the smallest improvement that matters, a difference of means.
    """

    kind: str
    metric: str = ""
    tolerance: float = 0.0
    at_most: float | None = None
    within_us: int | None = None
    higher_is_better: bool = False
    effect: float = 0.0
    slower: float | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.metric}".rstrip()

    @property
    def labelled(self) -> bool:
        """Whether it needs labels."""
        return self.kind in (QUALITY, OUTCOME)

    @property
    def factor(self) -> float:
        """Of latency: how many times as slow the candidate may be; plans of older versions do not say."""
        return 1 + (SLOWER if self.slower is None else self.slower)


def errors(*, tolerance: float = 0.5, at_most: float = 0.005) -> Guard:
    """Compare the shares of requests that fail.

    Args:
        tolerance: Relative: 0.5 allows the candidate one and a half times the champion's share.
        at_most: A share that is harmless even if the champion has fewer.
    """
    _tolerated("errors", tolerance)
    expect(at_most, (int, float), "The at_most of the guard errors", fix="give a share of requests, such as 0.005.")
    if not 0 <= at_most < 1:
        raise Invalid(
            f"The at_most of the guard errors is {at_most}.", fix="give a share of requests, at least 0 and below 1."
        )
    return Guard(kind=ERRORS, tolerance=float(tolerance), at_most=float(at_most))


def latency(*, slower: float = SLOWER, tolerance: float | None = None) -> Guard:
    """Compare the distributions of latency.

    Args:
        slower: How much slower the candidate may be, at every quantile: 0.1 allows 1.1 times the champion's latency.
        tolerance: Refused: it was relative to the number of slow requests, which a latency does not tell.
    """
    if tolerance is not None:
        raise Invalid(
            f"The guard latency has tolerance={tolerance}, a ratio of slow requests.",
            fix=f"say how much slower an answer may be: slower={SLOWER} allows 10%.",
        )
    _tolerated("latency", slower)
    return Guard(kind=LATENCY, slower=float(slower))


def score(*, tolerance: float = 1.0) -> Guard:
    """Compare the distributions of scores, by bins of equal weight in the champion's scores.

    Args:
        tolerance: Relative: 1.0 allows each bin to have twice its share.
    """
    _tolerated("score", tolerance)
    return Guard(kind=SCORE, tolerance=float(tolerance))


def quality(metric: str, *, tolerance: float = 0.0, within: str | int | None = None, effect: float = 0.0) -> Guard:
    """Compare the mean loss of predictions, as their labels come.

    Args:
        metric: "error" or "log_loss" of classes, "brier" of two; of regression, "absolute_error" or "squared_error".
        tolerance: How much larger the candidate's mean loss may be.
        within: A duration: a prediction counts once it is so old, with the label known by then. By default the
            label's `matures`.
        effect: As a goal: the smallest improvement that matters.
    """
    if metric not in LOSSES:
        raise Invalid(f"There is no loss {metric!r} to guard.", fix=f"use one of {', '.join(LOSSES)}.")
    _tolerated(f"quality {metric}", tolerance)
    return Guard(
        kind=QUALITY, metric=metric, tolerance=float(tolerance), within_us=_within(metric, within), effect=float(effect)
    )


def outcome(
    label: Any,
    *,
    tolerance: float = 0.0,
    within: str | int | None = None,
    higher_is_better: bool = True,
    effect: float = 0.0,
) -> Guard:
    """Compare the mean of what comes true, such as a conversion or revenue.

    Args:
        label: A label of the endpoint's model, or its column's name.
        tolerance: How much worse the candidate's mean may be.
        within: A duration, as `quality` takes it.
        higher_is_better: Whether a larger value is better.
        effect: As a goal: the smallest improvement that matters.
    """
    column = getattr(label, "column", getattr(label, "name", label))  # of a label, or of a source's column
    expect(column, str, "The label of an outcome", fix='name the column of a label, such as "late".')
    _tolerated(f"outcome {column}", tolerance)
    return Guard(
        kind=OUTCOME,
        metric=str(column),
        tolerance=float(tolerance),
        within_us=_within(str(column), within),
        higher_is_better=higher_is_better,
        effect=float(effect),
    )


def output(name: str, *, tolerance: float = 0.0, higher_is_better: bool = False, effect: float = 0.0) -> Guard:
    """Compare the mean of a number that each answer has, such as the cost of a chain's answers: "cost_micros".

    A number that is worse than all of the champion's counts by its logarithm above them, up to 100 times as much, so
    that one answer decides nothing; one that is better than all of them counts as the best of them.

    Args:
        name: Name of the output; a Boolean counts as 0 or 1. A chain of answers has "found", "cost_micros",
            "prompt_tokens", "completion_tokens", "citations", "unknown_citations", "passages" and "best_score".
        tolerance: How much worse the candidate's mean may be.
        higher_is_better: Whether a larger value is better.
        effect: As a goal: the smallest improvement that matters.
    """
    expect(name, str, "The name of an output", fix='name an output, such as "cost_micros".')
    _tolerated(f"output {name}", tolerance)
    return Guard(
        kind=OUTPUT,
        metric=name,
        tolerance=float(tolerance),
        higher_is_better=higher_is_better,
        effect=float(effect),
    )


def _tolerated(name: str, tolerance: float) -> None:
    expect(tolerance, (int, float), f"The tolerance of the guard {name}", fix="give a number of at least 0.")
    if not 0 <= tolerance < float("inf"):
        raise Invalid(f"The tolerance of the guard {name} is {tolerance}.", fix="give a number of at least 0.")


def _within(name: str, within: str | int | None) -> int | None:
    if within is None:
        return None
    expect(within, (str, int), f"The within of {name}", fix='write a duration, such as "1d".')
    expect_unit(f"The within of {name}", within)
    return parse_duration(within)


def expect_unit(what: str, given: str | int) -> None:
    """Raise if a duration is a number so small that its author meant another unit than microseconds.

    Raises:
        Invalid: It is a number below a second.
    """
    if isinstance(given, int) and 0 < given < SECOND:
        raise Invalid(
            f"{what} is {given}, a number of microseconds.", fix='write a duration with its unit, such as "30m".'
        )
