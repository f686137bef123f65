"""Wrong labels in training data: planted ones are found by the model itself, wherever they are in time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kit.bakery import late_model
from kit.training_sets import toy
from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import HOUR, ManualClock
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


def test_keys_are_as_they_were_and_no_formula() -> None:
    data, _ = planted()
    large = 2**60 + 1
    parts = [
        replace(
            part,
            keys=pd.DataFrame(
                {"id": large + np.arange(len(part)), "weight": 0.5, "shop": "=cmd()", "day": pd.Timestamp("2026-01-05")}
            ),
        )
        for part in (data.train, data.validation, data.holdout)
    ]
    found = search(replace(data, train=parts[0], validation=parts[1], holdout=parts[2]), folds=2)
    assert all(each.keys["id"] >= large and type(each.keys["id"]) is int for each in found.suspects)
    json.dumps([each.keys for each in found.suspects])
    assert b",'=cmd()," in table_of(found)


def test_rows_within_the_embargo_of_a_block_are_not_fitted_on() -> None:
    data, _ = planted()
    fitted: list[Any] = []

    def spied(part: Any, run: Any) -> Any:
        fitted.append(part)
        return fit(part, run)

    tracking = MemoryTracking()
    with Run(tracking, tracking.start("late", {}, 0), ManualClock(), seed=7) as run:
        suspects(late_model(spied, task="binary"), replace(data, embargo_us=3 * HOUR), run)
    for part in fitted:
        rest = np.concatenate([part.train.at, part.validation.at])
        first, last = part.holdout.at[0], part.holdout.at[-1]
        assert np.all((rest < first - 2 * HOUR) | (rest > last + 2 * HOUR))
        assert len(rest) >= 1_000 - len(part.holdout) - 8
    assert sum(len(part.holdout) for part in fitted) == 1_000


def test_what_cannot_be_judged_says_so() -> None:
    data, _ = planted()
    with pytest.raises(Invalid, match="regression"):
        search(toy(100, "regression"))
    for folds in (1, 1_001):
        with pytest.raises(InvalidData, match=f"1,000 rows with 2 classes cannot be judged in {folds} folds"):
            search(data, folds=folds)
    y = np.zeros_like(data.train.y)
    y[:10] = 1
    validation, holdout = (replace(part, y=np.zeros_like(part.y)) for part in (data.validation, data.holdout))
    alone = replace(data, train=replace(data.train, y=y), validation=validation, holdout=holdout)
    with pytest.raises(InvalidData, match="Without block 1 of 5 no row has the label 1"):
        search(alone)
