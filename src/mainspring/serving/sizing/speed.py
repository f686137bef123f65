"""Speed of a machine: rates that kernels attain on one of its cores, and how much several cores do together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log

import msgspec

from mainspring.core.errors import Invalid


class Rate(msgspec.Struct, frozen=True):
    """Operations a second, in billions, of a product of `rows` rows with a square matrix of a width."""

    kind: str
    rows: int
    width: int
    gops: float


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Speed of a machine, as `mainspring advise machine` measures it.

    Attributes:
        cores: That a process may use: virtual ones with a provider.
        scalar: Steps of Python's interpreter a second, in millions: all that is no kernel follows it.
        rates: Of products on one core, without what follows.
        outputs: Numbers a second, in billions, that products return; their `width` is that of the matrix.
        moved_gb_s: Bytes that an operator beside the products reads and writes a second, in billions, on one core.
        node_us: Time of an operator that does nothing.
        together: Cores -> work that they do at once, as a multiple of one alone.
    """

    name: str
    processor: str
    cores: float
    memory_gib: float
    scalar: float
    rates: list[Rate]
    outputs: list[Rate]
    moved_gb_s: float
    node_us: float
    together: dict[int, float]

    def __post_init__(self) -> None:
        numbers = [self.cores, self.memory_gib, self.scalar, self.moved_gb_s, self.node_us]
        numbers += [each.gops for each in self.rates] + [*self.together.values(), *(each.gops for each in self.outputs)]
        numbers += [
            *self.together,
            *(each for rate in (*self.rates, *self.outputs) for each in (rate.rows, rate.width)),
        ]
        if not all(0 < each < float("inf") for each in numbers) or self.cores < 1:
            raise self._unlike("a number that is not above 0")
        for rates in (self.rates, self.outputs):
            for kind in {each.kind for each in rates}:
                places = {(each.rows, each.width) for each in rates if each.kind == kind}
                if len(places) < len({rows for rows, _ in places}) * len({width for _, width in places}):
                    raise self._unlike(f"{kind} products of some rows and widths, and not of all their pairs")
        if not self.rates or not self.outputs:
            raise self._unlike("no products")

    def _unlike(self, why: str) -> Invalid:
        return Invalid(
            f"The description of {self.name!r} has {why}.",
            fix="measure that machine: `mainspring advise machine --json > there.json`.",
        )

    def gops(self, kind: str, rows: float, width: float) -> float:
        """Return the rate of a product, between those that were measured: linear in the logarithms.

        Raises:
            Invalid: No product of that kind was measured.
        """
        return self._between(self.rates, kind, rows, width)

    def output_ns(self, kind: str, rows: float) -> float:
        """Return the time of each number that a product of so many rows returns. Raises as `gops` does."""
        return 1 / self._between(self.outputs, kind, rows, 1.0)

    def _between(self, rates: Sequence[Rate], kind: str, rows: float, width: float) -> float:
        found = {(each.rows, each.width): each.gops for each in rates if each.kind == kind}
        if not found:
            raise Invalid(f"No {kind} product was measured on {self.name!r}.", fix="measure that machine again.")
        heights, widths = sorted({rows for rows, _ in found}), sorted({width for _, width in found})
        (low, high, up), (left, right, along) = _between(heights, rows), _between(widths, width)
        below = _mixed(found[low, left], found[low, right], along)
        return _mixed(below, _mixed(found[high, left], found[high, right], along), up)


def _between(places: Sequence[int], at: float) -> tuple[int, int, float]:
    """Return the two places around one, and how far it is from the first to the second; beyond the ends the last."""
    if at <= places[0] or len(places) == 1:
        return places[0], places[0], 0.0
    for low, high in pairwise(places):
        if at <= high:
            return low, high, log(at / low) / log(high / low)
    return places[-1], places[-1], 0.0


def _mixed(one: float, other: float, share: float) -> float:
    return exp(log(one) * (1 - share) + log(other) * share)
