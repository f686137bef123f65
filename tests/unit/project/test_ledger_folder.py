"""The folder of the prediction log: who names the lake in it, and what is left where a lake's name has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.ledger.adapters.unread import waiting
from mainspring.ledger.conformance import prediction
from mainspring.operations.doctor import examine
from mainspring.operations.status import status
from mainspring.project import Project, open_project
from mainspring.project.ledger_folder import ledger_folder
from mainspring.project.settings import load_settings

TOML = 'name = "small"\nmodules = ["small"]\n[profiles.local]\n{local}\n[profiles.other]\nlake = "other/lake"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text("")
    (tmp_path / "mainspring.toml").write_text(TOML.format(local=""))
    return tmp_path


def opened(root: Path, profile: str, *, reads_only: bool = False) -> Project:
    project = open_project(load_settings(root, profile, environment={}))
    project.reads_only = reads_only
    return project


def log_one(project: Project) -> None:
    project.prediction_log.append([prediction(1)])
    project.prediction_log.close()


def complaints(project: Project) -> list[str]:
    return [f"{each.detail} {each.fix}" for each in examine(project, "predictions") if not each.ok]


def test_whoever_only_reads_leaves_the_folder_to_the_first_that_logs(root: Path) -> None:
    reader = opened(root, "other", reads_only=True)
    assert status(reader).damaged_segments == 0
    assert complaints(reader) == []
    local = opened(root, "local")
    log_one(local)
    assert ledger_folder(local.settings, claim=False) == local.settings.ledger.path
    assert opened(root, "other", reads_only=True).predictions.recent() == []
    assert len(opened(root, "local", reads_only=True).predictions.recent()) == 1


def test_what_was_logged_before_folders_had_owners_is_still_read(root: Path) -> None:
    local = opened(root, "local")
    log_one(local)
    (local.settings.ledger.path / "lake").unlink()
    assert len(opened(root, "local", reads_only=True).predictions.recent()) == 1


@pytest.mark.parametrize("profile", ["local", "other"])  # the folder itself, and one inside
def test_segments_for_a_lake_that_no_profile_names_any_more_are_told(root: Path, profile: str) -> None:
    for name in ("local", "other"):
        log_one(opened(root, name))
        if name != profile:
            opened(root, name).predictions.compact()
    assert complaints(opened(root, "local" if profile == "other" else "other")) == []  # the other's: its own to move
    text = TOML.format(local='lake = "changed"' if profile == "local" else "")
    (root / "mainspring.toml").write_text(text.replace("other/lake", "changed" if profile == "other" else "other/lake"))
    project = opened(root, profile, reads_only=True)
    (told,) = complaints(project)
    before = ".mainspring/lake" if profile == "local" else "other/lake"
    assert f"1 segments of the prediction log in {project.settings.ledger.path}" in told
    assert told.count(before) == 3
    assert "'changed'" in told


def test_what_is_moved_already_is_not_told(root: Path) -> None:
    local = opened(root, "local")
    log_one(local)
    local.predictions.compact()
    (root / "mainspring.toml").write_text(TOML.format(local='lake = "changed"'))
    assert complaints(opened(root, "local")) == []


def test_a_segment_that_is_moved_while_it_is_looked_for_is_not_counted(root: Path) -> None:
    local = opened(root, "local")
    log_one(local)
    folder = local.settings.ledger.path
    (segment,) = folder.glob("*.segment")
    gone = folder / f"0{segment.name}"
    gone.symlink_to(folder / "nowhere")  # listed, and not there when it is asked
    assert waiting(folder) == 1


def test_a_profile_names_its_lake_also_where_the_environment_says_where_the_log_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINSPRING_LEDGER", "elsewhere/ledger")
    for name in ("local", "other"):
        log_one(open_project(load_settings(root, name)))
    project = open_project(load_settings(root, "local"))
    project.reads_only = True
    assert complaints(project) == []


def test_a_lake_that_only_an_environment_named_is_told_with_it(root: Path) -> None:
    set_outside = {"MAINSPRING_LAKE": "outside/lake"}
    log_one(open_project(load_settings(root, "local", environment=set_outside)))
    project = open_project(load_settings(root, "local", environment={}))
    project.reads_only = True
    (told,) = complaints(project)
    assert "neither a profile nor the environment names" in told
    assert "MAINSPRING_LAKE=outside/lake" in told
    again = open_project(load_settings(root, "local", environment=set_outside))
    assert complaints(again) == []
