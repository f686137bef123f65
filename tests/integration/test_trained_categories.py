"""Boosters of texts from training to an answer by request: each version has the categories that it was trained on."""

from __future__ import annotations

import asyncio
import io
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from integration.test_gateway import running
from kit.bakery import ORDERS, START, Bakery, Order, Traffic, late_model, orders, outcomes
from kit.depth import deep
from kit.serving import Kit, route
from mainspring.core.errors import Corrupt
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, MINUTE, to_datetime
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.bundles import MANIFEST, SIGNATURE, encode_manifest, open_blob, sha256
from mainspring.registry.model import Bundle
from mainspring.serving.model import Arm
from mainspring.stats.metrics import score
from mainspring.training.flavours.scoring import score_bundle

UNTIL = START + ORDERS * 10 * MINUTE
LATER = UNTIL + ORDERS * 10 * MINUTE


def boosted(kind: str, data: ms.TrainingSet, run: ms.Run) -> Any:
    known = data.with_categories()
    columns = list(reversed(data.features))
    if kind == "xgboost":
        library = pytest.importorskip("xgboost")
        made = library.XGBClassifier(n_estimators=8, n_jobs=1, random_state=run.seed, enable_categorical=True)
    else:
        library = pytest.importorskip("lightgbm")
        made = library.LGBMClassifier(n_estimators=8, n_jobs=1, random_state=run.seed, verbose=-1)
    return ms.calibrated(made.fit(known.train.X[columns], known.train.y), known)


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    made.ingest()
    ingest_pies(made)
    return made


def ingest_pies(bakery: Bakery) -> None:
    """Land as many orders again, later ones, of a kind that came before and of two that did not: those come late."""
    rng = np.random.default_rng(1)
    placed, delivered = [], []
    for number in range(ORDERS, 2 * ORDERS):
        at, kind = START + number * 10 * MINUTE, ["cake", "pie", "päté"][int(rng.integers(0, 3))]
        made = {"shop": "north", "weight": float(np.float32(rng.gamma(2.0))), "kind": kind, "gift": False}
        placed.append({"placed_at": to_datetime(at), "order": number, **made})
        late = bool(rng.random() < (0.2 if kind == "cake" else 0.9))
        delivered.append({"delivered_at": to_datetime(at + 3 * HOUR), "order": number, "late": late, "minutes": 30.0})
    ingestor = Ingestor(bakery.lake, MemoryLocks(), bakery.clock)
    ingestor.ingest(orders, placed, keyings={"order": ("order",)})
    ingestor.ingest(outcomes, delivered, keyings={"order": ("order",)})


async def answers(bakery: Bakery, bundle: Bundle, kinds: list[str | None]) -> list[float]:
    """Return what a gateway answers, over HTTP and by key, to orders that differ by kind alone."""
    online, nobody = MemoryOnlineStore(), cast(Project, None)  # an executor of a forest asks nothing of its project
    Materialiser(bakery.lake.scan, online, bakery.clock).run(Traffic)
    kit = Kit(bundles=bakery.bundles, online=online, clock=bakery.clock, executors=executors(nobody))
    kit.routes.publish([msgspec.structs.replace(route(Arm("1", bundle.digest, 1.0)), model="late-order")])
    columns = {
        "order": ("INT64", range(len(kinds))), "shop": ("BYTES", ["north"] * len(kinds)),
        "weight": ("FP32", [1.0] * len(kinds)), "kind": ("BYTES", kinds), "gift": ("BOOL", [False] * len(kinds)),
        "placed_at": ("BYTES", ["2024-01-05T04:00:00Z"] * len(kinds)),
    }  # fmt: skip
    async with running(kit) as each:
        inputs = [
            {"name": name, "shape": [len(kinds)], "datatype": datatype, "data": list(values)}
            for name, (datatype, values) in columns.items()
        ]
        reply = await each.infer({"inputs": inputs})
        assert reply.status_code == 200, reply.text
        return list(reply.json()["outputs"][0]["data"])


@deep
@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_each_version_answers_by_the_categories_of_its_training(bakery: Bakery, kind: str) -> None:
    model = late_model(lambda data, run: boosted(kind, data, run), baseline=[Order], gates=[])
    first = bakery.bundles.load(bakery.trainer.train(model, until=UNTIL).digest)
    report = bakery.trainer.train(model, until=LATER)
    second = bakery.bundles.load(report.digest)
    known = [{each.name: each.categories for each in bundle.manifest.inputs} for bundle in (first, second)]
    assert [each["Order.kind"] for each in known] == [("bread", "cake"), ("bread", "cake", "pie", "päté")]
    assert next(iter(known[0])) == "Order.hour"  # fitted in an order of its own
    assert "Order.kind" in msgspec.json.decode(second.files["reference.json"])["columns"]

    kinds = ["cake", "pie", "päté", None, "", "CAKE"]
    before, after = (asyncio.run(answers(bakery, bundle, kinds)) for bundle in (first, second))
    assert len(set(before[1:])) == 1  # unknown and null are missing
    assert before[0] != before[1]
    assert len({after[3], after[4], after[5]}) == 1
    assert min(after[1], after[2]) > after[0] + 0.3

    held_out = pq.read_table(io.BytesIO(second.files["holdout.parquet"]))
    truth = held_out["_label"].to_numpy(zero_copy_only=False)
    assert score("binary", truth, score_bundle(second, held_out)) == report.metrics

    blob = {**first.files, MANIFEST: encode_manifest(first.manifest), SIGNATURE: first.signature}
    swapped = blob[MANIFEST].replace(b'["bread","cake"]', b'["cake","bread"]')
    assert swapped != blob[MANIFEST]
    with pytest.raises(Corrupt, match="signature"):
        open_blob(sha256(swapped), {**blob, MANIFEST: swapped}, bakery.signing_key.public)
