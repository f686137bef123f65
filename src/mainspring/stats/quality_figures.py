"""Metrics of labelled predictions, with intervals, from their additive sums.

Metrics that are means of a loss are exact. The AUC counts pairs within one of 64 bins by both classes' mean scores,
as if the density of each class were linear in the bin. It errs by at most the share of these pairs,
`auc_resolution`; usually by less than a thousandth.

Shapes as in `stats.quality_sums`: totals (..., len(TOTALS)) and bins (..., 64, 6), with any leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np

from mainspring.stats.distributions import student_quantile
from mainspring.stats.jackknife import FEWEST_BLOCKS, effective_blocks, standard_errors
from mainspring.stats.quality_sums import BINS, EDGES, PLACE, Floats, Ints, Sums

CONFIDENCE = 0.95
_CALIBRATION_GROUPS = 10
_ROWS_A_GROUP = 50
_WIDTHS = np.diff(np.r_[0.0, EDGES, 1.0])  # of the bins, in probability


class Figure(msgspec.Struct, frozen=True):
    """Value of a metric with an interval; `low` and `high` are null where there are too few rows for one."""

    value: float
    low: float | None
    high: float | None
    rows: int


def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _at(totals: Floats, name: str) -> Floats:
    return np.asarray(totals[..., PLACE[name]])


def _over(above: Any, below: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1.0), math.nan))


def auc(bins: Floats) -> Floats:
    """Return the area under the ROC curve."""
    positive, negative = bins[..., 1], bins[..., 0] - bins[..., 1]
    below = np.cumsum(negative, axis=-1) - negative
    apart = _over(bins[..., 3], positive) - _over(bins[..., 2] - bins[..., 3], negative)
    inside = np.clip(0.5 + np.nan_to_num(apart) / _WIDTHS, 0.0, 1.0)
    won = (positive * (below + negative * inside)).sum(axis=-1)
    return _over(won, positive.sum(axis=-1) * negative.sum(axis=-1))


def auc_resolution(bins: Floats) -> Floats:
    """Return the largest possible error of `auc` against the rows: the share of pairs within a bin."""
    positive, negative = bins[..., 1], bins[..., 0] - bins[..., 1]
    return _over((positive * negative).sum(axis=-1), positive.sum(axis=-1) * negative.sum(axis=-1))


def auc_error(bins: Floats) -> float:
    """Return the standard error of `auc` if rows are independent; NaN with fewer than two rows of a class.

    Args:
        bins: Shape (64, 6).
    """
    # DeLong, DeLong and Clarke-Pearson (1988), with rows of one bin tied.
    positive, negative = bins[:, 1], bins[:, 0] - bins[:, 1]
    positives, negatives = positive.sum(), negative.sum()
    if positives < 2 or negatives < 2:
        return math.nan
    area = float(auc(bins))
    beaten = (np.cumsum(negative) - negative / 2) / negatives
    beating = (positives - np.cumsum(positive) + positive / 2) / positives
    above = (positive * (beaten - area) ** 2).sum() / (positives - 1) / positives
    below = (negative * (beating - area) ** 2).sum() / (negatives - 1) / negatives
    return math.sqrt(above + below)


def calibration_groups(bins: Floats) -> Ints:
    """Return the first bins of up to ten groups of adjacent bins with about equally many rows; shape (groups,).

    Args:
        bins: Shape (64, 6).
    """
    rows = np.cumsum(bins[:, 0])
    groups = int(max(1, min(_CALIBRATION_GROUPS, rows[-1] // _ROWS_A_GROUP)))
    ends = np.searchsorted(rows, rows[-1] * np.arange(1, groups) / groups, side="left") + 1
    return np.unique(np.r_[0, ends[ends < BINS]]).astype(np.int64)


def calibration_curve(bins: Floats) -> list[dict[str, float]]:
    """Return the mean score, the share of positives with an interval (Wilson) and the number of rows by group.

    Args:
        bins: Shape (64, 6).
    """
    found = []
    for rows, positives, scores, *_ in np.add.reduceat(bins, calibration_groups(bins), axis=0).tolist():
        if rows:
            low, high = share_interval(positives, rows)
            found.append(
                {"score": scores / rows, "positives": positives / rows, "low": low, "high": high, "rows": rows}
            )
    return found


def _ece(bins: Floats, groups: Ints) -> Floats:
    parts = np.add.reduceat(bins, groups, axis=-2)
    return _over(np.abs(parts[..., 2] - parts[..., 1]).sum(axis=-1), parts[..., 0].sum(axis=-1))


def share_interval(hits: float, rows: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of a share (Wilson, 1927)."""
    if rows <= 0:
        return 0.0, 1.0
    z, share = _normal_quantile((1 + confidence) / 2), hits / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric of sums. `error` is its standard error if rows are independent."""

    value: Callable[[Floats, Floats], Floats]
    error: Callable[[Floats, Floats], float]
    rows: str = "scored"  # the total that says of how many
    share: tuple[str, str] | None = None  # of two counts: the interval is Wilson's
    within_one: bool = True


def _mean(name: str, rows: str = "scored", squares: str = "", *, within_one: bool = True) -> _Metric:
    squares = squares or f"{name}2"

    def value(totals: Floats, _: Floats) -> Floats:
        return _over(_at(totals, name), _at(totals, rows))

    def error(totals: Floats, _: Floats) -> float:
        number = float(_at(totals, rows))
        return _spread(float(_at(totals, name)), float(_at(totals, squares)), number)

    return _Metric(value, error, rows, within_one=within_one)


def _spread(total: float, squares: float, number: float) -> float:
    if number < 2:
        return math.nan
    return math.sqrt(max(squares / number - (total / number) ** 2, 0.0) / (number - 1))


def _share(hits: str, rows: str) -> _Metric:
    def value(totals: Floats, _: Floats) -> Floats:
        return _over(_at(totals, hits), _at(totals, rows))

    return _Metric(value, lambda *_: math.nan, rows, share=(hits, rows))


def _rmse(totals: Floats, _: Floats) -> Floats:
    return np.sqrt(_over(_at(totals, "squared"), _at(totals, "scored")))


def _rmse_error(totals: Floats, bins: Floats) -> float:
    value = float(_rmse(totals, bins))
    error = _spread(*(float(_at(totals, name)) for name in ("squared", "squared2", "scored")))
    return error / (2 * value) if value else 0.0


def _relative(totals: Floats, _: Floats) -> Floats:
    return _over(_at(totals, "absolute"), _at(totals, "naive"))


def _relative_error(totals: Floats, _: Floats) -> float:
    # Of the mean error alone, the naive forecast's taken as given: the scale of the ratio.
    error = _spread(*(float(_at(totals, name)) for name in ("absolute", "error2", "scored")))
    return error * float(_at(totals, "scored")) / float(_at(totals, "naive"))


_BINARY: Mapping[str, _Metric] = {
    "auc": _Metric(lambda _, bins: auc(bins), lambda _, bins: auc_error(bins)),
    "brier": _mean("squared"),
    "log_loss": _mean("log_loss", within_one=False),
    "accuracy": _share("correct", "scored"),
    "bias": _mean("error", within_one=False),
}
_DECISIONS: Mapping[str, _Metric] = {"precision": _share("hits", "flagged"), "recall": _share("hits", "label")}
_CLASSES: Mapping[str, _Metric] = {
    "accuracy": _share("correct", "scored"),
    "log_loss": _mean("log_loss", within_one=False),
    "brier": _mean("squared", within_one=False),
    "bias": _mean("error", within_one=False),
}
_NUMBERS: Mapping[str, _Metric] = {
    "mae": _mean("absolute", squares="error2", within_one=False),
    "rmse": _Metric(_rmse, _rmse_error, within_one=False),
    "bias": _mean("error", within_one=False),
}
_RANKINGS: Mapping[str, _Metric] = {"ndcg": _mean("ndcg", "groups"), "map": _mean("precision", "groups")}


def figures(task: str, blocks: Sequence[Sums], confidence: float = CONFIDENCE) -> dict[str, Figure]:
    """Return each metric of the task with its interval; metrics that are undefined are left out.

    With at least five blocks of time the interval is a jackknife over blocks, since rows of one time are alike; else it
    takes rows as independent. Decisions, rankings and forecasts have figures where the sums have them.

    Args:
        blocks: Sums of periods, such as days; their order does not matter.
    """
    if not blocks:
        return {}
    totals, bins = (np.stack([getattr(each, name) for each in blocks]) for name in ("totals", "bins"))
    total, cells = totals.sum(axis=0), bins.sum(axis=0)
    found = {}
    for name, metric in _wanted(task, total, cells).items():
        value = float(metric.value(total, cells))
        if math.isfinite(value):
            low, high = _interval(metric, total, cells, totals, bins, confidence)
            found[name] = Figure(value, low, high, int(_at(total, metric.rows)))
    return found


def _wanted(task: str, total: Floats, cells: Floats) -> dict[str, _Metric]:
    wanted = dict({"regression": _NUMBERS, "multiclass": _CLASSES}.get(task, _BINARY))
    if task != "regression" and cells[:, 0].any():
        groups = calibration_groups(cells)

        def error(_: Floats, bins: Floats) -> float:
            parts = np.add.reduceat(bins, groups, axis=0)
            rows, positives = parts[:, 0], parts[:, 1]
            return float(np.sqrt((positives * (1 - _over(positives, rows))).sum()) / rows.sum())

        wanted["ece"] = _Metric(lambda _, bins: _ece(bins, groups), error)
    if _at(total, "flagged"):
        wanted |= _DECISIONS
    if _at(total, "groups"):
        wanted |= _RANKINGS
    if _at(total, "naive"):
        wanted["mase"] = _Metric(_relative, _relative_error, within_one=False)
    if _at(total, "pinball"):
        wanted["quantile_loss"] = _mean("pinball", within_one=False)
    return wanted


def _interval(
    metric: _Metric, total: Floats, cells: Floats, totals: Floats, bins: Floats, confidence: float
) -> tuple[float | None, float | None]:
    value, sizes = float(metric.value(total, cells)), _at(totals, metric.rows)
    blocks = int(effective_blocks(sizes))
    if blocks >= FEWEST_BLOCKS:
        without = metric.value(total - totals, cells - bins)
        if np.isfinite(without).all():
            half = student_quantile((1 + confidence) / 2, blocks - 1) * float(
                standard_errors(np.r_[value, without], sizes)
            )
            if half or metric.share is None:
                return _within(metric, value - half, value + half)
    if metric.share is not None:
        hits, rows = (float(_at(total, name)) for name in metric.share)
        return share_interval(hits, rows, confidence)
    error = metric.error(total, cells)
    if not math.isfinite(error):
        return None, None
    half = _normal_quantile((1 + confidence) / 2) * error
    return _within(metric, value - half, value + half)


def _within(metric: _Metric, low: float, high: float) -> tuple[float, float]:
    return (max(low, 0.0), min(high, 1.0)) if metric.within_one else (low, high)
