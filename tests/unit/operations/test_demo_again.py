from __future__ import annotations

from pathlib import Path

from mainspring.ledger.conformance import prediction
from mainspring.operations.demo.walkthrough import CUTOFF, ENDPOINT, _logged, _served
from mainspring.project import open_project
from mainspring.project.settings import load_settings


def test_a_second_demo_in_a_folder_looks_back_on_its_own_predictions_alone(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "flights"\n')
    memory = dict.fromkeys(("catalog", "lake", "online", "tracking", "blobs", "ledger"), "memory://")
    project = open_project(load_settings(tmp_path, overrides=memory, environment={}))
    for number in range(2):
        project.prediction_log.append([prediction(number, endpoint=ENDPOINT, at=CUTOFF + number)])
    before = _logged(project)["id"]
    project.prediction_log.append([prediction(2, endpoint=ENDPOINT, at=CUTOFF)])
    found = _served(project, before, 1)
    assert found["id"].to_pylist() == ["p2"]
