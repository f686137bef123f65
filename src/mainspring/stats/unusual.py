"""How unlike the training rows a row of features is: two scores, and which scores are rare among rows like these.

A score is minus twice the logarithm of a share of the training rows. The one is of the rarest value by itself: a text,
a null, another value of a number that was constant, or a number beyond all before, whose share falls exponentially
with the mean excess of the farthest ones. The other is of the numbers together: of their squared Mahalanobis distance,
after each is mapped to a normal distribution by its ranks, and with a covariance shrunk towards a multiple of the
identity (OAS: Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Processing 58, 2010).

Whether a score is rare is decided by rows that were not trained on, as a split conformal p-value (Bates, Candès, Lei,
Romano and Sesia, Annals of Statistics 51, 2023), of each score for its part of a given share: among rows that are
exchangeable with those, at most this share is taken for unusual, whatever the scores are like. Better ones only find
more of the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.stats.text_hash import text_hash

MOST_NUMBERS = 256  # numeric columns; their covariance is a square of so many
MOST_CATEGORIES = 10_000  # of a text column, whose shares are kept
MOST_KEPT = 4096  # highest of each score of the calibration rows
MOST_ROWS = 200_000  # that the score is fitted on, and is calibrated by
_KNOTS = 64  # of the map of a column
_FARTHEST = 1e6  # times as far as the farthest training value; values beyond count as this far
_FAR = 0.02  # of the training values are the farthest on each side
_LARGEST = 1e300  # beyond which knots would overflow
_TAIL = 24  # ranks of distances, each twice the one before

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]


class Texts(msgspec.Struct, frozen=True):
    """Costs of the categories of a text column: `hashes` (ascending, 32 bits) and `costs` of float32, little-endian."""

    hashes: bytes
    costs: bytes
    unseen: float


class Numbers(msgspec.Struct, frozen=True):
    """The numeric columns that were not constant. Arrays are little-endian.

    Attributes:
        names: In the order of the arrays.
        knots: Ascending values of each, float64, shape (columns, 64); a column with fewer repeats its last.
        scores: Normal scores of their ranks, float64, of the same shape.
        medians: Of each.
        excess: Of each, how far its farthest values lie on average beyond the others, below and above.
        inverse: Of the shrunk covariance of the normal scores, float32, shape (columns, columns).
        distances: Descending squared distances of training rows, at the ranks 1, 2, 4, ...
        rows: Number of training rows.
    """

    names: tuple[str, ...]
    knots: bytes
    scores: bytes
    medians: tuple[float, ...]
    excess: tuple[tuple[float, float], ...]
    inverse: bytes
    distances: tuple[float, ...]
    rows: int


class Scoring(msgspec.Struct, frozen=True):
    """Fitted scores with their calibration. Columns that are neither number, Boolean nor text are left out.

    Attributes:
        numbers: `None` if no numeric column had two values.
        constants: Numeric column that was constant -> its value, `None` if it was always null.
        texts: Text column -> costs of its categories.
        nulls: Column -> cost of a null or NaN.
        strange: Cost of what never occurred.
        highest: The highest scores of the calibration rows, alone and together: descending, float64, little-endian.
        rows: Number of calibration rows.
    """

    numbers: Numbers | None
    constants: dict[str, float | None]
    texts: dict[str, Texts]
    nulls: dict[str, float]
    strange: float
    highest: tuple[bytes, bytes] = (b"", b"")
    rows: int = 0


def fit(columns: Columns) -> Scoring | None:
    """Return the score of rows like those of a table; `None` if it has no rows, no such columns, or too many.

    Args:
        columns: Name -> shape (rows,): numbers, Booleans or texts; None is null.
    """
    rows = len(next(iter(columns.values()), ()))
    numbers, texts, nulls = list[str](), dict[str, Texts](), dict[str, float]()
    constants = dict[str, float | None]()
    for name, values in columns.items() if rows else ():
        plain = values.tolist() if isinstance(values, np.ndarray) else values
        present = [each for each in plain if each is not None and not (type(each) is float and math.isnan(each))]
        kinds = set(map(type, present))
        if kinds == {str}:
            texts[name] = _texts(present, rows)
        elif not kinds <= {int, float, bool}:
            continue
        elif len(finite := {float(each) for each in present if math.isfinite(each)}) < 2:
            constants[name] = next(iter(finite), None)
        else:
            numbers.append(name)
        nulls[name] = _cost(len(plain) - len(present), rows)
    if not nulls or len(numbers) > MOST_NUMBERS:
        return None
    return Scoring(_numbers(columns, numbers, rows), constants, texts, nulls, _cost(0, rows))


def calibrated(scoring: Scoring, columns: Columns) -> Scoring:
    """Return the score, calibrated by rows that it was not fitted on."""
    rows = len(next(iter(columns.values()), ()))
    if not rows:
        return scoring
    alone, together = (
        np.sort(each)[::-1][:MOST_KEPT].astype("<f8").tobytes() for each in Detector(scoring).scores(columns, rows)
    )
    return msgspec.structs.replace(scoring, highest=(alone, together), rows=rows)


class Detector:
    """Finds the rows whose score is rare.

    Args:
        share: The largest share of rows like those of the calibration that may be found. Below `least_share` none is.
    """

    def __init__(self, scoring: Scoring, share: float = 0.001) -> None:
        self._scoring = scoring
        self._joint = None if scoring.numbers is None else _Joint(scoring.numbers)
        self._texts = {
            name: (
                dict(zip(_array(each.hashes, "<u4").tolist(), _array(each.costs, "<f4").tolist(), strict=True)),
                each,
            )
            for name, each in scoring.texts.items()
        }
        place = min(math.floor(share / 2 * (scoring.rows + 1) + 1e-9), MOST_KEPT)  # a half for each score
        self._alone, self._together = (
            _array(each, "<f8")[place - 1] if each and place else math.inf for each in scoring.highest
        )

    def scores(self, columns: Columns, rows: int) -> tuple[Floats, Floats]:
        """Return the scores of each row: of its rarest value, and of its numbers together; each of shape (rows,)."""
        costs, together = self._costs(columns, rows)
        return np.max([np.zeros(rows), *costs.values()], axis=0), together

    def unusual(self, columns: Columns, rows: int) -> dict[int, str]:
        """Return the unusual rows, each with the column that makes it so; of several, the one that does most."""
        costs, together = self._costs(columns, rows)
        alone = np.max([np.zeros(rows), *costs.values()], axis=0)
        single = np.flatnonzero(alone > self._alone).tolist()
        found = {row: next(name for name, each in costs.items() if each[row] == alone[row]) for row in single}
        several = np.flatnonzero((together > self._together) & (alone <= self._alone))
        if several.size and self._joint is not None:
            found |= zip(several.tolist(), self._joint.foremost(columns, rows, several), strict=True)
        return found

    def _costs(self, columns: Columns, rows: int) -> tuple[dict[str, Floats], Floats]:
        """Return columns with the costs of their values, where any has one, and the costs of the numbers together."""
        found = dict[str, Floats]()
        scoring = self._scoring
        for name, (known, of) in self._texts.items():
            null, unseen = scoring.nulls[name], of.unseen
            costs = [known.get(text_hash(each), unseen) if type(each) is str else null for each in columns[name]]
            found[name] = np.array(costs)
        for name, value in scoring.constants.items():
            values = _floats(columns[name])
            found[name] = np.where(np.isnan(values), scoring.nulls[name], (values != value) * scoring.strange)
        if self._joint is None:
            return found, np.zeros(rows)
        alone, together = self._joint.costs(self._joint.table(columns, rows), scoring.nulls)
        found.update(
            (self._joint.names[place], alone[:, place]) for place in np.flatnonzero(alone.any(axis=0)).tolist()
        )
        return found, together


class _Joint:
    """The numbers of a row together."""

    def __init__(self, numbers: Numbers) -> None:
        self.names = numbers.names
        size = len(self.names)
        knots, scores = (_array(each, "<f8").reshape(size, -1) for each in (numbers.knots, numbers.scores))
        self._low, self._high = knots[:, 0], knots[:, -1]
        self._below, self._above = np.array(numbers.excess).T
        self._beyond = 2 * math.log(numbers.rows)
        self._maps = [_extended(*each) for each in zip(knots, scores, numbers.medians, strict=True)]
        self._inverse = _array(numbers.inverse, "<f4").reshape(size, size).astype(np.float64)
        distances = np.array(numbers.distances)[::-1]
        ranks = 2.0 ** np.arange(len(distances))[::-1]
        self._distances, self._costs = distances, -2 * np.log((ranks + 1) / (numbers.rows + 1))

    def table(self, columns: Columns, rows: int) -> Floats:
        """Return the numbers, shape (rows, columns)."""
        found = np.empty((len(self.names), rows))
        for place, name in enumerate(self.names):
            found[place] = _floats(columns[name])
        return found.T

    def normal(self, table: Floats) -> Floats:
        """Return normal scores, those of nulls 0."""
        found = np.empty_like(table)
        for place, of in enumerate(self._maps):
            found[:, place] = np.interp(table[:, place], *of)
        found[np.isnan(found)] = 0.0
        return found

    def costs(self, table: Floats, nulls: Mapping[str, float]) -> tuple[Floats, Floats]:
        """Return how rare each number is that is null or beyond all before, 0 for others, and how rare the rows are."""
        alone = np.where(np.isnan(table), [nulls[name] for name in self.names], 0.0)
        under, over = table < self._low, table > self._high
        if under.any() or over.any():
            with np.errstate(over="ignore", invalid="ignore"):
                beyond = np.where(under, (self._low - table) / self._below, (table - self._high) / self._above)
            alone = np.where(under | over, self._beyond + 2 * np.minimum(beyond, _FARTHEST), alone)
        return alone, self._together(self.normal(table))

    def _together(self, normal: Floats) -> Floats:
        squared = (normal * (normal @ self._inverse)).sum(axis=1)
        costs = np.interp(squared, self._distances, self._costs, left=0.0)
        farthest = self._distances[-1]
        found: Floats = costs + 2 * np.log(np.maximum(squared / farthest, 1.0))
        return found

    def foremost(self, columns: Columns, rows: int, chosen: npt.NDArray[np.intp]) -> list[str]:
        """Return for each of the chosen rows the column that contributes most to its distance."""
        normal = self.normal(self.table(columns, rows)[chosen])
        return [self.names[place] for place in (normal * (normal @ self._inverse)).argmax(axis=1).tolist()]


def _extended(knots: Floats, scores: Floats, median: float) -> tuple[Floats, Floats]:
    """Return a map with its ends drawn out: beyond them a score grows as the distance from the median does."""
    low, high, spread = knots[0], knots[-1], knots[-1] - knots[0]
    below, above = (median - low) or spread, (high - median) or spread
    first, last = min(scores[0], -1.0), max(scores[-1], 1.0)
    ends = np.clip([low - _FARTHEST * below, high + _FARTHEST * above], -_LARGEST, _LARGEST)
    return (
        np.array([ends[0], *knots, ends[1]]),
        np.array([first * (1 + _FARTHEST), *scores, last * (1 + _FARTHEST)]),
    )


def least_share(scoring: Scoring) -> float:
    """Return the smallest share that a detector can keep: that of one calibration row for each of the two scores."""
    return 2 / (scoring.rows + 1)


def _array(content: bytes, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(content, dtype)


def _floats(values: Sequence[Any] | npt.NDArray[Any]) -> Floats:
    return np.asarray(values, np.float64)  # null becomes NaN


def _cost(count: int, rows: int) -> float:
    """Return minus twice the logarithm of a share. What never occurred is taken for much rarer than one row in all."""
    return -2.0 * math.log(count / rows if count else 0.5 / rows**2)


def _texts(values: Sequence[str], rows: int) -> Texts:
    """Return the costs of categories. Those that are new have the share of those that occurred once (Good, Biometrika
    40, 1953)."""
    counts = Counter[int]()
    for text, count in Counter(values).items():
        counts[text_hash(text)] += count
    once = sum(count == 1 for count in counts.values())
    common = sorted(counts.most_common(MOST_CATEGORIES))
    hashes, costs = [each for each, _ in common], [_cost(count, rows) for _, count in common]
    return Texts(np.array(hashes, "<u4").tobytes(), np.array(costs, "<f4").tobytes(), _cost(once, rows))


def _numbers(columns: Columns, names: Sequence[str], rows: int) -> Numbers | None:
    if not names:
        return None
    knots, scores, medians = np.empty((len(names), _KNOTS)), np.empty((len(names), _KNOTS)), list[float]()
    excess = list[tuple[float, float]]()
    normal = NormalDist()
    for place, name in enumerate(names):
        values = _floats(columns[name])
        ordered = np.clip(np.sort(values[np.isfinite(values)]), -_LARGEST, _LARGEST)
        at = np.unique(ordered[np.linspace(0, len(ordered) - 1, _KNOTS).round().astype(int)])
        ranks = (np.searchsorted(ordered, at) + np.searchsorted(ordered, at, side="right")) / 2 / len(ordered)
        knots[place, : len(at)], scores[place, : len(at)] = at, [normal.inv_cdf(each) for each in ranks]
        knots[place, len(at) :], scores[place, len(at) :] = at[-1], scores[place, len(at) - 1]
        medians.append(float(ordered[len(ordered) // 2]))
        excess.append((_excess(-ordered[::-1]), _excess(ordered)))
    found = Numbers(
        tuple(names), knots.astype("<f8").tobytes(), scores.astype("<f8").tobytes(), tuple(medians), tuple(excess),
        np.eye(len(names), dtype="<f4").tobytes(), (1.0,), rows,
    )  # fmt: skip
    joint = _Joint(found)
    z = joint.normal(joint.table(columns, rows))
    inverse = np.linalg.inv(_shrunk(z.T @ z / rows, rows))
    squared = np.sort((z * (z @ inverse)).sum(axis=1))[::-1]
    tail = [2**power - 1 for power in range(_TAIL) if 2**power <= rows]
    distances = tuple(max(each, 1e-9) for each in squared[tail].tolist())
    return msgspec.structs.replace(found, inverse=inverse.astype("<f4").tobytes(), distances=distances)


def _excess(ordered: Floats) -> float:
    """Return how far the largest of ascending values lie on average beyond the others, at least 1 % of their range."""
    farthest = ordered[-max(1, round(_FAR * len(ordered))) :]
    least = 0.01 * (ordered[-1] - ordered[0])
    return float(max((farthest - farthest[0]).mean(), least))


def _shrunk(covariance: Floats, rows: int) -> Floats:
    """Return a covariance, shape (size, size), shrunk so that it has an inverse (OAS, formula 23)."""
    size = len(covariance)
    mean, squares = np.trace(covariance) / size, float(np.square(covariance).sum())
    trace = mean * size
    least = (rows + 1 - 2 / size) * (squares - trace**2 / size)
    weight = 1.0 if least <= 0 else min(1.0, ((1 - 2 / size) * squares + trace**2) / least)
    weight = max(weight, 1e-6)  # columns that repeat each other leave no inverse
    found: Floats = (1 - weight) * covariance + weight * (mean or 1.0) * np.eye(size)
    return found
