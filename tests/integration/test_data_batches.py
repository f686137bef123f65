"""What descends from an ingestion: the versions that were trained on it, and none that were trained without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.errors import NotFound
from mainspring.operations.data.batches import batches, descent
from mainspring.operations.data_inspection import influence, near_duplicates
from mainspring.operations.ingest import land
from mainspring.operations.init import create
from mainspring.operations.train import train
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    project = open_project(load_settings(create(tmp_path / "batched-shop"), environment={}))
    yield project
    project.close()


def test_versions_trained_on_a_batch_descend_from_it(shop: Project) -> None:
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

    run, metric, groups = influence(shop, "order-return", "outcomes", most=2)
    assert (metric, {str(each.group) for each in groups}) == ("log_loss", {"outcomes@history", "outcomes@poison"})
    assert shop.tracking.artefact(run, "influence.csv").startswith(b"group,rows,fitted_on")
    run, copies = near_duplicates(shop, "order-return", threshold=1.0)
    assert copies.rows.keys() == copies.of_training.keys()
    assert len(shop.tracking.artefact(run, "near_duplicates.csv").splitlines()) == len(copies.found) + 1
    assert len(shop.versions.all("order-return")) == 3
