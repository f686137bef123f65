"""A model of single features of views: the same few in training, in its bundle, by key and in what reads them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.bakery import ORDERS, START, Bakery, Order, Traffic, late_model, regress, shop, visits
from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.time import HOUR, MINUTE, ManualClock
from mainspring.data.arrow import ARROW_TYPES
from mainspring.features import definitions
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.features.offline import point_in_time
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.plane.batch_run import gather
from mainspring.serving.plane.runtime import load
from mainspring.serving.protocol.schema import Rows
from mainspring.stats.metrics import score
from mainspring.training.flavours.scoring import score_bundle

UNTIL = START + ORDERS * 10 * MINUTE
CHOSEN = ["Traffic.visits_1h", "Order.weight", "Order.kind", "Order.gift", "Order.hour"]


@ms.feature_view(entity=shop, source=visits)
class Visited:
    newest = ms.last("came_at")  # an instant, which no model takes
    count_1h = ms.count(window="1h")


def test_what_is_named_is_what_is_given_whatever_else_a_view_has() -> None:
    made = late_model(features=[Order, Traffic.visits_1h], baseline=[Traffic.visits_1h])
    assert (made.features, made.columns) == ((Order, Traffic), (*CHOSEN[1:], CHOSEN[0]))
    assert (made.inputs, made.baseline_columns) == (["Order", "Traffic.visits_1h"], ("Traffic.visits_1h",))
    whole = late_model(features=[Traffic.visits_1h, Traffic, Traffic.visits_1h])
    assert whole.columns == Traffic.columns


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["Traffic.visits_1h"], r"has 'Traffic.visits_1h' in its features, a str. Fix: .*without quotes"),
        ([ms.col("weight")], "in its features, a Column"),
        (Traffic, "features=<feature view Traffic"),
        ([None], "has None in its features"),
    ],
)
def test_what_is_no_feature_is_refused(features: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        late_model(features=features)


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    made.ingest()
    return made


@pytest.fixture(scope="module")
def seen() -> list[list[str]]:
    return []


@pytest.fixture(scope="module")
def bundle(bakery: Bakery, seen: list[list[str]]) -> Bundle:
    def train(data: ms.TrainingSet, run: ms.Run) -> Any:
        seen.append(list(data.features))
        return regress(data, run)

    features = [Traffic.visits_1h, Visited.count_1h, Order]
    report = bakery.trainer.train(late_model(train, features=features, baseline=[Traffic.visits_1h]), until=UNTIL)
    return bakery.bundles.load(report.digest)


def test_a_training_is_given_them_alone_and_its_baseline_fewer(bundle: Bundle, seen: list[list[str]]) -> None:
    wanted = [CHOSEN[0], "Visited.count_1h", *CHOSEN[1:]]
    assert seen == [wanted, ["Traffic.visits_1h"]]
    assert [each.name for each in bundle.manifest.inputs] == wanted
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    assert held_out.column_names == [*wanted, "_at", "_label", "_scores", "_baseline"]


def test_a_bundle_has_their_views_whole_so_that_they_are_the_ones_that_are_materialised(bundle: Bundle) -> None:
    groups, _ = definitions.load(bundle.files["features.json"])
    assert [(group.name, group.names) for group in groups] == [
        ("Traffic", Traffic.names), ("Visited", Visited.names), ("Order", Order.names)
    ]  # fmt: skip


def test_a_request_by_key_is_answered_with_them_alone(bakery: Bakery, bundle: Bundle) -> None:
    store, now = MemoryOnlineStore(), START + 100 * HOUR
    for view in (Traffic, Visited):
        Materialiser(bakery.lake.scan, store, ManualClock(now)).run(view)
    runtime = load(bundle, store, OnnxExecutor)
    assert runtime.reader is not None
    names = [spec.name for spec in runtime.inputs]
    sent = {
        "order": [1, 2], "shop": ["north", "south"], "weight": [1.5, None], "kind": ["cake", None],
        "gift": [True, False], "placed_at": [START + HOUR, START],
    }  # fmt: skip
    gathered = gather([Rows(sent, 2, keyed=True)], names, runtime.reader, now)
    assert list(gathered.features) == names == [each.name for each in bundle.manifest.inputs]
    asked = pa.table({"shop": sent["shop"], "_at": pa.array([now, now], pa.timestamp("us", tz="UTC"))})
    offline = point_in_time(asked, [Traffic], bakery.lake.scan, schema={"shop": ms.String})
    assert gathered.features["Traffic.visits_1h"] == offline["Traffic.visits_1h"].to_pylist()
    assert min(gathered.features["Traffic.visits_1h"]) > 0
    answered = runtime.executor.predict(gathered.features, 2)["probability"]
    table = pa.table(
        {each.name: pa.array(gathered.features[each.name], ARROW_TYPES[each.dtype]) for each in bundle.manifest.inputs}
    )
    assert np.allclose(answered, score_bundle(bundle, table), atol=1e-6)


def boosted(kind: str, columns: list[str], data: ms.TrainingSet) -> Any:
    if kind == "xgboost":
        xgboost = pytest.importorskip("xgboost")
        made = xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, random_state=0)
    else:
        lightgbm = pytest.importorskip("lightgbm")
        made = lightgbm.LGBMClassifier(n_estimators=8, n_jobs=1, random_state=0, verbose=-1)
    return made.fit(data.train.X[columns], data.train.y)


@pytest.mark.parametrize(
    ("kind", "calibrate"),
    examples(gate=[("xgboost", True)], deep=[("xgboost", False), ("lightgbm", False), ("xgboost", True)]),
)
def test_a_booster_may_be_fitted_on_some_of_the_columns_in_an_order_of_its_own(
    bakery: Bakery, kind: str, calibrate: bool
) -> None:
    def train(data: ms.TrainingSet, run: ms.Run) -> Any:
        fitted = boosted(kind, list(reversed(data.numeric)), data)  # the texts are left out
        return ms.calibrated(fitted, data) if calibrate else fitted

    report = bakery.trainer.train(late_model(train, baseline=[Order]), until=UNTIL)
    bundle = bakery.bundles.load(report.digest)
    inputs = [each.name for each in bundle.manifest.inputs]
    assert inputs == [
        "Order.hour", "Order.gift", "Order.weight", "Traffic.mean_spent_24h", "Traffic.visits_1h"
    ]  # fmt: skip
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    assert held_out.column_names == [*inputs, "_at", "_label", "_scores", "_baseline"]
    found = score("binary", held_out["_label"].to_numpy(zero_copy_only=False), score_bundle(bundle, held_out))
    assert found == report.metrics
    assert report.baseline.keys() == report.metrics.keys()
