"""Gates: conditions that a version must meet to go live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.time import parse_duration
from mainspring.stats.metrics import ECE, Metric

__all__ = ["approved", "at_least", "at_most", "beats", "complete_card"]

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

    @property
    def on_metric(self) -> bool:
        """True if a metric on the held-out rows decides the gate."""
        return self.kind in ("beats", "at_most", "at_least")

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


def beats(
    metric: str | Metric,
    by: float = 0.0,
    *,
    sure: float | None = None,
    harm: float | None = None,
    margin: float = 0.0,
    by_slice: str | Sequence[str] = (),
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
        by_slice: Features or columns of the observations. Every value of each is a slice; the worst one decides.
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
    by_slice: str | Sequence[str] = (),
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
    by_slice: str | Sequence[str] = (),
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
    by_slice: str | Sequence[str] = (),
    least_rows: int = 1000,
    insufficient: str = "fail",
    block: str = "1d",
) -> Gate:
    """Require the expected calibration error (the metric `ece`) to be at most this, shown with probability `sure`.

    The error is in the unit of a probability, and it sees every shape of miscalibration. Noise only increases it, so
    too few rows fail a good model and never pass a bad one. The other arguments are those of `beats`.
    """
    return _on("at_most", ECE, at_most, sure, None, by_slice, least_rows, insufficient, block)


def _on(
    kind: str,
    metric: str | Metric,
    value: float,
    sure: float | None,
    harm: float | None,
    by_slice: str | Sequence[str],
    least_rows: int,
    insufficient: str,
    block: str,
    margin: float = 0.0,
) -> Gate:
    name = metric.name if isinstance(metric, Metric) else metric
    expect(name, str, "The metric of a gate", fix='name a metric, such as "auc", or give one made by @ms.metric.')
    gate = f"the gate on {name}"
    expect(value, (int, float), f"The threshold of {gate}", fix="give a number.")
    expect(margin, (int, float), f"The margin of {gate}", fix="give a number.")
    for what, chance in (("sure", sure), ("harm", harm)):
        _check_chance(gate, what, chance)
    if sure is not None and harm is not None:
        raise Invalid(f"In {gate}, sure={sure} and harm={harm} exclude each other.", fix="give one of them.")
    if margin < 0:
        raise Invalid(f"In {gate}, margin={margin} is negative.", fix="give how much worse than the champion is fine.")
    slices = check_slices(gate, by_slice, least_rows, insufficient)
    length = check_block(gate, block)
    return Gate(kind, name, value, sure, harm, slices, least_rows, insufficient, margin, length)


def _check_chance(gate: str, what: str, chance: Any) -> None:
    if chance is None:
        return
    expect(chance, (int, float), f"`{what}` of {gate}", fix="give a probability such as 0.95.")
    if not 0.5 < chance < 1:
        raise Invalid(f"In {gate}, {what}={chance} is not a probability in (0.5, 1).", fix="write 0.95.")


def check_slices(gate: str, by_slice: Any, least_rows: Any, insufficient: Any) -> tuple[str, ...]:
    """Return the columns of slices.

    Raises:
        Invalid: They are no names, or `least_rows` or `insufficient` is out of its range.
    """
    given = (by_slice,) if isinstance(by_slice, str) else by_slice
    expect(given, (list, tuple), f"The slices of {gate}", fix='name a column, or several: by_slice=["carrier"].')
    for each in given:
        expect(each, str, f"A slice of {gate}", fix="name a feature or a column of the observations.")
    expect(least_rows, int, f"`least_rows` of {gate}", fix="give a number of rows.")
    if least_rows < 1:
        raise Invalid(f"In {gate}, least_rows={least_rows} is no number of rows.", fix="write 200.")
    if insufficient not in ("fail", "pass"):
        raise Invalid(f"In {gate}, insufficient={insufficient!r} is unknown.", fix='write "fail" or "pass".')
    return tuple(dict.fromkeys(given))


def check_block(gate: str, block: str) -> int:
    """Return the duration of a gate's blocks of time, in microseconds.

    Raises:
        Invalid: It is not a duration, or zero.
    """
    length = parse_duration(block)
    if not length:
        raise Invalid(f"In {gate}, block={block!r} is empty.", fix='write a duration, such as "1d".')
    return length


def approved(by: int = 1) -> Gate:
    """Require approvals by at least `by` people other than the version's author (`mainspring models approve`)."""
    expect(by, int, "The number of approvals", fix="give a number of people.")
    return Gate("approved", "approvals", by)


def complete_card() -> Gate:
    """Require a model card without required gaps (`mainspring models card`)."""
    return Gate("card", "required gaps", 0)
