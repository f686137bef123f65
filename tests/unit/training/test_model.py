"""What a user declares about a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import mainspring as ms
from kit.bakery import Order, Traffic, late_model, outcomes
from mainspring.core.definition_registry import collecting
from mainspring.core.errors import Invalid
from mainspring.core.time import HOUR


def test_a_model_is_collected_with_its_place() -> None:
    with collecting() as declared:
        made = late_model(embargo="3h")
    assert declared.items[0][0] is made
    assert (made.holdout, made.embargo_us, made.seed) == (0.2, 3 * HOUR, 7)
    assert made.description == "Histogram trees over numbers and ordinal codes."


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "ranking"}, "'ranking'"),
        ({"holdout": 0.0}, "holdout=0.0"),
        ({"holdout": 0.7}, "holdout=0.7"),
        ({"holdout": "soon"}, "'soon'"),
        ({"embargo": "later"}, "'later'"),
        ({"features": []}, "no features"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        late_model(**changed)


def test_a_name_is_an_id() -> None:
    with pytest.raises(Invalid, match="model"):
        ms.model("../x", observations=None, features=[], label=None, task="binary")  # type: ignore[arg-type]


def test_gates_say_what_they_ask() -> None:
    gates = [ms.beats("auc", by=0.005), ms.at_most("brier", 0.2), ms.at_least("accuracy", 0.7)]
    assert [str(gate) for gate in gates] == ["auc beats by 0.005", "brier at most 0.2", "accuracy at least 0.7"]


def test_replaced_features_do_not_silently_keep_the_columns_of_before() -> None:
    both, few = late_model(), late_model(features=[Order])
    with pytest.raises(Invalid, match=r"Traffic\.\w+ not in the groups.*columns=\(\)"):
        replace(both, features=(Order,))
    with pytest.raises(Invalid, match=r"none of Traffic is selected"):
        replace(few, features=(Order, Traffic))
    with pytest.raises(Invalid, match=r"baseline_columns=\(\)"):
        replace(both, baseline=(Traffic,))
    assert replace(both, features=(Order,), columns=()).columns == few.columns
    assert replace(both, seed=3).columns == both.columns


@ms.metric(higher_is_better=False)
def regret(y: Any, score: Any) -> float:
    return 0.0


def test_gates_and_searches_name_metrics_or_are_given_them() -> None:
    made = late_model(
        gates=[ms.at_most(regret, 3), ms.at_least(ms.recall_at_precision(0.9), 0.2), ms.at_most("cost", 1)],
        metrics=[regret],
        threshold=ms.Costs(false_positive=1, false_negative=2),
        search=ms.Search(regret, space=ms.space(depth=ms.integer(1, 3))),
    )
    assert [gate.metric for gate in made.gates] == ["regret", "recall_at_precision_0.9", "cost"]
    assert (made.search.metric, made.search.maximize) == ("regret", False)
    assert [each.name for each in made.measured] == ["regret", "recall_at_precision_0.9"]
    assert {gate.metric for gate in made.gates} < set(made.metric_names)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metrics": [len]}, "has the metric <built-in function len>"),
        ({"metrics": [regret, regret]}, "twice"),
        ({"task": "regression", "metrics": [ms.recall_at_k(5)]}, "'recall_at_5' of another task"),
        ({"task": "regression", "threshold": ms.Costs(false_positive=1, false_negative=1)}, "has the threshold"),
        ({"threshold": 0.5}, "has the threshold 0.5"),
        ({"mutable": {"Order.nothing": "any"}}, "no input 'Order.nothing' that could change"),
        ({"mutable": {"Order.weight": "up"}}, "cannot change by 'up'"),
        ({"mutable": ["Order.weight"]}, "mutable inputs"),
        ({"search": ms.Search(regret, space=ms.space(depth=ms.integer(1, 3)))}, "a search by 'regret'"),
    ],
)
def test_metrics_that_do_not_go_with_the_model_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        late_model(**changed)


def test_a_replaced_label_is_the_one_that_is_trained_on() -> None:
    before, other = late_model(), ms.Label(outcomes.minutes)
    assert replace(before, label=other).labels == (other,)
    numbers = ms.Source("numbers", schema={"order": ms.Int64, "metres": ms.Float32}, event_time="read_at")
    several = late_model(label=[outcomes.minutes, numbers.metres], task="regression", gates=[])
    with pytest.raises(Invalid, match=r"the label outcomes\.minutes and the labels .*labels=\(\)"):
        replace(several, label=other)
    assert replace(several, label=other, labels=()).labels == (other,)
    assert replace(several, seed=3).labels == several.labels
