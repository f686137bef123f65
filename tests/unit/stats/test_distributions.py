"""Tail probabilities against SciPy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from mainspring.stats.distributions import chi_square_tail, kolmogorov_tail, normal_two_sided, upper_gamma


@given(st.floats(1e-3, 8.0))
def test_kolmogorov(x: float) -> None:
    assert kolmogorov_tail(x) == pytest.approx(special.kolmogorov(x), rel=1e-10, abs=1e-15)


def test_kolmogorovs_ends() -> None:
    assert (kolmogorov_tail(0.0), kolmogorov_tail(-1.0), kolmogorov_tail(1e-9)) == (1.0, 1.0, 1.0)
    assert kolmogorov_tail(1e9) == 0.0
    assert kolmogorov_tail(1.18 - 1e-12) == pytest.approx(kolmogorov_tail(1.18), abs=1e-11)


@given(st.floats(-30, 30))
def test_normal(z: float) -> None:
    assert normal_two_sided(z) == pytest.approx(2.0 * stats.norm.sf(abs(z)), rel=1e-10)


@given(st.floats(0.0, 2_000.0), st.integers(1, 200))
def test_chi_square(x: float, degrees: int) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-14)


@given(st.floats(0.05, 300.0), st.floats(0.0, 1_000.0))
def test_upper_gamma(a: float, x: float) -> None:
    assert upper_gamma(a, x) == pytest.approx(special.gammaincc(a, x), rel=1e-9, abs=1e-14)


def test_far_tails_are_zero_and_not_an_error() -> None:
    assert chi_square_tail(1e7, 3) == 0.0
    assert chi_square_tail(1e-300, 64) == 1.0
    assert normal_two_sided(1e9) == 0.0
