import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mainspring.stats.drift import Comparison, benjamini_hochberg, compare, judge, over_floor
from mainspring.stats.reference import Counts, Reference, count_bins, profile, profile_column


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20131103)


def test_ks_on_bins_is_close_to_scipys_on_values(random: np.random.Generator) -> None:
    before, after = random.normal(size=20_000), random.normal(0.1, 1.1, size=3_000)
    reference = profile_column(before)
    exact = stats.ks_2samp(before, after, method="asymp")
    ks, shift, _ = compare(reference, count_bins(reference, after))
    assert exact.statistic - 1 / 64 <= ks <= exact.statistic
    assert shift == pytest.approx((after.mean() - before.mean()) / before.std())


def test_a_discrete_columns_ks_is_exact(random: np.random.Generator) -> None:
    before, after = random.poisson(3, 5_000), random.poisson(3.3, 4_000)
    reference = profile_column(before)
    assert compare(reference, count_bins(reference, after)).ks == pytest.approx(stats.ks_2samp(before, after).statistic)


def test_the_z_test_is_scipys(random: np.random.Generator) -> None:
    before, after = random.normal(size=5_000), random.normal(0.08, 1.3, size=2_000)
    reference = profile_column(before)
    found = compare(reference, count_bins(reference, after))
    z = stats.ttest_ind_from_stats(
        after.mean(), after.std(), 2_000, before.mean(), before.std(), 5_000, equal_var=False
    )
    assert found.p_value <= 2 * z.pvalue * 1.05


def test_chi_square_is_scipys(random: np.random.Generator) -> None:
    before = random.choice(np.array(list("abcde")), 5_000, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    after = random.choice(np.array(list("abcdef")), 800, p=[0.47, 0.2, 0.15, 0.1, 0.05, 0.03])
    reference = profile_column(before)
    found = compare(reference, count_bins(reference, after))
    table = [[(values == name).sum() for name in "abcdef"] for values in (before, after)]
    assert found.p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=1e-9)
    shares = np.array(table) / np.sum(table, axis=1, keepdims=True)
    assert found.ks == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert found.shift_sd is None


@given(st.lists(st.floats(0, 1), max_size=40))
def test_benjamini_hochberg_is_scipys(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)) if p else [])


def test_the_same_values_have_not_drifted(random: np.random.Generator) -> None:
    for values in (random.normal(size=500), ["a", "b"] * 50, [1.0] * 100, [None] * 100, [math.nan] * 100):
        reference = profile_column(values)
        ks, shift, p = compare(reference, count_bins(reference, values))
        assert (ks, shift or 0.0, p) == (0.0, 0.0, 1.0)


def test_a_column_that_goes_missing_drifts() -> None:
    for values in (list(np.linspace(0, 1, 1_000)), ["a", "b"] * 500):
        reference = profile_column(values)
        for missing in (None, math.nan):
            ks, _, p = compare(reference, count_bins(reference, [missing] * 1_000))
            assert ks == pytest.approx(1.0)
            assert p < 1e-100


def test_a_share_that_goes_missing_is_as_large_as_the_share(random: np.random.Generator) -> None:
    values = random.normal(size=10_000)
    reference = profile_column(values)
    late = [None if number < 500 else float(value) for number, value in enumerate(random.permutation(values))]
    found = compare(reference, count_bins(reference, late))
    assert found.ks == pytest.approx(0.05, abs=0.005)
    assert found.p_value < 1e-6


@pytest.mark.parametrize("moved", [-1.0, 1.0, 1e-6])
def test_a_constant_column_that_moves_drifts(moved: float) -> None:
    reference = profile_column([0.0] * 1_000)
    ks, shift, p = compare(reference, count_bins(reference, [moved] * 1_000))
    assert (ks, shift) == (1.0, None)
    assert p < 1e-100


def test_few_rows_say_nothing() -> None:
    reference = profile_column(np.arange(1_000.0))
    assert compare(reference, count_bins(reference, [1e9] * 29)).p_value == 1.0
    assert compare(reference, count_bins(reference, [1e9] * 30)).p_value < 1e-6
    assert compare(reference, count_bins(reference, [])) == Comparison(0.0, None, 1.0)


def windows(reference: Reference, **values: object) -> dict[str, Counts]:
    return {name: count_bins(reference.columns[name], given) for name, given in values.items()}  # type: ignore[arg-type]


def test_an_alert_needs_two_windows_in_a_row(random: np.random.Generator) -> None:
    reference = profile({"a": random.normal(size=10_000), "b": random.normal(size=10_000)})
    moved = windows(reference, a=random.normal(0.3, size=5_000), b=random.normal(size=5_000))
    (a, b) = judge(reference, moved)
    assert (a.column, a.drifted, a.alert) == ("a", True, False)
    assert (b.column, b.drifted, b.alert) == ("b", False, False)
    (a, b) = judge(reference, moved, {"a", "b"})
    assert (a.alert, b.alert) == (True, False)
    (again, _) = judge(reference, moved, {"b"})
    assert not again.alert


def test_significance_without_an_effect_is_no_drift() -> None:
    values = np.linspace(-1, 1, 2_000_001)
    reference = profile({"a": values})
    (verdict,) = judge(reference, windows(reference, a=values + 0.008))
    assert verdict.q_value < 1e-3
    assert verdict.ks < 0.01
    assert not verdict.drifted


def test_either_effect_is_enough() -> None:
    assert over_floor("numeric", Comparison(0.01, 0.0, 0.0))
    assert over_floor("numeric", Comparison(0.0, -0.03, 0.0))
    assert not over_floor("numeric", Comparison(0.0099, 0.029, 0.0))
    assert over_floor("numeric", Comparison(0.01, None, 0.0))
    assert over_floor("categorical", Comparison(0.01, None, 0.0))
    assert not over_floor("categorical", Comparison(0.0099, None, 0.0))


def test_columns_the_reference_lacks_are_left_out(random: np.random.Generator) -> None:
    reference = profile({"a": random.normal(size=100)})
    counts = windows(reference, a=random.normal(size=100))
    assert [verdict.column for verdict in judge(reference, {"new": counts["a"], **counts})] == ["a"]
    assert judge(reference, {}) == []


def test_q_values_are_over_the_columns_judged(random: np.random.Generator) -> None:
    reference = profile({name: random.normal(size=2_000) for name in "abcd"})
    verdicts = judge(reference, windows(reference, **{name: random.normal(size=500) for name in "abcd"}))
    assert [verdict.q_value for verdict in verdicts] == benjamini_hochberg([verdict.p_value for verdict in verdicts])
    assert verdicts[0].null_share == 0.0
