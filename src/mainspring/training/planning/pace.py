"""Measured times of a training's passes on the cores of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from math import log


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds of a pass by its rows: straight between measured points, and on beyond them."""

    points: tuple[tuple[int, float], ...]  # rows and seconds, by rows

    def at(self, rows: float) -> float:
        """Return the seconds of so many rows."""
        if len(self.points) == 1:
            count, seconds = self.points[0]
            return seconds * max(1.0, rows / count)
        after = next((place for place, (count, _) in enumerate(self.points) if rows <= count), len(self.points) - 1)
        (few, short), (many, long) = self.points[max(0, after - 1)], self.points[max(1, after)]
        slope = max(0.0, long - short) / (many - few)
        if rows > many:  # what each row takes in the largest pass, where noise hides what one more takes
            slope = max(slope, 0.8 * long / many)
        return max(0.0, (long if rows > many else short) + slope * (rows - (many if rows > many else few)))


@dataclass(frozen=True, slots=True)
class Side:
    """Times of one process.

    Attributes:
        passes: Of a forward and a backward pass.
        update: Of the optimiser's step, of all weights; 0 if it was not measured.
        spread: How many times the median a pass takes that is slower than nine of ten.
    """

    passes: Curve
    update: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of one process that has all cores (`alone`), and of one of as many as there are cores (`beside`)."""

    cores: int
    alone: Side
    beside: Side

    def passes(self, rows: float, processes: int) -> float:
        """Seconds of both passes of so many rows in one of so many processes that share the cores."""
        return self._between(self.alone.passes.at(rows), self.beside.passes.at(rows), processes)

    def update(self, processes: int) -> float:
        """Seconds of an optimiser's step of all weights."""
        return self._between(self.alone.update, self.beside.update, processes)

    def spread(self, processes: int) -> float:
        """How many times as long as usual a slow pass takes."""
        return self._between(self.alone.spread, self.beside.spread, processes)

    def _between(self, alone: float, beside: float, processes: int) -> float:
        if self.cores == 1 or processes == 1 or min(alone, beside) <= 0:
            return alone
        share = min(1.0, log(processes) / log(self.cores))
        return float(alone ** (1 - share) * beside**share)
