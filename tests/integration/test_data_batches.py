"""What descends from an ingestion: the versions that were trained on it, and none that were trained without it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import InvalidData, NotFound
from mainspring.operations.data.batches import batches, descent
from mainspring.operations.ingest import land
from mainspring.operations.init import create
from mainspring.operations.models.exposing import exposed
from mainspring.operations.train import train
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    project = open_project(load_settings(create(tmp_path / "batched-shop"), environment={}))
    yield project
    project.close()


def test_versions_trained_on_a_batch_descend_from_it(shop: Project, tmp_path: Path) -> None:
    for source in ("orders", "outcomes"):
        land(shop, source, f"batched_shop.data:{source}", batch_id="history")
    before = train(shop, "order-return")
    poison = [
        {"order": f"p{number}", "customer": "ana", "returned": True, "closed_at": "2024-01-01T00:00:00Z"}
        for number in range(50)
    ]
    land(shop, "outcomes", poison, batch_id="poison")
    after = train(shop, "order-return")
    clean = train(shop, "order-return", without=["outcomes@poison"])
    assert [each.action for each in shop.audit.read(100)].count("train") == 3
    assert next((each.id, each.rows) for each in batches(shop, "outcomes")) == ("poison", 50)
    assert [each.id for each in batches(shop, "orders")] == ["history"]

    found = descent(shop, "outcomes", "poison")
    assert (found.rows, len(found.commits), found.unreadable) == (50, 1, 0)
    assert found.features == ("ReturnRecord",)
    assert [each.split()[0] for each in found.models] == [f"order-return:{after.version}"]
    assert found.endpoints == ("order-return",)
    every = descent(shop, "outcomes", "history")
    versions = {each.split()[0] for each in every.models}
    assert versions == {f"order-return:{each.version}" for each in (before, after, clean)}
    with pytest.raises(NotFound, match="has no batch 'other'"):
        descent(shop, "outcomes", "other")
    assert clean.metrics == before.metrics

    bundle = shop.bundles.load(shop.versions.get("order-return", after.version).digest)
    rows = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    rows = rows.rename_columns(["label" if name == "_label" else name for name in rows.column_names])
    files = tmp_path / "planted.parquet", tmp_path / "controls.parquet"
    for place, path in enumerate(files):
        pq.write_table(rows.take(np.arange(place, 200, 2)), path)
    version, found = exposed(shop, f"order-return:{after.version}", *files)
    assert (version.version, found.planted, found.controls) == (after.version, 100, 100)
    assert found.chance > 0.01
    assert 0.8 < found.mean < 2.2
    pq.write_table(rows.drop_columns(["label"]), files[0])
    with pytest.raises(InvalidData, match="has no column 'label'"):
        exposed(shop, "order-return", *files)
