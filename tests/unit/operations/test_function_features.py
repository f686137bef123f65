"""Feature functions in a project: apply, ingest, both reads, a changed function beside a live bundle, its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit import serving as serving_kit
from mainspring.core.errors import Invalid, InvalidDefinition
from mainspring.core.time import MINUTE, parse_instant, to_datetime
from mainspring.data.model import QUARANTINE_SUFFIX
from mainspring.features.definitions import dump
from mainspring.features.model import FeatureView
from mainspring.features.online import OnlineReader
from mainspring.operations.apply import apply
from mainspring.operations.features.deriving import function_costs
from mainspring.operations.features.live_views import ViewsInUse
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import FEATURES, seal
from mainspring.serving.model import Arm

pytestmark = pytest.mark.slow

START = parse_instant("2024-03-05T10:00:00Z")
TOML = 'name = "shop"\nmodules = ["notes_of_shop"]\n\n[profiles.local]\nclock = "replay"\n'
MODULE = """\
import mainspring as ms
import pyarrow.compute as pc
from letters_of_shop import COUNTED

till = ms.Entity("till", keys={"till": ms.String})
notes = ms.Source("notes", schema={"till": ms.String, "text": ms.String}, event_time="at")


@ms.python_features(entity=till, source=notes, columns=["text"], returns={"found": ms.Int32})
def Note(text):
    return {"found": pc.count_substring(text, COUNTED)}
"""
CLOCK = """\
import time
import mainspring as ms

till = ms.Entity("till", keys={"till": ms.String})
notes = ms.Source("notes", schema={"till": ms.String, "text": ms.String}, event_time="at")


@ms.python_features(entity=till, source=notes, columns=["text"], returns={"found": ms.Int64})
def Note(text):
    return {"found": [time.time_ns()] * len(text)}
"""


def opened(folder: Path) -> Project:
    project = open_project(load_settings(folder))
    project.clock.set(START)  # type: ignore[attr-defined]
    return project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mainspring.toml").write_text(TOML)
    (tmp_path / "notes_of_shop.py").write_text(MODULE)
    (tmp_path / "letters_of_shop.py").write_text('COUNTED = "a"\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def note(minutes: int, text: str) -> dict[str, Any]:
    return {"at": to_datetime(START - minutes * MINUTE), "till": "1", "text": text}


def online(project: Project, view: FeatureView) -> Any:
    read = OnlineReader([view], project.online).read({"till": ["1"]}, project.clock.now())
    return read.features["Note.found"][0]


def go_live(project: Project, view: FeatureView) -> None:
    kit = serving_kit.bundle()
    observations = ms.Observations(
        view.source.parent,  # type: ignore[attr-defined]
        keys=[view.entity],
        at=ms.col("at"),
    )
    bundle = seal(kit.manifest, {**kit.files, FEATURES: dump([view], observations)}, project.signing_key)
    project.bundles.save(bundle)
    project.routes.publish([serving_kit.route(Arm("1", bundle.digest))])


def test_a_changed_function_is_computed_anew_while_the_live_bundle_keeps_its_own(folder: Path) -> None:
    project = opened(folder)
    apply(project)
    report = land(project, "notes", [note(9, "banana"), note(5, "bread and butter")])
    assert report.rows == 2
    assert not report.warnings
    old = project.definitions.view("Note")
    materialise_views(project)
    assert online(project, old) == 2
    cost = function_costs(project)["Note"]
    assert (cost.rows, cost.failed, cost.behind, cost.share) == (2, 0, 0, 1.0)
    assert cost.function == "notes_of_shop:Note"

    (folder / "letters_of_shop.py").write_text('COUNTED = "e"\n')
    project = opened(folder)
    new = project.definitions.view("Note")
    assert new.source.name != old.source.name
    changes = {(change.sign, change.kind) for change in apply(project)[0]}
    assert {("+", "source"), ("-", "source"), ("~", "feature view")} <= changes
    go_live(project, old)  # apply publishes the routes of declared endpoints alone
    land(project, "notes", [note(1, "three eels")])
    materialise_views(project, ViewsInUse(project).by_slot().values())
    assert online(project, new) == 4
    assert online(project, old) == 0
    assert project.lake.describe(old.source.name).rows == 3


def test_a_function_that_does_not_repeat_is_not_applied(folder: Path) -> None:
    project = opened(folder)
    apply(project)
    land(project, "notes", [note(9, "banana")])
    (folder / "notes_of_shop.py").write_text(CLOCK)
    project = opened(folder)
    with pytest.raises(InvalidDefinition, match="Note, called twice on the same rows, returns found="):
        apply(project)
    report = land(project, "notes", [note(8, "bandana")])
    assert report.rows == 1
    assert "not all features" in report.warnings[0]


def test_nothing_is_ingested_into_a_derived_table(folder: Path) -> None:
    project = opened(folder)
    name = project.definitions.view("Note").source.name
    with pytest.raises(Invalid, match="is computed from 'notes'"):
        land(project, name, [note(9, "banana")])
    assert project.lake.version(name) is None
    assert project.lake.version(name + QUARANTINE_SUFFIX) is None
