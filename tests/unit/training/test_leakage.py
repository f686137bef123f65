"""Leaks: each kind is found where it is, and nothing where all is honest."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.training_sets import toy
from mainspring.core.schema import DType
from mainspring.training.sets.leakage import Leakage, find_leaks, refuse_leaks
from mainspring.training.sets.single_feature_auc import bins, is_shadow, knows_the_future, power_alone

pytestmark = pytest.mark.slow


def ids(data: Any) -> dict[str, bool]:
    return {each.id: each.severe for each in find_leaks(data)}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [60, 400, 3000])
def test_nothing_is_found_where_all_is_honest(task: str, seed: int, rows: int) -> None:
    noise = {f"noise{number}": (lambda X, y, rng: rng.normal(size=len(X)).astype(np.float32)) for number in range(40)}
    assert ids(toy(rows, task, seed, **noise)) == {}


def label(_X: Any, y: Any, _rng: Any) -> Any:
    return y.astype(object) if y.dtype == object else y.astype(np.float32)


def as_text(_X: Any, y: Any, _rng: Any) -> Any:
    return np.array([f"it was {each}" for each in y.tolist()], object)


def delay(_X: Any, y: Any, rng: Any) -> Any:
    """A number behind the label: minutes late, of which more than 15 count."""
    return np.where(y == 1, 15.5 + rng.gamma(2, 20, len(y)), 15 - rng.gamma(2, 20, len(y))).astype(np.float32)


def sometimes(_X: Any, y: Any, rng: Any) -> Any:
    return np.where(rng.random(len(y)) < 0.8, np.nan, -3.0 * y).astype(np.float32)


def grown(_X: Any, y: Any, _rng: Any) -> Any:
    return np.exp(-y).astype(np.float64)


SHADOWS = [
    ("binary", label), ("binary", as_text), ("binary", delay), ("binary", sometimes), ("multiclass", label),
    ("multiclass", as_text), ("regression", label), ("regression", grown),
]  # fmt: skip


@pytest.mark.parametrize(("task", "made"), SHADOWS, ids=[f"{task}-{made.__name__}" for task, made in SHADOWS])
def test_a_shadow_of_the_label(task: str, made: Any) -> None:
    assert ids(toy(1500, task, leak=made)) == {"shadow:V.leak": True}


def nearly(_X: Any, y: Any, rng: Any) -> Any:
    return (y + rng.normal(size=len(y)) * 0.2).astype(np.float32)


def strong(_X: Any, y: Any, rng: Any) -> Any:
    return (y + rng.normal(size=len(y)) * 0.5).astype(np.float32)


def bent(_X: Any, y: Any, rng: Any) -> Any:
    """Not a monotone function: in the middle if, and nearly only if, the label is 1."""
    return np.where(y == 1, rng.normal(0, 0.3, len(y)), rng.choice([-3, 3], len(y)) + rng.normal(0, 0.8, len(y)))


@pytest.mark.parametrize(("made", "severe"), [(nearly, True), (strong, False), (bent, True)])
def test_a_feature_that_alone_predicts_too_well(made: Any, severe: bool) -> None:
    data = toy(4000, leak=made)
    assert ids(data) == {"predicts-alone:V.leak": severe}
    [finding] = find_leaks(data)
    assert "AUC of 0.9" in finding.evidence


def test_a_regression_that_one_feature_all_but_is() -> None:
    def close(_X: Any, y: Any, rng: Any) -> Any:
        return y + 0.02 * rng.normal(size=len(y))

    def noisy(_X: Any, y: Any, rng: Any) -> Any:
        return y + 0.3 * rng.normal(size=len(y))

    assert ids(toy(20_000, "regression", one=close, two=noisy)) == {
        "predicts-alone:V.one": True, "predicts-alone:V.two": False,
    }  # fmt: skip


def test_whether_it_is_null_can_be_the_leak() -> None:
    def filled_afterwards(_X: Any, y: Any, rng: Any) -> Any:
        return np.where(y == 1, rng.normal(size=len(y)), np.nan).astype(np.float32)

    assert ids(toy(2000, leak=filled_afterwards)) == {"predicts-alone:V.leak": True}


def shifted(by: int) -> Any:
    def made(_X: Any, y: Any, rng: Any) -> Any:
        return (np.roll(y, -by) + 0.1 * rng.normal(size=len(y))).astype(np.float32)

    return made


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_column_shifted_the_wrong_way(task: str) -> None:
    assert ids(toy(2000, task, leak=shifted(1))) == {"knows-the-future:V.leak": True}
    assert ids(toy(2000, task, leak=shifted(3))) == {"knows-the-future:V.leak": True}
    assert ids(toy(2000, task, lag=shifted(-1), lag2=shifted(-3))) == {}


def test_a_series_that_remembers_is_honest() -> None:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=4000)) * 0.05
    for past in (1, 3):
        feature = np.r_[np.full(past, np.nan), walk[:-past]]
        assert knows_the_future(feature, walk) is None
    slow = np.convolve(rng.normal(size=4100), np.ones(50) / 50, "valid")[:4000]
    assert knows_the_future(slow, slow + 0.01 * rng.normal(size=4000)) is None


def test_columns_that_say_nothing() -> None:
    rows = 500
    empty = np.full(rows, np.nan, np.float32)
    found = ids(toy(rows, nothing=empty, one=np.ones(rows, np.float32), texts=np.array([None] * rows, object),
                    word=np.array(["a"] * rows, object)))  # fmt: skip
    assert found == {"all-null:V.nothing": False, "all-null:V.texts": False, "constant:V.one": False,
                     "constant:V.word": False}  # fmt: skip


def test_a_label_on_both_sides() -> None:
    data = toy(1000)
    assert data.train.keys is not None
    for share, severe in ((0.5, True), (0.02, False)):
        ours = data.holdout.keys.copy()  # type: ignore[union-attr]
        few = int(share * len(ours))
        ours.loc[: few - 1, "id"] = data.train.keys["id"].to_numpy()[:few]
        both = replace(data, holdout=replace(data.holdout, keys=ours))
        assert ids(both) == {"label-twice:holdout": severe}
    [finding] = find_leaks(both)
    assert finding.evidence == "2.0% of the holdout rows share their label (id) with a training row"


def test_copies_of_training_rows() -> None:
    data = toy(1000)
    for share, severe in ((0.5, True), (0.05, False)):
        few = int(share * len(data.validation))
        X = pd.concat([data.train.X.iloc[:few], data.validation.X.iloc[few:]], ignore_index=True)
        assert ids(replace(data, validation=replace(data.validation, X=X))) == {"duplicates:validation": severe}


def test_rows_that_repeat_by_nature_are_no_copies() -> None:
    assert ids(toy(1000).only(["V.c"])) == {}
    counts = toy(1000, count=lambda X, y, rng: rng.poisson(3, len(X)).astype(np.float32),
                 price=lambda X, y, rng: rng.choice([1.5, 2.5, 4.0], len(X)).astype(np.float32))  # fmt: skip
    assert ids(counts.only(["V.count", "V.price", "V.c"])) == {}
    few = toy(1000, some=lambda X, y, rng: np.round(rng.gamma(2, 100, len(X))).astype(np.float32))
    assert ids(few.only(["V.some"])) == {}


def test_what_is_severe_is_refused_unless_accepted() -> None:
    data = toy(1500, leak=label, none=np.full(1500, np.nan))
    with pytest.raises(Leakage, match=r"'late' leaks:\n  shadow:V\.leak: ") as raised:
        refuse_leaks("late", data)
    assert raised.value.fix is not None
    assert "accept_findings=['shadow:V.leak']" in raised.value.fix
    assert [each.id for each in raised.value.findings] == ["shadow:V.leak"]
    assert [each.id for each in refuse_leaks("late", data, ["shadow:V.leak"])] == ["all-null:V.none"]


numbers = st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")))


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, st.integers(0, 2)), min_size=1, max_size=12), st.integers(8, 30))
def test_a_shadow_is_what_the_definition_says(rows: list[tuple[float, int]], times: int) -> None:
    values = np.array([value for value, _ in rows] * times)
    labels = np.array([each for _, each in rows] * times)
    there = ~np.isnan(values)
    of_class = {each: values[there & (labels == each)] for each in np.unique(labels[there])}
    enough = there.sum() >= 40 and len(of_class) > 1 and min(map(len, of_class.values())) >= 20
    apart = all(
        one.max() < two.min() or two.max() < one.min() for one, two in itertools.combinations(of_class.values(), 2)
    )
    assert is_shadow(values, labels, "multiclass") == (enough and apart)


@given(st.lists(numbers, min_size=2, max_size=60))
def test_a_bin_has_the_same_value_on_its_edge_and_never_mixes_null(values: list[float]) -> None:
    codes, seen = bins(np.array(values), len(values) // 2)
    assert codes.min() >= 0
    assert codes.max() < seen
    by_value = {}
    for value, code in zip(values, codes.tolist(), strict=True):
        key = "null" if np.isnan(value) else value
        assert by_value.setdefault(key, code) == code
    if "null" in by_value:
        assert [key for key, code in by_value.items() if code == by_value["null"]] == ["null"]


def test_the_power_alone_is_the_auc_of_the_feature() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(40_000) < 0.3).astype(np.int64)
    x = y + rng.normal(size=40_000)
    found = power_alone(x, y, "binary")
    assert found is not None
    assert found.value == pytest.approx(0.76, abs=0.01)  # P(N(1, 1) > N(0, 1))
    assert found.lower < found.value


def test_many_features_and_rows_take_a_moment() -> None:
    noise = {f"noise{number}": (lambda X, y, rng: rng.normal(size=len(X)).astype(np.float32)) for number in range(30)}
    data = toy(100_000, **noise)
    begun = time.perf_counter()
    assert find_leaks(data) == []
    print(f"{time.perf_counter() - begun:.2f} s")


def test_boolean_features_are_numbers() -> None:
    data = toy(500, flag=lambda X, y, rng: (rng.random(len(X)) < 0.5).astype(np.float32))
    assert ids(replace(data, dtypes={**data.dtypes, "V.flag": DType.Boolean})) == {}
