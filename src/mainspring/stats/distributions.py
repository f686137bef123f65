"""Tail probabilities of four distributions in double precision, without SciPy at run time."""

from __future__ import annotations

import math

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
