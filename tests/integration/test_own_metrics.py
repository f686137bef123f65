"""Metrics beside the task's, and a threshold chosen by cost: measured, recorded, gated on, never silently missing."""

from __future__ import annotations

import io
import math
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.auditing import audit_log
from kit.bakery import ORDERS, START, Bakery, late_model, regress
from mainspring.core.time import MINUTE
from mainspring.delivery.promote import promote
from mainspring.governance.performance import performance_of
from mainspring.project.catalog import memory_catalog
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.stats.metrics import MetricFailed
from mainspring.stats.thresholds import THRESHOLD
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.model import Model
from mainspring.training.mutable import MUTABLE

UNTIL = START + ORDERS * 10 * MINUTE


@ms.metric(higher_is_better=True)
def late_found(y: Any, score: Any) -> float:
    """How many late orders are among the fifty that score highest."""
    return float(y[np.argsort(-score, kind="stable")[:50]].sum())


@ms.metric(higher_is_better=True)
def undefined(y: Any, score: Any) -> float:
    return math.nan


@ms.metric(higher_is_better=True)
def broken(y: Any, score: Any) -> float:
    raise ValueError("no such column")


def model(**changed: Any) -> Model:
    made: Model = late_model(regress, **{"baseline": [], **changed})
    return made


GATES = [
    ms.beats("average_precision", by=0.01),
    ms.beats(late_found),
    ms.at_least(ms.recall_at_precision(0.5), 0.05),
    ms.at_most("cost", 5.0),
]


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    made.ingest()
    return made


@pytest.fixture(scope="module")
def declared() -> Model:
    costs = ms.Costs(false_positive=1, false_negative=9)
    return model(metrics=[late_found, undefined], gates=GATES, threshold=costs, mutable={"Order.weight": "decrease"})


@pytest.fixture(scope="module")
def report(bakery: Bakery, declared: Model) -> Any:
    return bakery.trainer.train(declared, until=UNTIL)


@pytest.fixture(scope="module")
def bundle(bakery: Bakery, report: Any) -> Bundle:
    return bakery.bundles.load(report.digest)


def test_every_declared_and_gated_metric_is_recorded_with_the_version(bakery: Bakery, report: Any) -> None:
    names = {"auc", "average_precision", "late_found", "recall_at_precision_0.5", "cost", "precision", "recall"}
    assert names <= report.metrics.keys()
    assert names - {"precision"} <= report.baseline.keys()  # a constant may flag nothing
    run = bakery.tracking.get(report.run_id)
    assert run.metrics["holdout.late_found"] == report.metrics["late_found"] > report.baseline["late_found"]


def test_what_is_not_defined_is_said(report: Any) -> None:
    assert "undefined" not in report.metrics
    assert report.undefined == [f"undefined is not defined on the {report.holdout_rows} held-out rows."]


def test_the_threshold_is_recorded_and_its_cost_is_that_of_the_held_out_rows(
    bakery: Bakery, report: Any, bundle: Bundle
) -> None:
    assert bundle.manifest.extra[MUTABLE] == {"Order.weight": "decrease"}
    kept = bundle.manifest.extra[THRESHOLD]
    assert kept == {"value": report.threshold, "false_positive": 1, "false_negative": 9}
    assert float(bakery.tracking.get(report.run_id).params["threshold"]) == pytest.approx(report.threshold)
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    late, flagged = np.array(held_out["_label"].to_pylist(), bool), score_bundle(bundle, held_out) >= kept["value"]
    cost = (1 * (flagged & ~late).sum() + 9 * (~flagged & late).sum()) / len(late)
    assert report.metrics["cost"] == pytest.approx(cost)
    assert report.metrics["recall"] == pytest.approx((flagged & late).sum() / late.sum())
    assert 0 < report.threshold < 0.5  # a missed late order costs nine times a false alarm


def promoted(bakery: Bakery, version: str, declared: Model, routes: CatalogRoutes) -> Any:
    return promote(
        "late-order", version, gates=declared.gates, versions=bakery.versions, load=bakery.bundles.load,
        routes=routes, endpoints=[], gated=(), audit=audit_log(), clock=bakery.clock, actor="ana",
        metrics=declared.measured, threshold=declared.threshold,
    )  # fmt: skip


def sealed_again(bakery: Bakery, report: Any, at: int) -> str:
    """Register the same model as another version."""
    bundle = bakery.bundles.load(report.digest)
    other = seal(msgspec.structs.replace(bundle.manifest, created_at=at), bundle.files, bakery.signing_key)
    bakery.bundles.save(other)
    return bakery.versions.register("late-order", other.digest, f"run {at}", {}, at).version


def test_gates_are_judged_on_them_against_the_baseline_and_the_champion(
    bakery: Bakery, report: Any, declared: Model
) -> None:
    routes = CatalogRoutes(memory_catalog())
    first = promoted(bakery, report.version, declared, routes)
    assert (first.promoted, len(first.results)) == (True, 4), first.results
    second = promoted(bakery, sealed_again(bakery, report, 1), declared, routes)
    against = [each for each in second.results if each.against == f"champion {report.version}"]
    assert [each.value == each.needed for each in against] == [True, True]
    assert against[1].value == report.metrics["late_found"]
    failing = model(metrics=[broken], gates=[ms.beats(broken)])
    refused = promoted(bakery, sealed_again(bakery, report, 2), failing, routes)
    assert not refused.promoted
    assert ["no broken" in each.note or "'broken' failed" in each.note for each in refused.results] == [True, True]


def test_the_card_has_them_with_intervals_and_a_failing_one_is_a_gap(bundle: Bundle, declared: Model) -> None:
    found, gaps = performance_of(bundle, (), declared.measured)
    assert found is not None
    shown = {each.metric: each for each in found.metrics}
    for name in ("average_precision", "late_found", "recall_at_precision_0.5", "cost", "recall"):
        each = shown[name]
        assert each.low is not None
        assert each.high is not None
        assert each.low <= each.value <= each.high
    assert (shown["cost"].higher_is_better, shown["late_found"].higher_is_better) == (False, True)
    assert not [gap for gap in gaps if "late_found" in gap.what]
    fails = ms.metric(higher_is_better=True, name="late_found")(broken.compute)
    found, gaps = performance_of(bundle, (), [fails])
    assert found is not None
    assert "late_found" not in {each.metric for each in found.metrics}
    assert [gap.required for gap in gaps if "'late_found' failed" in gap.what] == [True]


def test_one_that_raises_ends_the_run_before_the_function_is_called(bakery: Bakery) -> None:
    called = []

    def train(data: ms.TrainingSet, run: ms.Run) -> Any:
        called.append(data)
        return regress(data, run)

    before = len(bakery.versions.all("late-order"))
    with pytest.raises(MetricFailed, match=r"'broken' failed at .*: ValueError: no such column"):
        bakery.trainer.train(late_model(train, metrics=[broken]), until=UNTIL)
    assert not called
    assert len(bakery.versions.all("late-order")) == before
