"""A training set that leaks is not trained on, unless the model's declaration says that it is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.bakery import Bakery, Order, Traffic, late_model, order, orders, outcomes, shop
from kit.later import later
from mainspring.core.errors import Invalid
from mainspring.training.sets.leakage import Leakage

later("sklearn")


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    world = Bakery(tmp_path_factory.mktemp("bakery"))
    world.ingest()
    return world


def hindsight(**features: Any) -> Any:
    """The outcome of the very order, as features of a prediction that is declared to be made 12 hours too late."""
    view = ms.feature_view(entity=order, source=outcomes)(type("Hindsight", (), features))
    at = ms.Observations(orders, keys=[order, shop], at=ms.col("placed_at") + ms.hours(12))
    return {"observations": at, "features": [Traffic, Order, view]}


def test_an_honest_set_is_trained_on_and_nothing_is_said(bakery: Bakery) -> None:
    assert bakery.trainer.train(late_model()).findings == []


def test_the_label_as_a_feature_is_refused_before_anything_is_fitted(bakery: Bakery) -> None:
    def never(_data: Any, _run: Any) -> Any:
        raise AssertionError("it was fitted")

    with pytest.raises(Leakage, match=r"shadow:Hindsight\.late") as raised:
        bakery.trainer.train(late_model(never, **hindsight(late=ms.last("late"))))
    assert [each.subject for each in raised.value.findings] == ["Hindsight.late"]
    [newest, *_] = bakery.tracking.search()
    assert newest.status == "FAILED"


def test_what_the_model_accepts_is_trained_on(bakery: Bakery) -> None:
    accepted = {**hindsight(late=ms.last("late")), "accept_findings": ["shadow:Hindsight.late"]}
    report = bakery.trainer.train(late_model(**accepted))
    assert report.findings == []
    assert report.metrics["auc"] > 0.99


def test_a_warning_is_reported(bakery: Bakery) -> None:
    constant = ms.request_features(type("Same", (), {"yes": (ms.col("order") >= 0).cast(ms.Float32)}))
    report = bakery.trainer.train(late_model(features=[Traffic, Order, constant]))
    assert report.findings == ["constant:Same.yes: 1.0 in all 2,352 rows"]
    assert bakery.tracking.artefact(report.run_id, "leakage.txt").decode() == "".join(report.findings)


@pytest.mark.parametrize("wrong", ["shadow", "leak:V.x", "V.x"])
def test_only_known_checks_are_accepted(wrong: str) -> None:
    with pytest.raises(Invalid, match="the checks are shadow"):
        late_model(accept_findings=[wrong])


def test_the_keys_of_the_label_are_there(bakery: Bakery, tmp_path: Path) -> None:
    def look(data: ms.TrainingSet, run: ms.Run) -> Any:
        from kit.bakery import fit_trees

        assert data.train.keys is not None
        assert data.train.keys.columns.tolist() == ["order"]
        assert len(data.train.keys) == len(data.train)
        assert data.embargo_us == 3_600_000_000
        return fit_trees(data, run)

    bakery.trainer.train(late_model(look, embargo="1h"))
