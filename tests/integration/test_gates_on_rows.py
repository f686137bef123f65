"""Gates with intervals and slices on a trained version: its bundle keeps what they need."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit import bakery
from kit.auditing import audit_log
from kit.bakery import Bakery, Order, Traffic, outcomes, placed
from mainspring.core.errors import Invalid
from mainspring.core.time import HOUR
from mainspring.delivery.held_out import score_held_out
from mainspring.delivery.model import GateResult
from mainspring.delivery.promote import promote
from mainspring.delivery.verdicts import verdicts
from mainspring.project.catalog import memory_catalog
from mainspring.registry.model import AliasMove, Bundle
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.stats.metrics import score
from mainspring.training.gate_kinds import Gate
from mainspring.training.model import Model


def late(gates: list[Gate], baseline: list[ms.FeatureView] | None = None) -> Model:
    build = ms.model(
        "late", observations=placed, features=[Order], baseline=baseline or [], label=outcomes.late, task="binary",
        gates=gates, holdout=0.4,
    )  # fmt: skip
    return build(bakery.fit_trees)


@pytest.fixture
def world(tmp_path: Path) -> Bakery:
    made = Bakery(tmp_path)
    made.ingest()
    return made


def judged(world: Bakery, gates: list[Gate]) -> tuple[GateResult, ...]:
    promotion = promote(
        "late", world.versions.all("late")[0].version, gates=gates, versions=world.versions, load=world.bundles.load,
        routes=CatalogRoutes(memory_catalog()), endpoints=[], gated=(), audit=audit_log(),
        clock=world.clock, actor="ana",
    )  # fmt: skip
    return promotion.results


@pytest.mark.parametrize("fitted", [False, True])
def test_the_baselines_predictions_are_kept_and_have_its_metrics(world: Bakery, fitted: bool) -> None:
    report = world.trainer.train(late([], [Traffic] if fitted else None))
    bundle = world.bundles.load(report.digest)
    rows = score_held_out(bundle)
    assert rows.other is not None
    found = score("binary", rows.other.truth, rows.other.scores)
    assert found == pytest.approx(report.baseline)
    assert rows.metrics(rows.candidate) == pytest.approx(report.metrics)


def test_gates_by_a_feature_of_the_model_of_its_baseline_and_by_a_column_of_the_observations(world: Bakery) -> None:
    gates = [
        ms.gates.beats("auc", by=0.05, sure=0.95),
        ms.gates.at_least("auc", 0.55, by_slice=["kind", "shop"], least_rows=100),
        ms.gates.at_least("auc", 0.5, by_slice="Traffic.visits_1h", least_rows=1, insufficient="pass"),
    ]
    report = world.trainer.train(late(gates, [Traffic]))
    columns = pq.read_schema(io.BytesIO(world.bundles.load(report.digest).files["holdout.parquet"])).names
    assert {"shop", "Traffic.visits_1h", "_baseline"} < set(columns)
    assert "Traffic.mean_spent_24h" not in columns
    sure, kind, shop, visits = judged(world, gates)
    assert sure.interval is not None
    assert sure.interval[0] < report.metrics["auc"] < sure.interval[1]
    assert sure.needed == pytest.approx(report.baseline["auc"] + 0.05)
    assert (kind.slice.split("=")[0], shop.slice.split("=")[0]) == ("kind", "shop")
    assert visits.slice.startswith("Traffic.visits_1h=")
    assert kind.rows is not None
    assert kind.rows >= 100


def test_a_slice_may_be_a_feature_that_the_model_does_not_see(world: Bakery) -> None:
    """Joined as a feature is, for the held-out rows alone; the model's inputs and its definitions stay as they are."""
    gates = [
        ms.gates.at_least("auc", 0.5, by_slice=Traffic.visits_1h, least_rows=20, insufficient="pass"),
        ms.gates.fair(Traffic.visits_1h, "demographic parity", at_most=0.99, least_rows=20, insufficient="pass"),
    ]
    plain, sliced = world.trainer.train(late([])), world.trainer.train(late(gates))
    bundle = world.bundles.load(sliced.digest)
    assert bundle.manifest.inputs == world.bundles.load(plain.digest).manifest.inputs
    assert bundle.files["features.json"] == world.bundles.load(plain.digest).files["features.json"]
    table = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    expected = world.bundles.load(world.trainer.train(late([], [Traffic])).digest)
    assert "Traffic.visits_1h" not in pq.read_schema(io.BytesIO(expected.files["holdout.parquet"])).names
    quality, parity = verdicts(gates, bundle, None, world.bundles.load, None, (), None)
    assert quality.slice.startswith("Traffic.visits_1h=")
    assert parity.slice.startswith("Traffic.visits_1h=")
    shown = int(quality.slice.split("=")[1])
    assert quality.rows == table["Traffic.visits_1h"].to_pylist().count(shown)


def test_the_champion_and_the_candidate_are_paired_on_rows_the_champion_did_not_see(world: Bakery) -> None:
    gates = [ms.gates.beats("auc", sure=0.9, margin=0.02, block="12h")]
    first = world.trainer.train(late(gates), until=bakery.START + 400 * HOUR)
    world.versions.set_alias(_champion(first.version))
    world.trainer.train(late(gates))
    _, champion = judged(world, gates)
    assert champion.against == "champion 1"
    assert champion.interval is not None
    assert champion.rows is not None


def _champion(version: str) -> AliasMove:
    return AliasMove(model="late", alias="champion", old=None, new=version, actor="ana", reason="promote", at=0)


def test_a_bundle_from_before_is_told_so(world: Bakery) -> None:
    report = world.trainer.train(late([]))
    bundle = world.bundles.load(report.digest)
    table = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"])).drop_columns(["_baseline"])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    old = Bundle(bundle.digest, bundle.manifest, {**bundle.files, "holdout.parquet": buffer.getvalue()})
    assert score_held_out(old).other is None
    assert np.isfinite(score_held_out(old).candidate.scores).all()


def test_gates_by_columns_that_are_not_there_or_identify_a_person_are_refused() -> None:
    with pytest.raises(Invalid, match="slices by 'gender', which names no columns"):
        late([ms.gates.at_least("auc", 0.5, by_slice="gender")])
    people = ms.Source("people", schema={"order": ms.Int64, "name": ms.String}, event_time="at", pii=["name"])
    build = ms.model(
        "late", observations=ms.Observations(people, keys=[bakery.order], at=ms.col("at")), features=[Order],
        label=outcomes.late, task="binary", gates=[ms.gates.at_least("auc", 0.5, by_slice="name")],
    )  # fmt: skip
    with pytest.raises(Invalid, match=r"slices by people\.name, which is marked pii"):
        build(bakery.fit_trees)


def test_every_other_gate_of_a_trained_version(world: Bakery) -> None:
    """On the executor that a gateway uses, with the shares that training recorded."""
    from mainspring.serving.adapters.onnx import OnnxExecutor
    from mainspring.serving.adapters.sessions import CallLimits

    gates = [
        ms.gates.fair("kind", "demographic parity", at_most=0.99),
        ms.gates.nulls(0.4),
        ms.gates.values_within("Order.weight", 0, 2, but_for=0.01),
        ms.gates.class_share(0.05, 0.95),
        ms.gates.size("50MB"),
        ms.gates.latency("1m"),
        ms.gates.slower_at_most(100.0, rows=8),
        ms.gates.compatible(),
        ms.gates.compatible(full=True),
        ms.gates.robust_to_noise("auc", 0.5),
        ms.gates.robust_to_missing("auc", 1e-9),
        ms.gates.calibration_error(0.9, sure=None),
    ]
    first = world.trainer.train(late(gates))
    world.versions.set_alias(_champion(first.version))
    second = world.trainer.train(late(gates, [Traffic]))
    versions = {each.version: each for each in world.versions.all("late")}
    results = verdicts(
        gates, world.bundles.load(second.digest), versions[first.version], world.bundles.load, None, (), None,
        executors=lambda bundle: OnnxExecutor(bundle, threads=1, limits=CallLimits(10.0, 2**30)),
    )  # fmt: skip
    assert [each.gate for each in results] == [str(gate) for gate in gates]
    failed = {each.gate: each for each in results if not each.passed}
    assert sorted(failed) == [str(gates[2]), str(gates[10])]
    weights = [row["weight"] for row in bakery.rows()["orders"] if row["weight"] is not None]
    assert failed[str(gates[2])].value == pytest.approx(np.mean(np.array(weights) > 2), abs=0.05)
    assert failed[str(gates[10])].against in {f"no Order.{name}" for name in ("weight", "kind", "gift", "hour")}
    share = next(each for each in results if each.against == "training data" and each.slice == "class 1")
    assert share.value is not None
    assert 0.2 < share.value < 0.8


def test_gates_on_features_that_are_not_the_models_are_refused() -> None:
    for gate in (ms.gates.values_within("Order.wieght", 0), ms.gates.nulls(0.1, columns="wieght")):
        with pytest.raises(Invalid, match=r"names the feature '(Order\.)?wieght', which it does not have"):
            late([gate])


def test_a_fairness_that_the_task_does_not_have_is_refused_where_the_model_is_declared() -> None:
    def minutes(gate: Gate) -> Model:
        build = ms.model(
            "minutes", observations=placed, features=[Order], label=outcomes.minutes, task="regression", gates=[gate]
        )
        return build(bakery.fit_trees)

    for gate in (ms.gates.fair("shop", at_most=0.1), ms.gates.fair("shop", "equal opportunity", at_least=0.8)):
        with pytest.raises(Invalid, match="no flagged rows") as refused:
            minutes(gate)
        assert "equal error" in (refused.value.fix or "")
    assert minutes(ms.gates.fair("shop", "equal error", at_most=5.0)).gates
    assert late([ms.gates.fair("shop", at_most=0.1)]).gates


def test_a_views_feature_that_identifies_a_person_is_no_slice() -> None:
    visitors = ms.Source(
        "visitors", schema={"shop": ms.String, "name": ms.String}, event_time="at", pii=["name"]
    )  # fmt: skip

    @ms.feature_view(entity=bakery.shop, source=visitors)
    class Visitor:
        newest = ms.last("name")
        count_1h = ms.count(window="1h")

    assert late([ms.gates.at_least("auc", 0.5, by_slice=Visitor.count_1h)]).slice_columns == ("Visitor.count_1h",)
    with pytest.raises(Invalid, match=r"slices by Visitor\.newest, which comes from a column marked pii"):
        late([ms.gates.at_least("auc", 0.5, by_slice=Visitor.newest)])
