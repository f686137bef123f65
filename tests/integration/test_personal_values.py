"""Values of columns with a PII mark: withheld until somebody asks for them by name, and then the audit log knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mainspring.core.errors import NotFound
from mainspring.operations.apply import apply
from mainspring.operations.auditing import audit
from mainspring.operations.ingest import land, quarantined, quarantined_rows
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

PEOPLE = """\
import mainspring as ms

person = ms.Entity("person", keys={"number": ms.Int64})
people = ms.Source(
    "people",
    schema={"number": ms.Int64, "email": ms.String, "age": ms.Int64},
    event_time="at",
    checks=[ms.in_range("age", 0, 120)],
    pii=["email"],
)
"""
CSV = (
    "number,email,age,at\n1,ana@example.org,300,2024-03-20T10:00:00Z\n2,ben@example.org\n3,,200,2024-03-20T10:00:00Z\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "people"\nmodules = ["personal_things"]\n')
    (tmp_path / "personal_things.py").write_text(PEOPLE)
    (tmp_path / "people.csv").write_text(CSV)
    return open_project(load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={}))


def events(project: Project) -> list[tuple[str, str]]:
    return [(event.action, event.resource) for event in reversed(project.audit.read())]


def test_the_quarantine_shows_no_person_until_it_is_asked_to_and_audits_that(project: Project, tmp_path: Path) -> None:
    report = land(project, "people", str(tmp_path / "people.csv"))
    assert (report.rows, report.quarantined) == (0, 3)
    assert quarantined_rows(project, "people") == 3
    hidden = quarantined(project, "people", 10)
    assert "@" not in repr(hidden)
    assert {row["email"] for row in hidden} == {"(withheld)", None}
    assert {row["age"] for row in hidden} >= {"300", "200"}
    assert events(project) == [("ingest", "source/people")]

    shown = quarantined(project, "people", 10, reveal=True)
    assert re.findall(r"\w+@", repr(shown)).count("ana@") == 1
    assert "ben@" in repr(shown)
    assert events(project)[1:] == [("quarantine.reveal", "source/people")]
    with pytest.raises(NotFound):
        quarantined(project, "nobody", 10)


def test_what_is_applied_and_landed_is_in_the_audit_log(project: Project, tmp_path: Path) -> None:
    apply(project)
    apply(project)  # nothing changed
    land(project, "people", str(tmp_path / "people.csv"))
    audit(project, "train", "model/x", "version 1")
    first, second, _ = reversed(project.audit.read())
    assert (first.action, first.resource) == ("apply", "definitions")
    assert "+ source people" in first.detail
    assert second.detail == "0 ingested, 3 quarantined, 0 already there; version 0"
