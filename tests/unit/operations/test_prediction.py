"""Personal values of one prediction: who may see them does, and it is known who did."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import Conflict, Denied, NotFound
from mainspring.ledger.conformance import record_persons, recorder
from mainspring.ledger.model import Log
from mainspring.operations.prediction import reveal
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.security.model import EVERY_ROLE, KeyScope, Principal


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = []\n')
    project = open_project(load_settings(tmp_path, environment={}))
    record_persons(recorder(project.prediction_log), 1)
    record_persons(recorder(project.prediction_log, Log(personal="leave out")), 2)
    project.prediction_log.close()
    return project


def test_values_are_shown_and_the_audit_log_says_to_whom(project: Project) -> None:
    assert "email" not in project.predictions.find("p1").keys
    assert reveal(project, "p1").keys["email"] == "1@example.org"
    manager = Principal("key-7", "manager", frozenset({KeyScope.MANAGE}), roles=EVERY_ROLE)
    project.predictions.compact()
    assert reveal(project, "p1", manager).features["Person.age"] == 41
    events = project.audit.read()
    assert [(event.action, event.resource, event.detail) for event in events] == [
        ("predictions.reveal", "prediction/p1", "email, town, Person.age")
    ] * 2
    assert events[0].actor == "key-7"
    assert events[1].actor.startswith("local")


def test_who_may_only_look_is_denied_and_nothing_is_shown(project: Project) -> None:
    with pytest.raises(Denied):
        reveal(
            project, "p1", Principal("key-8", "viewer", frozenset({KeyScope.VIEW, KeyScope.PREDICT}), roles=EVERY_ROLE)
        )
    assert project.audit.read() == []


def test_what_was_left_out_or_never_logged_cannot_be_shown(project: Project) -> None:
    with pytest.raises(Conflict, match="email"):
        reveal(project, "p2")
    with pytest.raises(NotFound):
        reveal(project, "p3")


def test_no_file_of_the_installation_holds_a_personal_value_in_the_clear(project: Project) -> None:
    project.predictions.compact()
    files = [path for path in project.settings.state.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(pq.read_table(path).to_pylist()).encode()
        assert b"example.org" not in content, path
        assert "Nîmes".encode() not in content, path
