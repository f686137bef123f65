"""Folds by time, against the definition taken row by row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import DType
from mainspring.core.time import DAY
from mainspring.training.sets.folds import folds_by_time
from mainspring.training.sets.training_set import Split, TrainingSet

pytest.importorskip("sklearn")


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
def test_an_empty_part_is_named(rows: int, count: int, embargo: int, what: str) -> None:
    with pytest.raises(InvalidData, match=what):
        folds_by_time(np.arange(rows) * DAY, count, embargo=embargo)


def test_no_folds_are_refused() -> None:
    with pytest.raises(Invalid, match="0 folds"):
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
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    data = made_set()
    rows = data.development
    cv = [fold.indices for fold in data.folds(3)]
    assert len(cross_val_score(LogisticRegression(), rows.X, rows.y, cv=cv)) == 3
