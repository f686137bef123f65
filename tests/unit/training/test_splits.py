"""Splits by time: parts are ordered, disjoint, of the sizes asked for; folds agree with their definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR
from mainspring.training.sets.splits import cut_by_time, folds_by_time
from mainspring.training.sets.training_set import Split, TrainingSet


def test_a_share_of_the_rows() -> None:
    cut = cut_by_time(np.arange(100), 0.2)
    assert cut == (slice(0, 70), slice(70, 80), slice(80, 100))


def test_a_duration_up_to_the_newest_row() -> None:
    at = np.arange(20) * DAY
    assert cut_by_time(at, "4d") == (slice(0, 14), slice(14, 16), slice(16, 20))


def test_an_instant_is_never_on_both_sides() -> None:
    at = np.array([0] * 10 + [1] * 10 + [2] * 30)
    cut = cut_by_time(at, 0.5)
    assert cut == (slice(0, 10), slice(10, 20), slice(20, 50))


def test_an_embargo_leaves_out_what_lies_just_before() -> None:
    at = np.arange(20) * DAY
    cut = cut_by_time(at, "4d", embargo=12 * HOUR)
    assert cut == (slice(0, 13), slice(14, 15), slice(16, 20))


@given(
    st.lists(st.integers(0, 300), min_size=3, max_size=200).map(sorted),
    st.one_of(st.floats(0.01, 0.6), st.integers(1, 400).map(lambda length: f"{length}us")),
    st.integers(0, 20),
)
def test_the_rules_hold_for_any_rows(instants: list[int], holdout: float | str, embargo: int) -> None:
    at = np.array(instants)
    try:
        cut = cut_by_time(at, holdout, embargo=embargo)
    except InvalidData:
        assume(False)
    train, validation, held_out = (at[part] for part in cut)
    assert train.max() < validation.min() <= validation.max() < held_out.min()
    assert held_out.max() == at.max()
    assert validation.min() - train.max() >= embargo
    assert held_out.min() - validation.max() >= embargo
    left_out = set(range(len(at))) - {row for part in cut for row in range(part.start, part.stop)}
    judged, checked = held_out.min(), validation.min()
    for row in left_out:
        before = judged if at[row] > validation.max() else checked
        assert before - at[row] < embargo + (parse(holdout) if isinstance(holdout, str) else 1)


def parse(holdout: str) -> int:
    return int(holdout.removesuffix("us"))


@pytest.mark.parametrize(
    ("rows", "holdout", "part"),
    [(0, 0.2, "no labelled"), (1, 0.2, "train"), (10, "100d", "train"), (2, 0.5, "train"), (10, "1us", "validation")],
)
def test_an_empty_part_is_named(rows: int, holdout: float | str, part: str) -> None:
    with pytest.raises(InvalidData, match=part):
        cut_by_time(np.arange(rows) * DAY, holdout)


@given(
    st.lists(st.integers(0, 300), min_size=30, max_size=100).map(sorted),
    st.one_of(st.floats(0.2, 0.6), st.integers(60, 150).map(lambda length: f"{length}us")),
    st.integers(0, 25),
)
def test_no_two_parts_share_a_moment_of_a_label(instants: list[int], holdout: float | str, embargo: int) -> None:
    """Every pair of rows of different parts, by brute force: the earlier one's label is known before the later one."""
    try:
        cut = cut_by_time(np.array(instants), holdout, embargo=embargo)
    except InvalidData:
        assume(False)
    parts = [[instants[row] for row in range(part.start, part.stop)] for part in cut]
    for position, earlier in enumerate(parts):
        for later in parts[position + 1 :]:
            for known_from in earlier:
                for asked_at in later:
                    window = range(known_from, known_from + embargo + 1)
                    assert asked_at not in window
                    assert asked_at > window[-1]


@given(
    st.lists(st.integers(0, 200), min_size=2, max_size=60).map(sorted),
    st.integers(1, 6),
    st.integers(0, 15),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_the_rules_hold_row_by_row(instants: list[int], count: int, embargo: int, window: int | None) -> None:
    at = np.array(instants)
    try:
        made = folds_by_time(at, count, embargo=embargo, window=window)
    except InvalidData:
        assume(False)
    assert len(made) == count
    seen: list[int] = []
    for fold in made:
        judged = list(range(*fold.validation.indices(len(at))))
        begin = min(instants[row] for row in judged)
        # a row trains if its label's window, closed at both ends, ends before the validation, and it is not too old
        may = [row for row, when in enumerate(instants) if when + embargo < begin]
        if window is not None:
            may = [row for row in may if instants[row] >= begin - embargo - window]
        assert list(range(*fold.train.indices(len(at)))) == may
        assert not {instants[row] for row in judged} & {instants[row] for row in seen}
        seen += judged
    assert seen == list(range(made[0].validation.start, len(at)))  # each row is validated on once


def test_without_ties_and_embargo_they_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.model_selection import TimeSeriesSplit

    for rows, count in ((12, 3), (100, 4), (60, 5)):
        theirs = [(len(train), len(test)) for train, test in TimeSeriesSplit(count).split(np.zeros(rows))]
        ours = [(fold.train.stop, fold.validation.stop - fold.validation.start)
                for fold in folds_by_time(np.arange(rows), count)]  # fmt: skip
        assert ours == theirs


@pytest.mark.parametrize(
    ("rows", "count", "embargo", "what"),
    [(0, 2, 0, "no labelled"), (3, 5, 0, "empty"), (10, 1, 100 * DAY, "train part of fold 1")],
)
def test_an_empty_part_of_a_fold_is_named(rows: int, count: int, embargo: int, what: str) -> None:
    with pytest.raises(InvalidData, match=what):
        folds_by_time(np.arange(rows) * DAY, count, embargo=embargo)


def test_no_folds_are_refused() -> None:
    with pytest.raises(Invalid, match="number of folds is 0"):
        folds_by_time(np.arange(9), 0)


def made_set(rows: int = 90, embargo_us: int = 0) -> TrainingSet:
    every = Split(pd.DataFrame({"V.x": np.arange(rows, dtype=np.float32)}), np.arange(rows) % 2, np.arange(rows) * DAY,
                  pd.DataFrame({"id": np.arange(rows)}))  # fmt: skip
    cut = (slice(0, 60), slice(60, 75), slice(75, rows))
    train, validation, holdout = (every.rows(part) for part in cut)
    return TrainingSet(train, validation, holdout, {"V.x": DType.Float32}, "binary", 0, embargo_us)


def test_a_training_sets_folds_never_see_the_holdout() -> None:
    data = made_set()
    folds = data.folds(4)
    assert [len(fold.train) for fold in folds] == [15, 30, 45, 60]
    assert all(len(fold.validation) == 15 for fold in folds)
    assert max(fold.validation.at.max() for fold in folds) < data.holdout.at.min()
    for fold in folds:
        for part, indices in zip((fold.train, fold.validation), fold.indices, strict=True):
            assert part.X["V.x"].tolist() == data.development.X["V.x"].iloc[indices].tolist()
            assert part.keys is not None
            assert part.keys["id"].tolist() == indices.tolist()


def test_the_models_embargo_holds_unless_another_is_given() -> None:
    data = made_set(embargo_us=5 * DAY)
    assert len(data.folds(4)[0].train) == 10
    assert len(data.folds(4, embargo=0)[0].train) == 15
    assert [len(fold.train) for fold in data.folds(4, embargo=0, window="10d")] == [10] * 4


def test_they_are_a_cv_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    data = made_set()
    rows = data.development
    cv = [fold.indices for fold in data.folds(3)]
    assert len(cross_val_score(LogisticRegression(), rows.X, rows.y, cv=cv)) == 3
