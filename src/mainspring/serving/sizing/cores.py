"""Work that several cores do at once: the universal scalability law, fitted to measurements.

X(n) / X(1) = n / (1 + s (n - 1) + k n (n - 1)), with s of contention (Amdahl's law, for k = 0) and k of coherence.
Source: N. J. Gunther, A General Theory of Computational Scalability Based on Rational Functions, arXiv:0808.1431, 2008.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mainspring.serving.sizing.roofline import Interval

_MEASURED = 0.03  # of a multiple that was measured: a share by which it may be off
_BEYOND = 0.02  # of contention that measurements on few cores may hide, for each core


@dataclass(frozen=True, slots=True)
class Scaling:
    """The law's two numbers."""

    contention: float = 0.0
    coherence: float = 0.0

    def multiple(self, cores: float) -> float:
        """Work of so many cores, as a multiple of one."""
        return cores / (1 + self.contention * (cores - 1) + self.coherence * cores * (cores - 1))


def fitted(together: Mapping[int, float]) -> Scaling:
    """Return the law that fits measurements best, by least squares of n / X(n) - 1; coherence needs three of them.

    Args:
        together: Cores -> work, as a multiple of one core's.
    """
    points = [(cores - 1.0, cores * (cores - 1.0), cores / max(more, 1e-9) - 1) for cores, more in together.items()]
    points = [each for each in points if each[0] > 0]
    if not points:
        return Scaling()
    aa, ab = sum(a * a for a, _, _ in points), sum(a * b for a, b, _ in points)
    bb = sum(b * b for _, b, _ in points)
    ay, by = sum(a * y for a, _, y in points), sum(b * y for _, b, y in points)
    alone, only = Scaling(max(0.0, ay / aa)), Scaling(0.0, max(0.0, by / bb))
    if len(points) < 2:
        return alone
    gap = aa * bb - ab * ab
    if gap > 1e-12 * aa * bb:
        both = Scaling((ay * bb - by * ab) / gap, (by * aa - ay * ab) / gap)
        if both.contention >= 0 and both.coherence >= 0:
            return both
    return min((alone, only), key=lambda each: _error(points, each))


def _error(points: list[tuple[float, float, float]], law: Scaling) -> float:
    return sum((law.contention * a + law.coherence * b - y) ** 2 for a, b, y in points)


def multiple(together: Mapping[int, float], cores: int) -> Interval:
    """Return the work of so many cores as a multiple of one, with what measurements on fewer leave open."""
    if cores <= 1:
        return Interval(1.0, 1.0, 1.0)
    most = max(together, default=1)
    if cores in together:
        value = together[cores]
        return Interval(value * (1 - _MEASURED), value, min(float(cores), value * (1 + _MEASURED)))
    law = fitted(together)
    value = law.multiple(cores)
    worse = Scaling(law.contention + _BEYOND * (1 - most / cores), law.coherence) if cores > most else law
    return Interval(worse.multiple(cores) * (1 - _MEASURED), value, min(float(cores), value * (1 + _MEASURED)))
