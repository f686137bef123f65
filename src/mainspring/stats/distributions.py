"""Tail probabilities of four distributions in double precision, without SciPy at run time."""

from __future__ import annotations

import math
from functools import lru_cache

_EPSILON = 1e-16
_TINY = 1e-300


def normal_two_sided(z: float) -> float:
    """Return P(|Z| >= |z|) for a standard normal Z."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def student_tail(t: float, degrees: int) -> float:
    """Return P(T >= t) for Student's T with `degrees` >= 1 degrees of freedom.

    The finite series for whole degrees (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    angle = math.atan2(abs(t), math.sqrt(degrees))
    cosine2, odd = math.cos(angle) ** 2, degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine2 * k / (k + 1)
    inside = (angle + math.sin(angle) * total) * 2.0 / math.pi if odd else math.sin(angle) * total
    outside = max(0.0, (1.0 - inside) / 2.0)
    return outside if t >= 0.0 else 1.0 - outside


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: int) -> float:
    """Return the t with P(T <= t) = `probability`, in (0, 1), of Student's T; by bisection."""
    if probability < 0.5:
        return -student_quantile(1.0 - probability, degrees)
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > 1.0 - probability:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if student_tail(middle, degrees) > 1.0 - probability else (low, middle)
    return (low + high) / 2.0


def kolmogorov_tail(x: float) -> float:
    """Return P(K >= x) for Kolmogorov's limiting distribution of sqrt(n) * D.

    Two series of Jacobi's theta function, each used where it converges in a few terms (Marsaglia, Tsang and Wang,
    "Evaluating Kolmogorov's Distribution", J. Stat. Softw. 8(18), 2003).
    """
    if x <= 0.0:
        return 1.0
    if x < 1.18:
        terms = (math.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8.0 * x * x)) for k in range(1, 8))
        return max(0.0, 1.0 - math.sqrt(2.0 * math.pi) / x * sum(terms))
    return 2.0 * sum((-1.0) ** (k - 1) * math.exp(-2.0 * k * k * x * x) for k in range(1, 8))


def chi_square_tail(x: float, degrees: int) -> float:
    """Return P(X >= x) for a chi-square X with `degrees` >= 1 degrees of freedom."""
    return upper_gamma(degrees / 2.0, x / 2.0)


def upper_gamma(a: float, x: float) -> float:
    """Return the regularised upper incomplete gamma function Q(a, x), for a > 0.

    The power series below a + 1, Lentz's continued fraction above (DLMF 8.7.1 and 8.9.2).
    """
    if x <= 0.0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    return 1.0 - scale * _series(a, x) if x < a + 1.0 else scale * _fraction(a, x)


def _series(a: float, x: float) -> float:
    term = total = 1.0 / a
    step = a
    while abs(term) > abs(total) * _EPSILON:
        step += 1.0
        term *= x / step
        total += term
    return total


def _fraction(a: float, x: float) -> float:
    b = x + 1.0 - a
    c = 1.0 / _TINY
    d = 1.0 / b
    value = d
    for n in range(1, 10_000):
        numerator = -n * (n - a)
        b += 2.0
        d = 1.0 / (numerator * d + b or _TINY)
        c = b + numerator / c or _TINY
        value *= c * d
        if abs(c * d - 1.0) < _EPSILON * 4:
            break
    return value


def hypergeometric_tail(found: int, draws: int, successes: int, total: int) -> float:
    """Return P(X >= `found`) for the number X of successes among `draws` of `total`, of which `successes` are.

    The terms of the smaller tail are summed by their ratios, from the largest.
    """
    low, high = max(0, draws + successes - total), min(draws, successes)
    if found <= low:
        return 1.0
    if found > high:
        return 0.0
    if found * total > draws * successes:  # above the mean
        return min(1.0, _hypergeometric_sum(found, draws, successes, total))
    # P(X < found) is the tail of the failures among the draws.
    return max(0.0, 1.0 - _hypergeometric_sum(draws - found + 1, draws, total - successes, total))


def _hypergeometric_sum(found: int, draws: int, successes: int, total: int) -> float:
    term = math.exp(
        _log_choose(successes, found) + _log_choose(total - successes, draws - found) - _log_choose(total, draws)
    )
    tail = 0.0
    for k in range(found, min(draws, successes) + 1):
        tail += term
        term *= (successes - k) * (draws - k) / ((k + 1.0) * (total - successes - draws + k + 1.0))
        if term < tail * _EPSILON:
            break
    return tail


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1.0) - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0)


def larger_share(found: int, of: int, before: int, before_of: int) -> float:
    """Return the mid-p-value of Fisher's exact test that the share `found` / `of` is not larger than another.

    Half of the observed table's own probability counts: the exact test's levels are far below the nominal ones for
    small counts (Lancaster, JASA 56, 1961). It is 1 if all or none are found in both.
    """
    both = (of, found + before, of + before_of)
    if found + before in (0, of + before_of):
        return 1.0
    return (hypergeometric_tail(found, *both) + hypergeometric_tail(found + 1, *both)) / 2.0


def f_two_sided(ratio: float, degrees: float, degrees_below: float) -> float:
    """Return twice the smaller tail of Snedecor's F distribution at `ratio`, approximately.

    Paulson's normal approximation by Wilson and Hilferty's cube root (Ann. Math. Stat. 13, 1942); fractional degrees of
    freedom are allowed.
    """
    above, below = 2.0 / (9.0 * degrees), 2.0 / (9.0 * degrees_below)
    root = ratio ** (1.0 / 3.0)
    return normal_two_sided(((1.0 - below) * root - (1.0 - above)) / math.sqrt(below * root * root + above))
