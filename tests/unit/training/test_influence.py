"""Influence of groups of rows: planted poison is found, harmless groups are not accused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from kit.bakery import late_model
from kit.depth import examples
from kit.training_sets import toy
from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import ManualClock
from mainspring.data.without import Without
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.stats.metrics import named
from mainspring.training.influence import Influence, influences, of_both, parted_as
from mainspring.training.runs.run import Run
from mainspring.training.sets.training_set import Split, TrainingSet

pytestmark = pytest.mark.slow
SHOPS = 10


def fit(data: Any, _run: Any) -> Any:
    return LogisticRegression().fit(data.train.X, data.train.y)


def shops_of(rows: Split) -> np.ndarray[Any, Any]:
    assert rows.keys is not None
    return rows.keys["shop"].to_numpy()


def made(seed: int, *, turned: float = 0.0, rows: int = 10_000) -> TrainingSet:
    """Rows of ten shops, of which the first has a share of its labels turned round."""
    rng = np.random.default_rng(seed)
    data = toy(rows, seed=seed).only(["V.a"])

    def of(part: Split) -> Split:
        shop = rng.integers(0, SHOPS, len(part))
        bad = (shop == 0) & (rng.random(len(part)) < turned)
        keys = pd.DataFrame({"id": np.arange(len(part)), "shop": shop})
        return replace(part, y=np.where(bad, 1 - part.y, part.y), keys=keys)

    return replace(data, train=of(data.train), validation=of(data.validation), holdout=of(data.holdout))


def without(data: TrainingSet, group: Without) -> TrainingSet:
    def less(part: Split) -> Split:
        kept = np.flatnonzero(shops_of(part) != int(group.value))
        assert part.keys is not None
        return Split(
            part.X.iloc[kept].reset_index(drop=True), part.y[kept], part.at[kept],
            part.keys.iloc[kept].reset_index(drop=True),
        )  # fmt: skip

    return replace(data, train=less(data.train), validation=less(data.validation), holdout=less(data.holdout))


def measured(data: TrainingSet, groups: int = SHOPS) -> list[Influence]:
    tracking, metric = MemoryTracking(), named("log_loss")
    assert metric is not None
    asked = {Without("orders", "shop", str(shop)): 1 for shop in range(groups)}
    with Run(tracking, tracking.start("late", {}, 0), ManualClock(), seed=7) as run:
        return influences(late_model(fit), data, asked, lambda group: without(data, group), metric, run)


def test_a_poisoned_group_is_found_and_others_are_not_accused() -> None:
    """Of ten shops one has all its labels turned; the others are alike. Power and false alarms as in ADR 68."""
    found, accused = 0, 0
    tries = examples(gate=2, deep=100)
    for seed in range(3, 3 + tries):
        results = measured(made(seed, turned=1.0))
        harmful = {each.group.value for each in results if each.harmful}
        found += "0" in harmful
        accused += bool(harmful - {"0"})
        assert len(results) == SHOPS
    assert found >= 0.7 * tries
    assert accused <= 0.05 * tries


def test_harmless_groups_are_not_accused() -> None:
    tries = examples(gate=2, deep=100)
    accused = sum(any(each.harmful for each in measured(made(1_000 + seed))) for seed in range(tries))
    assert accused <= 0.05 * tries


def test_a_group_is_judged_on_the_held_out_rows_of_others() -> None:
    data = made(1)
    for each in measured(data, 2):
        assert each.judged_on == int((shops_of(data.holdout) != int(each.group.value)).sum())
        assert each.fitted_on == int((shops_of(data.train) != int(each.group.value)).sum())
        assert each.low is not None
        assert each.low < each.gain < (each.high or 0.0)


def test_rows_of_other_parts_do_not_move_into_the_training_rows() -> None:
    data = made(2)
    rest = without(data, Without("orders", "shop", "3"))
    every = Split.joined([rest.train, rest.validation, rest.holdout])
    moved = replace(rest, train=every.rows(slice(0, 8_000)), validation=every.rows(slice(8_000, 8_100)),
                    holdout=every.rows(slice(8_100, None)))  # fmt: skip
    parted = parted_as(moved, data)
    for name in ("train", "validation", "holdout"):
        assert np.array_equal(getattr(parted, name).at, getattr(rest, name).at)
    with pytest.raises(InvalidData, match="the validation part has no other rows"):
        parted_as(replace(moved, holdout=every.rows(slice(0, 0)), validation=every.rows(slice(0, 0)),
                          train=every.rows(slice(0, 100))), data)  # fmt: skip


def test_of_few_groups_the_held_out_rows_alone_decide() -> None:
    harmful = {each.group.value for each in measured(made(4, turned=1.0), 3) if each.harmful}
    assert harmful == {"0"}


def test_held_out_rows_whose_label_changed_do_not_count() -> None:
    data = made(3)
    rest = replace(data.holdout, y=np.where(np.arange(len(data.holdout)) < 5, 1 - data.holdout.y, data.holdout.y))
    assert np.flatnonzero(~of_both(data.holdout, rest)).tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_measured_says_why() -> None:
    data = made(4)
    alone = replace(data, holdout=replace(data.holdout, keys=data.holdout.keys.assign(shop=0)))  # type: ignore[union-attr]
    by_shop = {each.group.value: each for each in measured(alone, 2)}
    assert by_shop["0"].why_not == "the holdout part has no other rows"
    assert not by_shop["1"].why_not
    with pytest.raises(Invalid, match="one label"):
        measured(replace(data, labels=("a", "b")))
