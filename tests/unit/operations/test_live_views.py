"""A new feature in an old view: whoever still reads the old one is served as before, for as long as it is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit import serving as serving_kit
from mainspring.core.errors import Unavailable
from mainspring.core.time import HOUR, MINUTE, parse_instant, to_datetime
from mainspring.features.definitions import dump
from mainspring.features.layout import slot
from mainspring.features.model import FeatureView
from mainspring.features.online import OnlineReader
from mainspring.features.tilelog.rows import tiles_table
from mainspring.operations.features.live_views import UNUSED_FOR, ViewsInUse, tidy
from mainspring.processes.worker import Duty, duties
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import FEATURES, seal
from mainspring.serving.model import Arm

START = parse_instant("2024-03-05T10:00:00Z")
TOML = """\
name = "shop"
modules = ["features_of_shop"]

[profiles.local]
clock = "replay"
materialise_every = "5m"
"""
MODULE = """\
import mainspring as ms

till = ms.Entity("till", keys={"till": ms.String})
sales = ms.Source("sales", schema={"till": ms.String, "amount": ms.Float64}, event_time="sold_at")


@ms.feature_view(entity=till, source=sales)
class Sales:
    sales_1h = ms.count(window="1h")
    amount = ms.last("amount")
    largest_24h = ms.max("amount", window="24h")  # new
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "mainspring.toml").write_text(TOML)
    (tmp_path / "features_of_shop.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    opened = open_project(load_settings(tmp_path))
    opened.clock.set(START)  # type: ignore[attr-defined]
    return opened


def new_view(project: Project) -> FeatureView:
    return project.definitions.view("Sales")


def old_view(project: Project) -> FeatureView:
    new = new_view(project)
    kept = {name: new.features[name] for name in ("sales_1h", "amount")}
    return ms.feature_view(entity=new.entity, source=new.source)(type("Sales", (), kept))


def go_live(project: Project, view: FeatureView) -> None:
    """Route an endpoint to a bundle that reads `view`."""
    kit = serving_kit.bundle()
    observations = ms.Observations(view.source, keys=[view.entity], at=ms.col("sold_at"))
    files = {**kit.files, FEATURES: dump([view], observations)}
    bundle = seal(kit.manifest, files, project.signing_key)
    project.bundles.save(bundle)
    project.routes.publish([serving_kit.route(Arm("1", bundle.digest))])


def land(project: Project, *sales: tuple[int, str, float]) -> None:
    rows = [{"sold_at": to_datetime(at), "till": till, "amount": amount} for at, till, amount in sales]
    project.ingestor.ingest(new_view(project).source, rows, keyings={"till": ("till",)})


def duty(project: Project, name: str) -> Duty:
    return next(each for each in duties(project) if each.name == name)


def read(project: Project, view: FeatureView) -> dict[str, Any]:
    found = OnlineReader([view], project.online).read({"till": ["a"]}, project.clock.now())
    return {name: values[0] for name, values in found.features.items()}


def test_both_are_kept_up_to_date_until_no_route_leads_to_the_old_one(project: Project) -> None:
    old, new = old_view(project), new_view(project)
    assert slot(old) != slot(new)
    go_live(project, old)
    land(project, (START - 10 * MINUTE, "a", 3.0), (START - 5 * MINUTE, "a", 4.0), (START - 30 * HOUR, "b", 1.0))
    materialise = duty(project, "materialising features")
    materialise.run(0.0)
    assert materialise.failures == 0
    assert read(project, old) == {"Sales.sales_1h": 2, "Sales.amount": 4.0}
    assert read(project, new) == {"Sales.sales_1h": 2, "Sales.amount": 4.0, "Sales.largest_24h": 4.0}

    project.clock.set(START + HOUR)  # type: ignore[attr-defined]
    land(project, (START + 50 * MINUTE, "a", 2.0))
    materialise.run(0.0)
    assert read(project, old) == {"Sales.sales_1h": 1, "Sales.amount": 2.0}
    assert read(project, new)["Sales.largest_24h"] == 4.0

    project.routes.publish([])
    project.clock.set(START + 2 * HOUR)  # type: ignore[attr-defined]
    materialise.run(0.0)
    positions = [project.online.position(slot(view)) for view in (old, new)]
    assert positions == [START + HOUR, START + 2 * HOUR]


def test_what_nobody_reads_is_put_away_after_days(project: Project) -> None:
    old, new = old_view(project), new_view(project)
    go_live(project, old)
    land(project, (START - 30 * HOUR, "a", 3.0), (START - 5 * MINUTE, "a", 4.0))
    materialise = duty(project, "materialising features")
    materialise.run(0.0)
    in_use = ViewsInUse(project)
    project.clock.set(START + UNUSED_FOR + HOUR)  # type: ignore[attr-defined]
    assert tidy(project, in_use.by_slot()).slots == []
    project.routes.publish([])
    materialise.run(0.0)
    done = tidy(project, in_use.by_slot())
    assert done.slots == [slot(old)]
    assert done.tables == [tiles_table(slot(old))]
    assert project.online.views() == [slot(new)]
    folder = project.settings.state / "lake"
    assert not list((folder / tiles_table(slot(old))).glob("*.parquet"))
    assert list((folder / tiles_table(slot(new))).glob("*.parquet"))
    again = tidy(project, in_use.by_slot())
    assert (again.slots, again.tables, again.compacted) == ([], [], [])
    # Whoever goes back finds it made again.
    go_live(project, old)
    materialise.run(0.0)
    assert read(project, old) == {"Sales.sales_1h": 0, "Sales.amount": 4.0}


def test_a_view_that_is_not_in_use_for_less_stays(project: Project) -> None:
    old = old_view(project)
    go_live(project, old)
    land(project, (START - 30 * HOUR, "a", 3.0))
    duty(project, "materialising features").run(0.0)
    project.routes.publish([])
    project.clock.set(START + UNUSED_FOR - HOUR)  # type: ignore[attr-defined]
    done = tidy(project, ViewsInUse(project).by_slot())
    assert (done.slots, done.tables) == ([], [])
    assert read(project, old)["Sales.amount"] == 3.0


def test_a_store_that_goes_away_and_comes_back(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    land(project, (START - 10 * MINUTE, "a", 3.0))
    online, away = project.online, True

    class Flaky:
        def __getattr__(self, name: str) -> Any:
            if away:
                raise Unavailable("The online store did not answer.")
            return getattr(online, name)

    project.__dict__["online"] = Flaky()
    materialise = duty(project, "materialising features")
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            before = materialise.due
            materialise.run(before)
    waits = materialise.due - before
    assert materialise.failures == 9
    assert waits == 60.0
    assert "materialising features: The online store did not answer." in caplog.text
    away = False
    materialise.run(0.0)
    assert materialise.failures == 0
    assert read(project, new_view(project))["Sales.amount"] == 3.0


def test_a_bundle_that_cannot_be_read_keeps_no_other_view_waiting(project: Project) -> None:
    project.routes.publish([serving_kit.route(Arm("1", "0" * 64))])
    land(project, (START - 10 * MINUTE, "a", 3.0))
    materialise = duty(project, "materialising features")
    materialise.run(0.0)
    assert materialise.failures == 0
    assert read(project, new_view(project))["Sales.amount"] == 3.0
