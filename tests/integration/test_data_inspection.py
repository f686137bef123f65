"""Searches of a model's training data: a run without a version; nothing is registered or changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.depot import MODEL, Depot, opened
from mainspring.core.errors import Invalid
from mainspring.operations.data_inspection import influence, near_duplicates
from mainspring.operations.ingest import land
from mainspring.operations.train import train
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # several trainings

CALLS = """\
import mainspring as ms

person = ms.Entity("person", keys={"email": ms.String})
calls = ms.Source(
    "calls", schema={"email": ms.String, "length": ms.Float64, "late": ms.Boolean}, event_time="at", pii=["email"]
)
talks = ms.Source("talks", schema={"email": ms.String}, event_time="at")


@ms.feature_view(entity=person, source=talks)
class Talks:
    seen = ms.count(window="1d")


@ms.request_features
class Call:
    length = ms.col("length")


@ms.model(
    "late-call",
    observations=ms.Observations(calls, keys=[person], at=ms.col("at")),
    features=[Call, Talks],
    label=calls.late,
    task="binary",
)
def train(data, run):
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=10, random_state=run.seed).fit(data.train.X, data.train.y)
"""
PEOPLE = ["ana-7f3e9c21@example.org", "ben-55aa1144@example.org"]


@pytest.fixture
def calls(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "calls"\nmodules = ["made_calls"]\n')
    (tmp_path / "made_calls.py").write_text(CALLS)
    lines = [
        f"{PEOPLE[n % 2]},{n * 7 % 11},{str(n * 7 % 11 + n % 3 > 6).lower()},2024-03-{n // 20 + 1:02}T{n % 20:02}:00Z"
        for n in range(400)
    ]
    project = open_project(load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={}))
    for name, rows in (("calls", ["email,length,late,at", *lines]), ("talks", [f"email,at\n{PEOPLE[0]},2024-03-01"])):
        (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
        land(project, name, str(tmp_path / "rows.csv"))
    return project


def test_no_record_of_a_search_or_training_has_a_value_of_a_person(calls: Project) -> None:
    told: list[str] = []
    run, _, found = influence(calls, "late-call", "calls.email", progress=lambda stage, _: told.append(stage))
    table = calls.tracking.artefact(run, "influence.csv").decode()
    assert (len(found), table.count("calls.email=(withheld)")) == (2, 2)
    assert not any(each in "".join([table, *told, repr(found), repr(calls.tracking.get(run))]) for each in PEOPLE)
    for source in ("calls", "talks"):  # which does not mark it
        with pytest.raises(Invalid, match=rf"'email' of source '{source}' identifies a person") as refused:
            train(calls, "late-call", without=[f"{source}.email={PEOPLE[0]}"])
        assert f"{source}@BATCH" in str(refused.value.fix)
    run, _ = near_duplicates(calls, "late-call", reveal=True)
    event = calls.audit.read()[0]
    assert (event.action, event.resource, event.detail) == ("rows.reveal", "model/late-call", f"run {run}: email")
    assert not any(each in repr(calls.audit.read()) for each in PEOPLE)


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
