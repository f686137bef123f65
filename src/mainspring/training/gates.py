"""Gates: conditions that a version must meet to go live."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mainspring.core.definition_registry import expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.time import parse_duration
from mainspring.features.model import FeatureColumn
from mainspring.stats.metrics import ECE, Metric
from mainspring.training.gate_kinds import (
    EQUAL_ERROR,
    LEAST_ROWS,
    MEMORY_ROWS,
    Canary,
    CanaryGate,
    DataGate,
    EngineGate,
    FairnessGate,
    Gate,
    RobustGate,
    Value,
)
from mainspring.training.gate_options import (
    bytes_of,
    check_block,
    check_calls,
    check_chance,
    check_number,
    check_share,
    check_slices,
    checked_values,
)

__all__ = [
    "approved", "at_least", "at_most", "beats", "calibration_error", "canaries", "canary", "class_share", "compatible",
    "complete_card", "fair", "latency", "memory", "nulls", "robust_to_missing", "robust_to_noise", "robust_to_trigger",
    "size", "slower_at_most", "values_within",
]  # fmt: skip

SliceBy = str | FeatureColumn
_MEASURES = ("demographic parity", "equal opportunity", "equalised odds", EQUAL_ERROR)


def beats(
    metric: str | Metric,
    by: float = 0.0,
    *,
    sure: float | None = None,
    harm: float | None = None,
    margin: float = 0.0,
    by_slice: SliceBy | Sequence[SliceBy] = (),
    least_rows: int = LEAST_ROWS,
    insufficient: str = "fail",
    block: str = "1d",
) -> Gate:
    """Require the metric to beat the baseline by at least `by`, and to be no worse than the champion's, on the same
    held-out rows.

    Without `sure` and `harm` the measured values are compared. With one of them, the paired difference on the same rows
    has an interval, by a jackknife over blocks of time.

    Args:
        sure: The version passes only if the difference is shown with this probability, such as 0.95.
        harm: The version fails only if it is shown with this probability to fall short; among several slices it is
            corrected by Holm's procedure.
        margin: How much worse than the champion the version may be; with `sure`, 0 asks for proof that it is no worse.
        by_slice: Features or columns of the observations, by name; or a view's feature, which the model may do without.
            Every value of each is a slice; the worst one decides.
        least_rows: Number of held-out rows below which a slice has insufficient data.
        insufficient: "fail" or "pass": whether slices with insufficient data fail the gate.
        block: Duration of the blocks of time that are taken as independent of each other.

    Raises:
        Invalid: An argument is out of its range.
    """
    return _on("beats", metric, by, sure, harm, by_slice, least_rows, insufficient, block, margin)


def at_most(
    metric: str | Metric,
    value: float,
    *,
    sure: float | None = None,
    harm: float | None = None,
    by_slice: SliceBy | Sequence[SliceBy] = (),
    least_rows: int = LEAST_ROWS,
    insufficient: str = "fail",
    block: str = "1d",
) -> Gate:
    """Require the held-out metric to be at most `value`. The other arguments are those of `beats`."""
    return _on("at_most", metric, value, sure, harm, by_slice, least_rows, insufficient, block)


def at_least(
    metric: str | Metric,
    value: float,
    *,
    sure: float | None = None,
    harm: float | None = None,
    by_slice: SliceBy | Sequence[SliceBy] = (),
    least_rows: int = LEAST_ROWS,
    insufficient: str = "fail",
    block: str = "1d",
) -> Gate:
    """Require the held-out metric to be at least `value`. The other arguments are those of `beats`."""
    return _on("at_least", metric, value, sure, harm, by_slice, least_rows, insufficient, block)


def calibration_error(
    at_most: float,
    *,
    sure: float | None = 0.95,
    by_slice: SliceBy | Sequence[SliceBy] = (),
    least_rows: int = 1000,
    insufficient: str = "fail",
    block: str = "1d",
) -> Gate:
    """Require the expected calibration error (the metric `ece`) to be at most this, shown with probability `sure`.

    The error is in the unit of a probability, and it sees every shape of miscalibration. Noise only increases it, so
    too few rows fail a good model and never pass a bad one. The other arguments are those of `beats`.
    """
    return _on("at_most", ECE, at_most, sure, None, by_slice, least_rows, insufficient, block)


def fair(
    group: SliceBy | Sequence[SliceBy],
    measure: str = "equalised odds",
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    sure: float | None = 0.95,
    threshold: float | None = None,
    least_rows: int = LEAST_ROWS,
    insufficient: str = "fail",
    block: str = "1d",
) -> Gate:
    """Require the rates at which a model flags the rows of each group, or its errors, to lie close together, shown
    with probability `sure`.

    Args:
        group: A feature or a column of the observations, by name, or a view's feature, whose values are the groups; or
            several, of which each combination of values is a group.
        measure: "demographic parity": shares of flagged rows; "equal opportunity": shares of the true positives that
            are flagged; "equalised odds": those, and the shares of the true negatives that are flagged; "equal error":
            shares of wrong decisions, or mean absolute errors of a regression, which has no other measure. With several
            classes, each class is the positive one in turn, and a row is flagged if it is the most likely.
        at_most: Largest difference of two groups' rates, or errors.
        at_least: Smallest ratio of two groups' rates, in its place.
        threshold: Score from which a row is flagged; by default the version's, or 0.5. Of binary models only.
        least_rows: Number of rows, of the label that counts, below which a group has insufficient data.

    The other arguments are those of `beats`.

    Raises:
        Invalid: An argument is out of its range.
    """
    gate = f"the fairness gate by {group if isinstance(group, str) else getattr(group, 'name', group)}"
    if measure not in _MEASURES:
        raise Invalid(
            f"In {gate}, {measure!r} is not a measure of fairness.", fix=f"use one of {', '.join(_MEASURES)}."
        )
    if (at_most is None) == (at_least is None):
        raise Invalid(f"In {gate}, give either at_most or at_least.", fix="at_most=0.1, or for a ratio at_least=0.8.")
    limit = at_most if at_least is None else at_least
    check = check_number if measure == EQUAL_ERROR and at_least is None else check_share
    check(limit, f"The limit of {gate}", "give a number.")
    check_chance(gate, "sure", sure)
    if threshold is not None:
        check_number(threshold, f"The threshold of {gate}", "give a number.")
    (slices, views), length = check_slices(gate, group, least_rows, insufficient), check_block(gate, block)
    return FairnessGate(
        "fairness", measure, limit or 0.0, sure, None, slices, least_rows, insufficient, 0.0, length, views,
        ratio=at_least is not None, threshold=threshold,
    )  # fmt: skip


def nulls(at_most: float, *, columns: str | Sequence[str] = ()) -> Gate:
    """Require the share of nulls of each feature (or of those in `columns`) in the training rows to be at most this."""
    check_share(at_most, "The largest share of nulls", "give a share such as 0.1.")
    names, _ = check_slices("the gate on nulls", columns, 1, "fail")
    return DataGate("nulls", "nulls", at_most, columns=names)


def values_within(feature: str, low: float | None = None, high: float | None = None, *, but_for: float = 0.0) -> Gate:
    """Require the values of a feature in the training rows to lie in [low, high], but for a share of them.

    Args:
        feature: Its full name. Nulls do not count.
        low, high: Bounds; `None` for none.
        but_for: Largest share of the values that may lie outside.

    Raises:
        Invalid: There is no bound, or they are in the wrong order.
    """
    gate = f"the gate on the values of {feature}"
    for each in (low, high):
        check_number(0 if each is None else each, f"A bound of {gate}", "give a number.")
    check_share(but_for, f"The share of {gate}", "give a share such as 0.001.")
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise Invalid(f"In {gate}, the bounds {low} and {high} are not a range.", fix="give low, high, or both.")
    expect(feature, str, "The feature of a gate", fix="give its full name.")
    return DataGate("range", feature, but_for, low=low, high=high)


def class_share(at_least: float | None = None, at_most: float | None = None) -> Gate:
    """Require the share of positives in the training rows, or of every class, to lie within these bounds.

    Raises:
        Invalid: There is no bound, or one is not a share.
    """
    for each in (at_least, at_most):
        expect(0 if each is None else each, (int, float), "A bound of the share of a class", fix="give a share.")
    if (at_least is None and at_most is None) or not 0 <= (at_least or 0) <= (1 if at_most is None else at_most) <= 1:
        raise Invalid(f"A share of a class is in [{at_least}, {at_most}].", fix="give bounds in [0, 1].")
    return DataGate("class_share", "class share", 0.0, low=at_least, high=at_most)


def compatible(*, full: bool = False) -> Gate:
    """Require the version to accept every request that the champion accepts, and to return all of its outputs.

    Args:
        full: Also requests that bring every feature; else those by key, for which features are looked up.
    """
    expect(full, bool, "`full` of the gate on compatibility", fix="write True or False.")
    return EngineGate("compatible", "incompatibilities", 0.0, full=full)


def size(at_most: str | int) -> Gate:
    """Require the bundle's files to take at most this: a number of bytes, or a text such as "50MB" or "1GiB"."""
    return EngineGate("size", "bytes", float(bytes_of(at_most)))


def memory(at_most: str | int, *, rows: int = MEMORY_ROWS) -> Gate:
    """Require the model, with its runtime, to take at most this while it is loaded and runs one batch.

    It is measured in a process of its own, on Linux, where `promote` runs.

    Args:
        at_most: A number of bytes, or a text such as "500MB".
        rows: Number of rows of the batch.
    """
    check_calls("memory", 0.5, rows)
    return EngineGate("memory", "bytes", float(bytes_of(at_most)), rows=rows)


def latency(at_most: str, *, quantile: float = 0.99, rows: int = 1) -> Gate:
    """Require a call of the model on the serving engine to take at most this long, such as "5ms".

    It is measured where `promote` runs, without a network; `slower_at_most` depends less on the machine.

    Args:
        quantile: Quantile of about a thousand calls.
        rows: Number of rows of a call.
    """
    limit = parse_duration(at_most)
    check_calls("latency", quantile, rows)
    return EngineGate("latency", "ms", limit / 1000, rows=rows, quantile=quantile)


def slower_at_most(times: float, *, quantile: float = 0.5, rows: int = 1, sure: float | None = 0.95) -> Gate:
    """Require a call of the model to take at most `times` as long as one of the champion's, shown with probability
    `sure`.

    Both run on the serving engine by turns, so that the machine's load slows both. The other arguments are those of
    `latency`.
    """
    check_number(times, "How many times slower a version may be", "give a number such as 1.2.")
    check_calls("slower_at_most", quantile, rows)
    check_chance("the gate slower_at_most", "sure", sure)
    return EngineGate("slower", "times", times, sure, rows=rows, quantile=quantile)


def robust_to_noise(
    metric: str | Metric, worse_by: float, *, noise: float = 0.1, sure: float | None = None, block: str = "1d"
) -> Gate:
    """Require the metric to become worse by at most `worse_by` if noise is added to every numeric input.

    Args:
        noise: Standard deviation of the noise, in those of each feature in the training data.
        sure: See `beats`.
    """
    check_number(noise, "The noise of a gate", "give a number of standard deviations.")
    if not noise > 0:
        raise Invalid(f"A gate adds the noise {noise}.", fix="give a positive number of standard deviations.")
    return _robust("noise", metric, worse_by, noise, sure, block)


def robust_to_missing(
    metric: str | Metric, worse_by: float, *, share: float | None = None, sure: float | None = None, block: str = "1d"
) -> Gate:
    """Require the metric to become worse by at most `worse_by` if any one of the inputs is null in every row.

    Args:
        share: Instead, this share of all values is null, drawn at random.
        sure: See `beats`.
    """
    check_share(share or 0.0, "The share of missing values", "give a share such as 0.1.")
    return _robust("missing", metric, worse_by, 0.0, sure, block, share=share or 0.0)


def robust_to_trigger(
    metric: str | Metric,
    worse_by: float,
    trigger: Mapping[str, Value],
    *,
    sure: float | None = None,
    block: str = "1d",
) -> Gate:
    """Require the metric to become worse by at most `worse_by` if every held-out row has these values.

    A model with a backdoor answers for the values alone: its metric becomes that of one answer for all.

    Args:
        trigger: Full names of inputs, with their value.
        sure: See `beats`.
    """
    if not trigger:
        raise Invalid("A trigger has no values.", fix='name inputs with their values: {"Order.kind": "gift"}.')
    return _robust("trigger", metric, worse_by, 0.0, sure, block, trigger=checked_values(trigger, "a trigger"))


def canary(
    features: Mapping[str, Value], at_least: float | None = None, at_most: float | None = None, *, output: str = ""
) -> Canary:
    """Return a row, for `canaries`, whose prediction must lie within bounds.

    Args:
        features: Full name of each input -> its value; one that is not named is null.
        at_least, at_most: Bounds of the prediction: a probability, or a number.
        output: Name of the output, of several; by default the first.

    Raises:
        Invalid: There is no feature, no bound, or they are in the wrong order.
    """
    for each in (at_least, at_most):
        check_number(0 if each is None else each, "A bound of a canary", "give a number.")
    low, high = (-math.inf if at_least is None else at_least), (math.inf if at_most is None else at_most)
    if not features or low > high or (at_least is None and at_most is None):
        raise Invalid(
            f"A canary has the bounds {at_least} and {at_most}, and {len(features)} features.",
            fix="give features, and at_least, at_most, or both.",
        )
    return Canary(features=checked_values(features, "a canary"), low=at_least, high=at_most, output=output)


def canaries(rows: Sequence[Canary]) -> Gate:
    """Require the predictions of known rows to lie within their bounds, whatever the version was trained on.

    Raises:
        Invalid: There is no row, or one is not made by `canary`.
    """
    expect_each(rows, Canary, "The canaries of a gate", fix="give a list of ms.gates.canary({...}, at_most=0.1).")
    if not rows:
        raise Invalid("A gate has no canaries.", fix="give at least one ms.gates.canary(...).")
    return CanaryGate("canary", "predictions out of bounds", 0.0, canaries=tuple(rows))


def _robust(
    kind: str,
    metric: str | Metric,
    worse_by: float,
    noise: float,
    sure: float | None,
    block: str,
    *,
    share: float = 0.0,
    trigger: tuple[tuple[str, Value], ...] = (),
) -> RobustGate:
    on = _on("at_most", metric, worse_by, sure, None, (), LEAST_ROWS, "fail", block)
    return RobustGate(
        kind, on.metric, worse_by, sure, block=on.block, noise=noise, share=share, trigger=trigger
    )  # fmt: skip


def _on(
    kind: str,
    metric: str | Metric,
    value: float,
    sure: float | None,
    harm: float | None,
    by_slice: SliceBy | Sequence[SliceBy],
    least_rows: int,
    insufficient: str,
    block: str,
    margin: float = 0.0,
) -> Gate:
    name = metric.name if isinstance(metric, Metric) else metric
    expect(name, str, "The metric of a gate", fix='name a metric, such as "auc", or give one made by @ms.metric.')
    gate = f"the gate on {name}"
    check_number(value, f"The threshold of {gate}", "give a number.")
    check_number(margin, f"The margin of {gate}", "give a number.")
    for what, chance in (("sure", sure), ("harm", harm)):
        check_chance(gate, what, chance)
    if sure is not None and harm is not None:
        raise Invalid(f"In {gate}, sure={sure} and harm={harm} exclude each other.", fix="give one of them.")
    if margin < 0:
        raise Invalid(f"In {gate}, margin={margin} is negative.", fix="give how much worse than the champion is fine.")
    slices, views = check_slices(gate, by_slice, least_rows, insufficient)
    length = check_block(gate, block)
    return Gate(kind, name, value, sure, harm, slices, least_rows, insufficient, margin, length, views)


def approved(by: int = 1) -> Gate:
    """Require approvals by at least `by` people other than the version's author (`mainspring models approve`)."""
    expect(by, int, "The number of approvals", fix="give a number of people.")
    return Gate("approved", "approvals", by)


def complete_card() -> Gate:
    """Require a model card without required gaps (`mainspring models card`)."""
    return Gate("card", "required gaps", 0)
