"""Profiles of one checkout: none gets another's predictions, and with a state folder each they are up side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.waiting import free_port
from mainspring.core.errors import Invalid
from mainspring.ledger.conformance import prediction
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.migrate.migration import migrate
from mainspring.processes.supervisor import Supervisor
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings


def project_in(root: Path, profile: str) -> Project:
    return open_project(load_settings(root, profile, environment={}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ports = [free_port() for _ in range(4)]
    (tmp_path / "small.py").write_text("")
    (tmp_path / "mainspring.toml").write_text(
        f"""name = "small"
modules = ["small"]
[profiles.local]
gateway = "127.0.0.1:{ports[0]}"
control = "127.0.0.1:{ports[1]}"
[profiles.other]
lake = "elsewhere/lake"
[profiles.staging]
state = ".mainspring/staging"
gateway = "127.0.0.1:{ports[2]}"
control = "127.0.0.1:{ports[3]}"
"""
    )
    return tmp_path


def test_what_one_profile_logged_stays_out_of_the_lake_of_another(root: Path) -> None:
    local = project_in(root, "local")
    local.prediction_log.append([prediction(1)])
    local.prediction_log.close()
    other = project_in(root, "other")
    other.prediction_log.append([prediction(2)])
    other.prediction_log.close()
    assert other.predictions.compact() == 1
    assert [each.id for each in other.predictions.recent("late", 10)] == ["p2"]
    (root / "moved").mkdir()
    for path in list(root.iterdir()):
        if path.name != "moved":
            path.rename(root / "moved" / path.name)
    again = project_in(root / "moved", "local")
    assert again.predictions.compact() == 1, "a project that was moved finds its own"
    assert again.lake.tables()[0] == PREDICTIONS  # beside the sketches of them
    for project in (local, other, again):
        project.close()


def test_environments_with_a_state_folder_each_are_up_at_once(root: Path) -> None:
    local, staging = project_in(root, "local"), project_in(root, "staging")
    assert staging.settings.catalog.path == root / ".mainspring" / "staging" / "catalog.db"
    assert staging.settings.ledger.path == root / ".mainspring" / "staging" / "ledger"
    assert local.pepper != staging.pepper
    with (
        Supervisor(local, parts=("gateway",)).running(),
        Supervisor(staging, parts=("gateway",)).running(),
    ):
        assert (root / ".mainspring" / "run.json").exists()
        assert (root / ".mainspring" / "staging" / "run.json").exists()
    with pytest.raises(Invalid, match="two state folders"):
        list(migrate(local, staging, lambda *_: None))
    for project in (local, staging):
        project.close()
