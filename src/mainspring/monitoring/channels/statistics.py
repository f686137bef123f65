"""Statistics of windows, by column, with the errors that sampling alone gives them.

Shares are taken as 2 asin(sqrt(share)), whose sampling error is 1 / sqrt(rows) for each share.

A relation is how far a column follows from the others: the variance of its rank that is left by a linear prediction
from the other columns' ranks, or from those of other views. The prediction is learnt from the training windows once. It
needs no more than the windows' rank products, and is steadier than correlations: a day with little weather has weaker
correlations, but the same relations.

The separation is how well a linear classifier tells the window's rows from training's: the distance of their mean ranks
in deviations along the best direction (Fisher's discriminant). It too needs the products alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainspring.monitoring.channels.windows import Bools, Floats, Windows
from mainspring.stats.sketches import COUNTS

FEWEST = 20  # values for a statistic of values
NULLS, UNSEEN, COMMONEST, MEAN, SPREAD, VARIETY = "nulls", "unseen", "commonest", "mean", "spread", "variety"
SHAPE, REPEAT, ROWS, RELATION, OUTSIDE = "shape", "repeated", "rows", "relation", "relation to other views"
BY_COLUMN = (NULLS, UNSEEN, COMMONEST, MEAN, SPREAD, VARIETY)
SEPARATION = "separation"
RELATIONS = (RELATION, OUTSIDE)
_RIDGE = 0.01  # of the predictions, as a share of a rank's variance of 1/3 it is 3%
_LEAST_VARIANCE = 1e-4
_ROWS_ERROR = 0.03  # of the log of the number of rows


@dataclass(frozen=True, eq=False, slots=True)
class Measures:
    """Statistics of windows; NaN where a window has too few rows.

    Attributes:
        columns: Column of each item; empty for the number of rows.
        statistics: Name of each item's statistic.
        values: Shape (windows, items).
        errors: Sampling errors, of the same shape.
        shares: Transformed shares of the bins, shape (windows, columns, WIDTH).
    """

    columns: tuple[str, ...]
    statistics: tuple[str, ...]
    values: Floats
    errors: Floats
    shares: Floats


def measure(windows: Windows, ranks: Floats, outputs: frozenset[str] = frozenset()) -> Measures:
    """Return the statistics of windows.

    Args:
        ranks: Rank of each bin, shape (columns, WIDTH), as of `Ruler.ranks`.
        outputs: Columns that are the model's outputs; relations are those of the features alone.
    """
    values, errors = zip(*_by_column(windows), strict=True)
    left, separation = _joint(windows, ranks, outputs)
    n = np.maximum(windows.rows, 1.0)[:, None]
    traffic = windows.traffic[:, None]
    number = np.where(traffic > 0, np.log(np.maximum(traffic, 1.0)), np.nan)
    columns, error = windows.columns, 0.7 / np.sqrt(n)
    by_relation = [np.repeat(error, len(columns), axis=1) for _ in RELATIONS]
    return Measures(
        (*columns * len(BY_COLUMN), *columns * len(RELATIONS), "", ""),
        (*(name for name in (*BY_COLUMN, *RELATIONS) for _ in columns), ROWS, SEPARATION),
        np.concatenate([*values, *left, number, separation], axis=1),
        np.concatenate([*errors, *by_relation, np.full_like(n, _ROWS_ERROR), error], axis=1),
        _bin_shares(windows),
    )


def transformed(part: Floats, whole: Floats) -> Floats:
    """Return 2 asin(sqrt(part / whole)); 0 where the whole is 0."""
    shares: Floats = 2.0 * np.arcsin(np.sqrt(np.clip(part / np.maximum(whole, 1.0), 0.0, 1.0)))
    return shares


def share(value: float) -> float:
    """Return the share whose transformed value this is."""
    return float(np.sin(np.clip(value, 0.0, np.pi) / 2.0) ** 2)


def missing(counts: Floats) -> Floats:
    """Return the number of nulls, NaN and values of a wrong type."""
    return np.asarray(sum(counts[..., COUNTS.index(name)] for name in ("nulls", "nans", "type_errors")))


def _by_column(windows: Windows) -> list[tuple[Floats, Floats]]:
    """Return value and error, each of shape (windows, columns), in the order of `BY_COLUMN`."""
    counts, rows = windows.counts, windows.counts[:, :, 0]
    present = windows.bins.sum(axis=2)
    n = np.maximum(present, 1.0)
    first, second, third, fourth = np.moveaxis(windows.sums / n[:, :, None], 2, 0)
    variance = np.maximum(second - first**2, 0.0)
    central = fourth - 4.0 * first * third + 6.0 * first**2 * second - 3.0 * first**4
    kurtosis = np.clip(central / np.maximum(variance, 1e-6) ** 2, 1.0, 30.0)
    entropy = np.log(n) - (windows.bins * _log_counts(windows.bins)).sum(axis=2) / n
    error = 1.0 / np.sqrt(n)
    found = [
        (transformed(missing(counts), rows), 1.0 / np.sqrt(np.maximum(rows, 1.0))),
        (transformed(counts[:, :, COUNTS.index("unseen")], present), error),
        (transformed(counts[:, :, COUNTS.index("commonest")], present), error),
        (first, np.sqrt((variance + 0.02) / n)),
        (0.5 * np.log(variance + _LEAST_VARIANCE), np.sqrt((kurtosis - 0.5) / (4.0 * n))),
        (entropy, 0.7 * error + 2.0 / n),
    ]
    few: Bools = present < FEWEST
    none: Bools = rows == 0
    return [(np.where(none if place == 0 else few, np.nan, value), e) for place, (value, e) in enumerate(found)]


def _log_counts(counts: Floats) -> Floats:
    """Return what stands for the logarithms of counts in an entropy, so that it is not smaller with fewer rows.

    Grassberger, Entropy estimates from insufficient samplings, arXiv physics/0307138, equation 35.
    """
    place = np.minimum(counts, _SMALL - 1).astype(np.intp)
    found: Floats = np.where(counts < _SMALL, _OF_SMALL[place], np.log(np.maximum(counts, 1.0)))
    return found


def _of_small() -> Floats:
    odd = np.arange(_SMALL // 2)  # 2 of each: G(1) = -gamma - log 2, G(2n) = G(2n - 1) + 2 / (2n - 1)
    even = -np.euler_gamma - np.log(2.0) + np.cumsum(2.0 / (2.0 * odd + 1.0))
    found = np.zeros(_SMALL)
    found[2::2], found[1] = even[: _SMALL // 2 - 1], -np.euler_gamma - np.log(2.0)
    found[3::2] = found[2:-1:2]
    return found


_SMALL = 256  # counts, from which on the logarithm itself is within .004
_OF_SMALL = _of_small()


def _bin_shares(windows: Windows) -> Floats:
    present = windows.bins.sum(axis=2, keepdims=True)
    return np.where(present < FEWEST, np.nan, transformed(windows.bins, present))


def _joint(windows: Windows, ranks: Floats, outputs: frozenset[str]) -> tuple[list[Floats], Floats]:
    """Return by kind the log deviations that predictions leave, (windows, columns), and separations, (windows, 1)."""
    rows, size = np.maximum(windows.rows, 1.0), len(windows.columns)
    nothing = [np.full((len(windows), size), np.nan) for _ in RELATIONS], np.full((len(windows), 1), np.nan)
    places = np.array([windows.columns.index(column) for column in windows.paired], np.intp)
    ranks, bins = ranks[places], windows.bins[:, places]
    means = (bins * ranks).sum(axis=2) / rows[:, None]
    covariances = windows.products / rows[:, None, None] - means[:, :, None] * means[:, None, :]
    known = windows.products.any(axis=(1, 2)) & (windows.rows >= FEWEST)
    learn = known & windows.training & windows.usual
    learn = learn if learn.any() else known & windows.usual
    if not learn.any():
        return nothing
    whole = windows.rows[learn].sum()
    mean = (bins[learn].sum(axis=0) * ranks).sum(axis=1) / whole
    covariance = windows.products[learn].sum(axis=0) / whole - np.outer(mean, mean)
    views = np.array([_view(column) for column in windows.paired])
    left, separation = nothing
    feature = np.array([column not in outputs for column in windows.paired])
    alone = np.eye(len(views), dtype=bool)
    for kind, others in enumerate((~alone & feature, (views[:, None] != views[None, :]) & feature)):
        errors = np.eye(len(views))
        for place in range(len(views)):
            by = np.flatnonzero(others[place])
            if by.size:
                errors[place, by] = -_solved(covariance, by, place)
        variance = np.einsum("ij,wjk,ik->wi", errors, covariances, errors, optimize=True)
        logs = 0.5 * np.log(np.maximum(variance, 0.0) + _LEAST_VARIANCE)
        logs[~known] = np.nan
        logs[:, ~feature] = np.nan
        left[kind][:, places] = logs
    drawn = (means - mean)[:, feature]
    shared = covariance[np.ix_(feature, feature)] + _RIDGE * np.eye(int(feature.sum()))
    separation[known, 0] = np.sqrt((drawn * np.linalg.solve(shared, drawn.T).T).sum(axis=1))[known]
    return left, separation


def _solved(covariance: Floats, by: np.ndarray[tuple[int], np.dtype[np.intp]], of: int) -> Floats:
    return np.linalg.solve(covariance[np.ix_(by, by)] + _RIDGE * np.eye(by.size), covariance[by, of])


def _view(column: str) -> str:
    """Return the view of a feature by its full name, such as `Weather` of `Weather.temp`."""
    return column.partition(".")[0]
