import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from tests.kit.trained import Trained

from mainspring.stats.column_tests import Comparison, Outcome, compare
from mainspring.stats.drift import benjamini_hochberg, judge
from mainspring.stats.reference import ColumnReference, Reference, profile
from mainspring.stats.sketches import Ruler, Sketch


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20131103)


def one(comparison: Comparison, name: str) -> Outcome:
    (found,) = [test for test in comparison.tests if test.name == name]
    return found


def test_ks_on_bins_is_close_to_scipys_on_values(random: np.random.Generator) -> None:
    before, after = random.normal(size=20_000), random.normal(0.1, 1.1, size=3_000)
    exact = stats.ks_2samp(before, after, method="asymp")
    found = Trained(before).compare(after)
    assert exact.statistic - 1 / 64 <= found.ks <= exact.statistic
    assert found.shift_sd == pytest.approx((after.mean() - before.mean()) / before.std(), abs=0.01)
    assert found.variance_ratio == pytest.approx(after.var() / before.var(), abs=0.03)


def test_a_discrete_columns_ks_is_exact(random: np.random.Generator) -> None:
    before, after = random.poisson(3, 5_000), random.poisson(3.3, 4_000)
    exact = stats.ks_2samp(before, after, method="asymp")
    found = Trained(before).compare(after)
    assert found.ks == pytest.approx(exact.statistic)
    assert one(found, "shape").p_value == pytest.approx(exact.pvalue, rel=0.1)


def test_the_z_test_is_scipys(random: np.random.Generator) -> None:
    before, after = random.uniform(-1, 1, size=5_000), random.uniform(-1.2, 1.2, size=2_000) + 0.01
    reference = Trained(before)
    low, high = reference.column.low, reference.column.high
    before, after = np.clip(before, low, high), np.clip(after, low, high)
    z = stats.ttest_ind_from_stats(
        after.mean(), after.std(), 2_000, before.mean(), before.std(), 5_000, equal_var=False
    )
    assert one(reference.compare(after), "mean").p_value == pytest.approx(z.pvalue, rel=0.02)


@pytest.mark.parametrize("scale", [1.05, 1.1, 1.2])
def test_the_variance_test_is_the_f_test_on_normal_values(random: np.random.Generator, scale: float) -> None:
    before, after = random.normal(size=20_000), random.normal(scale=scale, size=500)
    after = after / after.std(ddof=1) * scale
    ratio = after.var(ddof=1) / before.var(ddof=1)
    exact = 2 * stats.f.sf(ratio, 499, 19_999)
    found = one(Trained(before).compare(after), "variance")
    assert math.log(found.p_value) == pytest.approx(math.log(exact), abs=1.0)  # clipping loses a little


def test_chi_square_is_scipys(random: np.random.Generator) -> None:
    before = random.choice(np.array(list("abcde")), 5_000, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    after = random.choice(np.array(list("abcdef")), 1_800, p=[0.47, 0.2, 0.15, 0.1, 0.05, 0.03])
    found = Trained(before).compare(after)
    table = [[(values == name).sum() for name in "abcdef"] for values in (before, after)]
    exact = stats.chi2_contingency(table, correction=False).pvalue
    assert one(found, "shares").p_value == pytest.approx(exact, rel=1e-9)
    shares = np.array(table) / np.sum(table, axis=1, keepdims=True)
    assert found.ks == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert found.shift_sd is None
    assert found.unseen_share == pytest.approx(shares[1][-1])


@example(there=0, missing=1, before=0, missing_before=1)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_missing_values_have_fishers_exact_test(there: int, missing: int, before: int, missing_before: int) -> None:
    if not there + missing or not before + missing_before:
        return
    values = [1.0] * before + [None] * missing_before
    found = one(Trained(values).compare([1.0] * there + [None] * missing), "missing").p_value
    if not there + before:
        assert found == 1.0  # nothing but nulls, then and now
        return
    sides = []
    for table in ([[missing, there], [missing_before, before]], [[there, missing], [before, missing_before]]):
        p = stats.fisher_exact(table, alternative="greater").pvalue
        both = (sum(map(sum, table)), table[0][0] + table[1][0], sum(table[0]))
        sides.append(p - stats.hypergeom.pmf(table[0][0], *both) / 2)
    assert found == pytest.approx(min(1.0, sides[0] / 0.9, sides[1] / 0.1), rel=1e-6, abs=1e-12)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_benjamini_hochberg_is_scipys(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)) if p else [])


def test_the_same_values_have_not_drifted(random: np.random.Generator) -> None:
    for values in (random.normal(size=500), ["a", "b"] * 50, [1.0] * 100, [None] * 100, [math.nan] * 100):
        found = Trained(values).compare(values)
        assert found.ks == 0.0
        assert found.shift_sd in (None, pytest.approx(0.0, abs=1e-9))
        assert found.p_value == 1.0


def test_a_column_that_goes_missing_drifts() -> None:
    for values in (list(np.linspace(0, 1, 1_000)), ["a", "b"] * 500):
        for missing in (None, math.nan, b"of another type"):
            found = Trained(values).compare([missing] * 1_000)
            assert found.ks == pytest.approx(1.0)
            assert (found.null_share, found.strongest) == (1.0, "missing")
            assert found.p_large < 1e-100


def test_a_share_that_goes_missing_is_as_large_as_the_share(random: np.random.Generator) -> None:
    values = random.normal(size=10_000)
    late = [None if number < 500 else float(value) for number, value in enumerate(random.permutation(values))]
    found = Trained(values).compare(late)
    assert found.ks == pytest.approx(0.05, abs=0.005)
    assert (found.null_share, found.strongest) == (0.05, "missing")
    assert found.p_value < 1e-6


@pytest.mark.parametrize("moved", [-1.0, 1.0, 1e-6])
def test_a_constant_column_that_moves_drifts(moved: float) -> None:
    found = Trained([0.0] * 1_000).compare([moved] * 1_000)
    assert (found.ks, found.shift_sd, found.outside_share) == (1.0, None, 1.0)
    assert found.p_large < 1e-100


def test_a_window_of_equal_values_drifts(random: np.random.Generator) -> None:
    assert Trained(random.normal(size=1_000)).compare([0.01] * 300).p_large < 1e-20


def test_few_rows_are_tested_exactly_alone() -> None:
    reference = Trained(np.arange(1_000.0))
    assert {test.name for test in reference.compare([1e9] * 29).tests} == {"missing", "range"}
    assert {test.name for test in reference.compare([1e9] * 30).tests} == {
        "missing",
        "range",
        "shape",
        "mean",
        "variance",
    }
    assert reference.compare([500.0] * 29).p_value == 1.0
    assert reference.compare([]) == Comparison()
    assert reference.compare([]).p_value == 1.0
    assert reference.compare([]).strongest is None


def test_a_value_that_training_never_had_is_found_in_few_rows(random: np.random.Generator) -> None:
    text = Trained(random.choice(np.array(list("abc")), 100_000)).compare(["a", "b", "c"] * 330 + ["new"] * 5)
    assert (text.strongest, text.unseen_share) == ("unseen", pytest.approx(5 / 995))
    assert text.p_large < 1e-6
    number = Trained(random.normal(size=100_000)).compare([*random.normal(size=990), *([1e6] * 10)])
    assert (number.strongest, number.outside_share) == ("range", pytest.approx(0.01, abs=0.003))
    assert number.p_large < 1e-5


def test_extreme_values_neither_make_nor_hide_a_shift(random: np.random.Generator) -> None:
    reference = Trained(random.normal(size=100_000))
    values = random.normal(0.3, size=1_000)
    values[:10] = -1e6
    found = reference.compare(values)
    assert found.shift_sd == pytest.approx(0.27, abs=0.1)
    assert one(found, "mean").p_value < 1e-10


def windows(reference: Reference, **values: object) -> Sketch:
    return Ruler(reference, [*values]).sketch(values)


def test_an_alert_needs_two_windows_in_a_row(random: np.random.Generator) -> None:
    reference = profile({"a": random.normal(size=10_000), "b": random.normal(size=10_000)})
    moved = windows(reference, a=random.normal(0.3, size=5_000), b=random.normal(size=5_000))
    (a, b) = judge(reference, moved)
    assert (a.column, a.drifted, a.alert, a.test) == ("a", True, False, "mean")
    assert (b.column, b.drifted, b.alert) == ("b", False, False)
    (a, b) = judge(reference, moved, {"a", "b"})
    assert (a.alert, b.alert) == (True, False)
    (again, _) = judge(reference, moved, {"b"})
    assert not again.alert


def test_significance_without_an_effect_is_no_drift() -> None:
    values = stats.norm.ppf(np.arange(1, 1_000_000) / 1_000_000)
    reference = profile({"a": values})
    (verdict,) = judge(reference, windows(reference, a=values + 0.008))
    assert verdict.q_value < 1e-3
    assert verdict.ks < 0.01
    assert not verdict.drifted


def test_an_effect_is_large_only_with_confidence(random: np.random.Generator) -> None:
    many = random.normal(size=1_000_000)
    reference = Trained(many)
    shifts = {shift: one(reference.compare(many + shift), "mean").large for shift in (0.019, 0.021, 0.023)}
    assert shifts == {0.019: False, 0.021: False, 0.023: True}
    spreads = {scale: one(reference.compare(many * scale), "variance").large for scale in (1.015, 1.03)}
    assert spreads == {1.015: False, 1.03: True}
    texts = ["a"] * 500_000 + ["b"] * 500_000
    trained = Trained(texts)
    moved = {count: one(trained.compare(["b"] * count + texts[count:]), "shares").large for count in (5_000, 20_000)}
    assert moved == {5_000: False, 20_000: True}


def test_columns_the_reference_lacks_are_left_out(random: np.random.Generator) -> None:
    reference = profile({"a": random.normal(size=100)})
    other = profile({"new": random.normal(size=100), "a": random.normal(size=100)})
    sketch = windows(other, new=random.normal(size=100), a=random.normal(size=100))
    assert [verdict.column for verdict in judge(reference, sketch)] == ["a"]
    assert judge(reference, Sketch.empty([])) == []


def test_q_values_are_over_the_columns_judged(random: np.random.Generator) -> None:
    reference = profile({name: random.normal(size=2_000) for name in "abcd"})
    verdicts = judge(reference, windows(reference, **{name: random.normal(size=500) for name in "abcd"}))
    assert [verdict.q_value for verdict in verdicts] == benjamini_hochberg([verdict.p_value for verdict in verdicts])
    assert verdicts[0].null_share == 0.0


def old(random: np.random.Generator, **columns: list[object]) -> Reference:
    """A reference as an older release wrote it: categories chosen and counted on the same rows."""
    made = {}
    for name, values in columns.items():
        one = profile({name: values}).columns[name]
        common = sorted(set(values), key=lambda value: (-values.count(value), str(value)))[:64]
        counts = [values.count(category) for category in sorted(common, key=str)]
        text = one.kind == "categorical"
        made[name] = ColumnReference(
            kind=one.kind,
            count=one.count,
            nulls=one.nulls,
            nans=one.nans,
            mean=one.mean,
            sd=one.sd,
            bins=(*counts, len(values) - sum(counts)) if text else one.bins,
            edges=one.edges,
            categories=tuple(sorted(map(str, common))) if text else (),
        )
    return Reference(made)


def test_a_reference_of_an_older_release_is_judged_by_what_it_has(random: np.random.Generator) -> None:
    names = [f"c{number}" for number in range(1_000)]
    reference = old(random, x=random.normal(size=2_000).tolist(), t=random.choice(names, 2_000).tolist())
    ruler = Ruler(reference)
    (x, t) = judge(reference, ruler.sketch({"x": random.normal(size=500), "t": random.choice(names, 5_000).tolist()}))
    assert (x.drifted, t.drifted) == (False, False)
    assert {test.name for test in compare(reference.columns["x"], ruler.sketch({"x": np.ones(50)}), "x").tests} == {
        "missing",
        "shape",
        "mean",
    }
    (x, t) = judge(reference, ruler.sketch({"x": random.normal(0.5, size=500), "t": ["c0"] * 5_000}))
    assert (x.drifted, t.drifted) == (True, True)
    few = old(random, t=["a", "b", "c"] * 500)
    (t,) = judge(few, Ruler(few).sketch({"t": ["a", "b", "c"] * 300 + ["new"] * 30}))
    assert (t.drifted, t.test, t.unseen_share) == (True, "unseen", pytest.approx(30 / 930))
