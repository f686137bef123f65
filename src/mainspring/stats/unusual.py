"""How unlike the training rows a row of features is: a score, and which score is rare among rows like these.

The score of a row is that of the rarest thing about it, minus twice the logarithm of its share of the training rows: a
text, a null, another value of a number that was constant, or the numbers together. Of these it is the squared
Mahalanobis distance that is rare: after each is mapped to a normal distribution by its ranks, and with a covariance
shrunk towards a multiple of the identity (OAS: Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Processing 58, 2010).

Whether a score is rare is decided by rows that were not trained on, as a split conformal p-value (Bates, Candès, Lei,
Romano and Sesia, Annals of Statistics 51, 2023): among rows that are exchangeable with those, at most the given share
is taken for unusual, whatever the score is like. A better one only finds more of the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.stats.text_hash import text_hash

MOST_NUMBERS = 256  # numeric columns; their covariance is a square of so many
MOST_CATEGORIES = 10_000  # of a text column, whose shares are kept
MOST_KEPT = 4096  # highest scores of calibration rows
MOST_ROWS = 200_000  # that the score is fitted on, and is calibrated by
_KNOTS = 64  # of the map of a column
_FARTHEST = 1e6  # times as far as the farthest training value; values beyond count as this far
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
        inverse: Of the shrunk covariance of the normal scores, float32, shape (columns, columns).
        distances: Descending squared distances of training rows, at the ranks 1, 2, 4, ...
        rows: Number of training rows.
    """

    names: tuple[str, ...]
    knots: bytes
    scores: bytes
    medians: tuple[float, ...]
    inverse: bytes
    distances: tuple[float, ...]
    rows: int


class Scoring(msgspec.Struct, frozen=True):
    """A fitted score with its calibration. Columns that are neither number, Boolean nor text are left out.

    Attributes:
        numbers: `None` if no numeric column had two values.
        constants: Numeric column that was constant -> its value, `None` if it was always null.
        texts: Text column -> costs of its categories.
        nulls: Column -> cost of a null or NaN.
        strange: Cost of what never occurred.
        highest: The highest scores of the calibration rows, descending, float64, little-endian.
        rows: Number of calibration rows.
    """

    numbers: Numbers | None
    constants: dict[str, float | None]
    texts: dict[str, Texts]
    nulls: dict[str, float]
    strange: float
    highest: bytes = b""
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
    highest = np.sort(Detector(scoring).scores(columns, rows))[::-1][:MOST_KEPT]
    return msgspec.structs.replace(scoring, highest=highest.astype("<f8").tobytes(), rows=rows)


class Detector:
    """Finds the rows whose score is rare.

    Args:
        share: The largest share of rows like those of the calibration that may be found.
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
        highest = _array(scoring.highest, "<f8")
        self.share = max(share, 1 / (scoring.rows + 1))
        place = min(math.floor(self.share * (scoring.rows + 1) + 1e-9), len(highest))
        self._limit = float(highest[place - 1]) if place else math.inf

    def scores(self, columns: Columns, rows: int) -> Floats:
        """Return the score of each row, shape (rows,)."""
        found = np.zeros(rows)
        for _, costs in self._costs(columns, rows):
            np.maximum(found, costs, out=found)
        return found

    def unusual(self, columns: Columns, rows: int) -> dict[int, str]:
        """Return the unusual rows, each with the column that makes it so; of several, the one that does most."""
        costs = list(self._costs(columns, rows))
        highest = np.max([each for _, each in costs], axis=0)
        found = {}
        for row in np.flatnonzero(highest > self._limit).tolist():
            name = next(name for name, each in costs if each[row] == highest[row])
            found[row] = self._joint.foremost(columns, row) if self._joint is not None and not name else name
        return found

    def _costs(self, columns: Columns, rows: int) -> Iterator[tuple[str, Floats]]:
        """Yield columns with their costs by row; the numbers together have no name."""
        scoring = self._scoring
        for name, (known, of) in self._texts.items():
            null, unseen = scoring.nulls[name], of.unseen
            costs = [known.get(text_hash(each), unseen) if type(each) is str else null for each in columns[name]]
            yield name, np.array(costs)
        for name, value in scoring.constants.items():
            values = _floats(columns[name])
            strange: Floats = np.where(np.isnan(values), scoring.nulls[name], (values != value) * scoring.strange)
            yield name, strange
        if self._joint is not None:
            table, missing = self._joint.normal(columns, rows)
            if missing.any():
                for place, name in enumerate(self._joint.names):
                    yield name, np.where(missing[:, place], scoring.nulls[name], 0.0)
            yield "", self._joint.cost(table)


class _Joint:
    """The numbers of a row together."""

    def __init__(self, numbers: Numbers) -> None:
        self.names = numbers.names
        size = len(self.names)
        knots, scores = (_array(each, "<f8").reshape(size, -1) for each in (numbers.knots, numbers.scores))
        self._maps = [_extended(*each) for each in zip(knots, scores, numbers.medians, strict=True)]
        self._inverse = _array(numbers.inverse, "<f4").reshape(size, size).astype(np.float64)
        distances = np.array(numbers.distances)[::-1]
        ranks = 2.0 ** np.arange(len(distances))[::-1]
        self._distances, self._costs = distances, -2 * np.log((ranks + 1) / (numbers.rows + 1))

    def normal(self, columns: Columns, rows: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the normal scores, shape (rows, columns), those of nulls 0, and where the nulls are."""
        found = np.empty((len(self.names), rows))
        for place, name in enumerate(self.names):
            found[place] = np.interp(_floats(columns[name]), *self._maps[place])
        table = found.T
        null = np.isnan(table)
        table[null] = 0.0
        return table, null

    def cost(self, normal: Floats) -> Floats:
        """Return how rare the distance of each row is."""
        squared = (normal * (normal @ self._inverse)).sum(axis=1)
        costs = np.interp(squared, self._distances, self._costs, left=0.0)
        farthest = self._distances[-1]
        found: Floats = costs + 2 * np.log(np.maximum(squared / farthest, 1.0))
        return found

    def foremost(self, columns: Columns, row: int) -> str:
        """Return the column that contributes most to the distance of a row."""
        [normal], _ = self.normal({name: columns[name][row : row + 1] for name in self.names}, 1)
        return self.names[int((normal * (self._inverse @ normal)).argmax())]


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
    normal = NormalDist()
    for place, name in enumerate(names):
        values = _floats(columns[name])
        ordered = np.sort(values[np.isfinite(values)])
        at = np.unique(ordered[np.linspace(0, len(ordered) - 1, _KNOTS).round().astype(int)])
        ranks = (np.searchsorted(ordered, at) + np.searchsorted(ordered, at, side="right")) / 2 / len(ordered)
        knots[place, : len(at)], scores[place, : len(at)] = at, [normal.inv_cdf(each) for each in ranks]
        knots[place, len(at) :], scores[place, len(at) :] = at[-1], scores[place, len(at) - 1]
        medians.append(float(ordered[len(ordered) // 2]))
    found = Numbers(
        tuple(names), knots.astype("<f8").tobytes(), scores.astype("<f8").tobytes(), tuple(medians),
        np.eye(len(names), dtype="<f4").tobytes(), (1.0,), rows,
    )  # fmt: skip
    z, _ = _Joint(found).normal(columns, rows)
    inverse = np.linalg.inv(_shrunk(z.T @ z / rows, rows))
    squared = np.sort((z * (z @ inverse)).sum(axis=1))[::-1]
    tail = [2**power - 1 for power in range(_TAIL) if 2**power <= rows]
    distances = tuple(max(each, 1e-9) for each in squared[tail].tolist())
    return msgspec.structs.replace(found, inverse=inverse.astype("<f4").tobytes(), distances=distances)


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
