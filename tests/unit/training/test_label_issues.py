"""Wrong labels in training data: planted ones are found by the model itself, wherever they are in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kit.bakery import late_model
from kit.training_sets import toy
from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.label_issues import Suspects, suspects, table_of
from mainspring.training.runs.run import Run
from mainspring.training.sets.training_set import TrainingSet

pytestmark = pytest.mark.slow


def fit(data: Any, _run: Any) -> Any:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["V.a", "V.b", "V.sure"]), (OneHotEncoder(), ["V.c"])
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500)).fit(data.train.X, data.train.y)


def planted(task: str = "binary", every: int = 25) -> tuple[TrainingSet, set[int]]:
    """Return rows of which each 25th has a wrong label, and those rows; a feature makes the classes plain."""

    def sure(_X: Any, y: Any, rng: Any) -> Any:
        _, place = np.unique(y, return_inverse=True)
        return (10.0 * place + rng.normal(size=len(y))).astype(np.float32)

    data, wrong, first = toy(1_000, task, sure=sure), set[int](), 0
    parts = []
    for part in (data.train, data.validation, data.holdout):
        classes, place = np.unique(part.y, return_inverse=True)
        rows = np.arange(len(part))
        bad = (rows + first) % every == 0
        parts.append(replace(part, y=np.where(bad, classes[(place + 1) % len(classes)], part.y)))
        wrong |= {*(rows[bad] + first).tolist()}
        first += len(part)
    train, validation, holdout = parts
    return replace(data, train=train, validation=validation, holdout=holdout), wrong


def search(data: TrainingSet, **options: Any) -> Suspects:
    tracking = MemoryTracking()
    with Run(tracking, tracking.start("late", {}, 0), ManualClock(), seed=7) as run:
        return suspects(late_model(fit, task=data.task), data, run, **options)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_planted_labels_are_found_in_every_part_with_the_class_that_they_had(task: str) -> None:
    data, wrong = planted(task)
    found = search(data)
    ids = {each.keys["id"] for each in found.suspects}
    assert len(ids & wrong) / len(wrong) >= 0.75
    assert len(ids & wrong) / len(ids) >= 0.75
    assert max(ids) >= 800 > 100 > min(ids)
    assert all(each.label != each.suggested for each in found.suspects)
    off = sum(map(sum, found.joint)) - sum(row[place] for place, row in enumerate(found.joint))
    assert off == pytest.approx(len(wrong), rel=0.3)


def test_a_twin_with_the_suggested_label_is_said() -> None:
    data, _ = planted()
    X = data.train.X.copy()
    X.iloc[0] = X.iloc[1] = X.iloc[2]
    y = data.train.y.copy()
    y[0], y[1] = 1 - y[2], y[2]
    found = search(replace(data, train=replace(data.train, X=X, y=y)))
    [first] = [each for each in found.suspects if each.keys["id"] == 0]
    assert first.repeats
    assert not any(each.repeats for each in found.suspects if each.keys["id"] > 2)


def test_the_table_of_suspects_leaves_out_what_identifies_a_person() -> None:
    data, _ = planted()
    found = search(data, folds=2)
    header = b"id,at,label,suggested,confidence,repeats"
    assert table_of(found).splitlines()[0] == header
    assert table_of(found, hidden=["id"]).splitlines()[0] == header.removeprefix(b"id,")
    assert len(table_of(found).splitlines()) == len(found.suspects) + 1


def test_what_cannot_be_judged_says_so() -> None:
    data, _ = planted()
    with pytest.raises(Invalid, match="regression"):
        search(toy(100, "regression"))
    with pytest.raises(Invalid, match="1 fold"):
        search(data, folds=1)
    y = np.zeros_like(data.train.y)
    y[:10] = 1
    validation, holdout = (replace(part, y=np.zeros_like(part.y)) for part in (data.validation, data.holdout))
    alone = replace(data, train=replace(data.train, y=y), validation=validation, holdout=holdout)
    with pytest.raises(InvalidData, match="Without block 1 of 5 no row has the label 1"):
        search(alone)
