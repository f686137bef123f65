"""`mainspring advise` on a project that is used: facts come from its own stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.depot import ENDPOINT, MODEL, Depot
from mainspring.core.time import DAY
from mainspring.ledger.model import Prediction
from mainspring.operations.advise import collect
from mainspring.operations.search.searching import SEARCH
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.registry.model import AliasMove
from mainspring.registry.processes import process_tags
from mainspring.registry.runs import PARENT


def test_what_a_trained_project_is_told(depot: Depot) -> None:
    advised = depot.json("advise", "next")
    areas = {each["area"]: each for each in advised["areas"]}
    assert list(areas)[:3] == ["data", "baseline", "gates"]
    assert areas["data"]["state"] == areas["baseline"]["state"] == "in place"
    assert "late-parcel:2" in areas["baseline"]["evidence"]
    assert advised["next"] == next(each for each in advised["areas"] if each["state"] == "next")


def test_only_what_was_measured_is_evidence(depot: Depot) -> None:
    """A rollback, a rollout's end and a search's trials are neither promotions at once nor trainings by hand; and
    predictions count before the first window of monitoring has closed."""
    project = open_project(load_settings(depot.root, environment={}))
    now = project.wall.now()
    before = collect(project).models[0]
    for place, reason in enumerate(("rollback: slow", "promote: rollout ab12 by ana", "promote: faster", "promote")):
        old, new = ("1", "2") if place % 2 == 0 else ("2", "1")
        project.versions.set_alias(AliasMove(MODEL, "champion", old, new, f"ana{place}", reason, now + place))
    for tags in ({SEARCH: "d"}, {PARENT: before.newest}):
        project.tracking.start(MODEL, {**process_tags(), **tags}, now)
    project.tracking.start(MODEL, process_tags(), now)
    [model] = collect(project).models
    assert model.promotions == before.promotions + 2
    assert set(model.promoters) - set(before.promoters) == {"ana2", "ana3"}
    assert len(model.trained_at) == len(before.trained_at) + 1
    assert collect(project).endpoints[0].predictions == 0
    clock = project.clock.now()
    row: dict[str, Any] = {
        "endpoint": ENDPOINT, "model": MODEL, "version": "2", "digest": "0" * 64, "keys": {}, "request": {},
        "features": {}, "statuses": {}, "outputs": {"probability": 0.5}, "latency_us": 1, "principal": "ana",
    }  # fmt: skip
    made = [Prediction(id=f"{place:026d}", at=clock - place * 10 * DAY, **row) for place in range(4)]
    project.prediction_log.append(made)
    [endpoint] = collect(project).endpoints
    project.close()
    assert endpoint.predictions == 4
    assert endpoint.a_day == pytest.approx(4 / 30, rel=0.01)
    assert endpoint.idle_days == pytest.approx(0.0, abs=0.01)


def test_a_folder_without_a_project(tmp_path: Path, depot: Depot) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "orders.csv").write_text("id,ordered_at,late\n1,2026-01-01,true\n2,2026-01-02,false\n")
    page = depot.json("advise", "next", "--project", folder)
    assert page["tables"][0]["label"] == "late"
