"""Searches of a model's training data: a run without a version; nothing is registered or changed."""

from __future__ import annotations

import pytest

from kit.depot import MODEL, Depot, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # several trainings


def test_suspects_are_listed_and_kept_with_a_run_and_nothing_is_registered(depot: Depot) -> None:
    versions = depot.json("models", "list", MODEL)
    found = depot.json("models", "label-issues", MODEL, "--folds", "2")
    assert found["rows"] > 50
    assert len(found["joint"]) == len(found["classes"]) == 2
    assert sum(map(sum, found["joint"])) == pytest.approx(found["rows"])
    confidence = [each["confidence"] for each in found["suspects"]]
    assert confidence == sorted(confidence)
    assert depot.json("models", "list", MODEL) == versions
    project = opened(depot)
    try:
        table = project.tracking.artefact(found["run"], "label_issues.csv").decode().splitlines()
        assert len(table) == len(found["suspects"]) + 1
        assert project.tracking.get(found["run"]).status == "FINISHED"
    finally:
        project.close()
