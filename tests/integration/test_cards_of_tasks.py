"""Cards of a model of several classes and of a regression, trained: figures against plain loops, and how they read."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.bakery import Bakery, Order, Traffic, late_model, order, outcomes, rows
from mainspring.core.locks import MemoryLocks
from mainspring.data.ingest import Ingestor
from mainspring.governance.cards import build
from mainspring.governance.model import Card
from mainspring.governance.page import page
from mainspring.governance.performance import SMALLEST_GROUP
from mainspring.governance.rendering import markdown
from mainspring.registry.lineage import lineage_of
from mainspring.registry.model import Bundle
from mainspring.training.flavours.scoring import score_bundle

WORDS = "\n".join(f"## {name}\nSaid of {name}.\n" for name in ("Intended use", "Limits", "Ethical considerations"))
TASKS = {"multiclass": ("log_loss", "accuracy"), "regression": ("rmse", "mae")}
SPEEDS = ["fast", "late", "very late"]


def fit(data: Any, run: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("codes", codes, data.categorical), ("numbers", "passthrough", data.numeric)])
    kind = HistGradientBoostingRegressor if data.task == "regression" else HistGradientBoostingClassifier
    return make_pipeline(columns, kind(max_iter=10, random_state=run.seed)).fit(data.train.X, data.train.y)


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    made.ingest()
    return made


@pytest.fixture(scope="module", params=list(TASKS))
def carded(bakery: Bakery, request: pytest.FixtureRequest) -> tuple[str, Card, Bundle]:
    task = request.param
    label = outcomes.minutes if task == "regression" else order_speed(bakery)
    model = ms.model(
        f"speed-{task}",
        observations=late_model().observations,
        features=[Traffic, Order],
        label=label,
        task=task,
        baseline=[Order],
        seed=7,
    )(fit)
    report = bakery.trainer.train(model)
    version = bakery.versions.get(f"speed-{task}", "1")
    bundle = bakery.bundles.load(report.digest)
    run = bakery.tracking.get(version.run_id)
    card = build(
        bundle,
        lineage_of(version, bundle.manifest, run, bakery.versions.all()),
        run=run,
        history=lambda metric: bakery.tracking.history(version.run_id, metric),
        tables={"orders": 0},
        words=WORDS,
        words_file=f"cards/speed-{task}.md",
    )
    return task, card, bundle


def order_speed(bakery: Bakery) -> Any:
    """Return a label of three classes: how late each order came, in a table of its own."""
    speeds = ms.Source("speeds", schema={"order": ms.Int64, "speed": ms.String}, event_time="delivered_at")
    made = [
        {
            "delivered_at": row["delivered_at"],
            "order": row["order"],
            "speed": SPEEDS[int(np.digitize(row["minutes"], [20, 45]))],
        }
        for row in rows()["outcomes"]
    ]
    Ingestor(bakery.lake, MemoryLocks(), bakery.clock).ingest(speeds, made, keyings={order.name: ("order",)})
    return speeds.speed


def held_out(bundle: Bundle) -> Any:
    return pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))


def by_hand(task: str, labels: list[Any], scores: Any, names: tuple[str, ...]) -> dict[str, float]:
    """The metrics by a loop over the rows, from their definitions."""
    if task == "regression":
        off = [float(score) - float(label) for score, label in zip(scores, labels, strict=True)]
        return {
            "rmse": math.sqrt(sum(each * each for each in off) / len(off)),
            "mae": sum(map(abs, off)) / len(off),
        }
    right, lost = 0, 0.0
    for label, row in zip(labels, scores, strict=True):
        shares = [min(max(float(each), 2.2e-16), 1 - 2.2e-16) for each in row]
        right += names[max(range(len(row)), key=lambda place: row[place])] == label
        lost -= math.log(shares[names.index(label)] / sum(shares))
    return {"log_loss": lost / len(labels), "accuracy": right / len(labels)}


def test_the_metrics_are_those_of_a_loop_within_their_intervals(carded: tuple[str, Card, Bundle]) -> None:
    task, card, bundle = carded
    table = held_out(bundle)
    labels, scores = table["_label"].to_pylist(), score_bundle(bundle, table)
    found = card.performance
    assert found is not None
    assert found.rows == len(labels)
    assert [each.metric for each in found.metrics] == list(TASKS[task])
    wanted = by_hand(task, labels, scores, bundle.manifest.outputs)
    for each in found.metrics:
        assert each.value == pytest.approx(wanted[each.metric], rel=1e-9)
        assert each.baseline == bundle.manifest.metrics[f"baseline.{each.metric}"]
        assert each.higher_is_better == (each.metric == "accuracy")
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high
        assert each.high - each.low < 0.5 * each.value


def test_an_interval_is_that_of_resampled_rows(carded: tuple[str, Card, Bundle]) -> None:
    task, card, bundle = carded
    table = held_out(bundle)
    labels, scores = np.array(table["_label"].to_pylist(), object), score_bundle(bundle, table)
    rng = np.random.default_rng(1)  # other resamples than the card's
    drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(200)]
    again = [by_hand(task, list(labels[rows]), scores[rows], bundle.manifest.outputs) for rows in drawn]
    assert card.performance is not None
    for each in card.performance.metrics:
        low, high = np.quantile([one[each.metric] for one in again], [0.025, 0.975])
        assert each.low is not None
        assert each.high is not None
        width = each.high - each.low
        assert each.low == pytest.approx(low, abs=0.25 * width)
        assert each.high == pytest.approx(high, abs=0.25 * width)


def test_slices_are_those_of_a_loop(carded: tuple[str, Card, Bundle]) -> None:
    task, card, bundle = carded
    table = held_out(bundle)
    labels, scores = table["_label"].to_pylist(), score_bundle(bundle, table)
    assert card.performance is not None
    assert [each.feature for each in card.performance.slices] == ["Order.kind", "Order.gift"]
    for each in card.performance.slices:
        values = table[each.feature].to_pylist()
        names = [None if value is None else str(value).lower() for value in values]
        assert {group.value for group in each.groups} == {name for name in names if names.count(name) >= SMALLEST_GROUP}
        for group in each.groups:
            rows = [row for row, name in enumerate(names) if name == group.value]
            wanted = by_hand(task, [labels[row] for row in rows], scores[rows], bundle.manifest.outputs)
            assert {one.metric: one.value for one in group.metrics} == pytest.approx(wanted, rel=1e-9)
            assert all(one.baseline is None for one in group.metrics)


def test_markdown_and_html_say_the_same(carded: tuple[str, Card, Bundle]) -> None:
    task, card, bundle = carded
    plain, html = re.sub(r"\\(.)", r"\1", markdown(card)), page(card)
    shown = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))
    assert card.performance is not None
    for words in (plain, shown):
        assert f"speed-{task}, version 1" in words
        assert task in words
        assert "Said of Limits." in words
        assert f"{card.performance.rows:,} held-out rows" in words
        assert ", ".join(bundle.manifest.outputs) in words  # the classes, or value
        assert "Contact has not been written yet" in words
        for each in card.performance.metrics:
            which = "higher is better" if each.metric == "accuracy" else "lower is better"
            assert f"{each.metric} ({which})" in words
            assert f"{each.value:.4g}" in words
            assert f"{each.low:.4g} to {each.high:.4g}" in words
    assert bundle.manifest.outputs == (("value",) if task == "regression" else tuple(SPEEDS))
    assert {gap.section for gap in card.gaps if gap.required} <= {"In the words of its makers", "Lineage"}
