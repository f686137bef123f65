"""Mergeable summaries of one column for display: distinct values, quantiles, and most frequent values.

They show; they do not test, which is what the bins of a `Sketch` are for. Distinct values are counted by HyperLogLog,
estimated as by Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (arXiv 1702.01284). Quantiles are
those of a histogram whose bins are equal on the scale of the inverse hyperbolic sine, in units of training's standard
deviation: narrow in the bulk, of equal relative width in the tails. The most frequent values are kept by the mergeable
form of Misra and Gries' algorithm (Agarwal et al., "Mergeable summaries", 2012). Why not KLL:
docs/adr/0042-sketches-on-fixed-bins.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

REGISTERS = 1_024  # of HyperLogLog: a standard error of 3.3%
MOST_FREQUENT = 64  # values that are kept
SAMPLED = 2_048  # values of a batch that go into the quantiles
_HASHED = 53  # bits of a hash whose leading zeros are counted
_PER_UNIT = 64  # bins per unit of the inverse hyperbolic sine: 1.6% of a standard deviation near the mean

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Registers = npt.NDArray[np.uint8]


def _no_registers() -> Registers:
    return np.zeros(REGISTERS, np.uint8)


def _no_numbers() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Summary of the values of one column; without the missing ones.

    Attributes:
        registers: HyperLogLog's, shape (REGISTERS,).
        places: Bins with numbers, ascending; see `place_of`.
        weights: How many numbers each of them stands for, as not every number is looked at.
        frequent: Texts and their numbers. A text occurs at least so often, and at most `missed` times more.
        missed: 0 if `frequent` is complete.
    """

    registers: Registers = field(default_factory=_no_registers)
    places: Ints = field(default_factory=_no_numbers)
    weights: Ints = field(default_factory=_no_numbers)
    frequent: Mapping[str, int] = field(default_factory=dict)
    missed: int = 0

    def __add__(self, other: Summary) -> Summary:
        """Return the summary of the values of both."""
        return added([self, other])

    def distinct(self) -> int:
        """Return the estimated number of distinct values; of texts exact while `frequent` is complete."""
        if self.frequent and not self.missed:
            return len(self.frequent)
        counts = np.bincount(self.registers, minlength=_HASHED + 2).tolist()
        total = 0.0
        for count in reversed(counts[1:]):
            total = 0.5 * (total + count)
        total += REGISTERS * _sigma(counts[0] / REGISTERS)
        return 0 if math.isinf(total) else round(REGISTERS**2 / (2.0 * math.log(2.0) * total))

    def quantile(self, share: float, center: float, scale: float) -> float | None:
        """Return a quantile of the numbers, `None` without any; its error is at most a bin.

        Args:
            center: The one with which the numbers were placed, as `scale`.
        """
        if not len(self.places):
            return None
        upto = np.cumsum(self.weights)
        place = int(self.places[np.searchsorted(upto, max(1, math.ceil(share * int(upto[-1]))))])
        value = center + scale * math.sinh(place / _PER_UNIT)
        width = scale * math.cosh(place / _PER_UNIT) / _PER_UNIT
        if not math.isfinite(value + width):
            return value
        # The number of fewest digits in the bin, so that a column of whole numbers has whole quantiles.
        coarsest = -math.ceil(math.log10(width)) - 1
        rounded = (round(value, digits) for digits in range(coarsest, coarsest + 3))
        return next((each for each in rounded if abs(each - value) <= width / 2.0), value)


def added(summaries: Iterable[Summary]) -> Summary:
    """Return the summary of the values of all."""
    parts = list(summaries)
    registers = np.maximum.reduce([each.registers for each in parts]) if parts else _no_registers()
    places = np.concatenate([each.places for each in parts]) if parts else _no_numbers()
    weights = np.concatenate([each.weights for each in parts]) if parts else _no_numbers()
    different, of = np.unique(places, return_inverse=True)
    counts: Counter[str] = Counter()
    for each in parts:
        counts.update(each.frequent)
    frequent, missed = _most_frequent(counts)
    return Summary(
        registers,
        different,
        np.bincount(of, weights=weights, minlength=len(different)).astype(np.int64),
        frequent,
        missed + sum(each.missed for each in parts),
    )


def of_numbers(numbers: npt.NDArray[np.float64], center: float, scale: float) -> Summary:
    """Return the summary of finite numbers, shape (rows,); of very many, each n-th is taken for the quantiles."""
    step = -(-len(numbers) // SAMPLED) or 1
    places, counts = np.unique(place_of(numbers[::step], center, scale), return_counts=True)
    hashes = mixed((numbers + 0.0).view(np.uint64))  # -0.0 is 0.0
    return Summary(registers_of(hashes), places, counts * step)


def of_texts(texts: Sequence[str], hashes: npt.NDArray[np.uint64], counts: Ints) -> Summary:
    """Return the summary of distinct texts, given their hashes (before `mixed`) and how often each occurs.

    All have shape (texts,).
    """
    if len(texts) > MOST_FREQUENT:
        first = np.argpartition(counts, -MOST_FREQUENT - 1)[-MOST_FREQUENT - 1 :]
        frequent, missed = _most_frequent({texts[at]: int(counts[at]) for at in first.tolist()})
    else:
        frequent, missed = dict(zip(texts, counts.tolist(), strict=True)), 0
    return Summary(registers_of(mixed(hashes)), frequent=frequent, missed=missed)


def place_of(numbers: npt.NDArray[np.float64], center: float, scale: float) -> Ints:
    """Return the bin of each number, shape (rows,)."""
    with np.errstate(over="ignore"):
        z = np.clip((numbers - center) / scale, -1e300, 1e300)
    places: Ints = np.rint(np.arcsinh(z) * _PER_UNIT).astype(np.int64)
    return places


def mixed(hashes: Hashes) -> Hashes:
    """Return 64 bits in which each bit of the argument counts alike (the finaliser of SplitMix64)."""
    h = hashes ^ (hashes >> np.uint64(30))
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return h


def registers_of(hashes: Hashes) -> Registers:
    """Return HyperLogLog's registers of mixed hashes, shape (REGISTERS,)."""
    places = (hashes >> np.uint64(54)).astype(np.intp)
    # A double's exponent is the place of the highest bit, and 53 bits are exact.
    low = (hashes & np.uint64((1 << _HASHED) - 1)).astype(np.float64)
    ranks = np.where(low > 0.0, _HASHED + 1023 - (low.view(np.int64) >> 52), _HASHED + 1)
    registers = _no_registers()
    np.maximum.at(registers, places, ranks.astype(np.uint8))
    return registers


def _most_frequent(counts: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return the most frequent values with counts that are too small by the second number at most."""
    if len(counts) <= MOST_FREQUENT:
        return dict(counts), 0
    ordered = sorted(counts.values(), reverse=True)
    excess = ordered[MOST_FREQUENT]
    return {text: count - excess for text, count in counts.items() if count > excess}, excess


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z
