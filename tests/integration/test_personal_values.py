"""Values of columns with a PII mark: withheld until somebody asks for them by name, and then the audit log knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.console.client import Client
from mainspring.console.app import create_app
from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.operations.apply import apply
from mainspring.operations.auditing import audit
from mainspring.operations.encryption import renew
from mainspring.operations.ingest import land, quarantined, quarantined_rows
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.security.keys import issue
from mainspring.security.model import Account, Binding, Grant, KeyScope, Kind, Role

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
    assert events(project) == [("ingest.begun", "source/people"), ("ingest", "source/people")]

    shown = quarantined(project, "people", 10, reveal=True)
    assert re.findall(r"\w+@", repr(shown)).count("ana@") == 1
    assert "ben@" in repr(shown)
    assert events(project)[2:] == [("quarantine.reveal", "source/people")]
    with pytest.raises(NotFound):
        quarantined(project, "nobody", 10)


def test_who_may_reveal_columns_sees_them_in_the_console_and_others_do_not(project: Project, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("number,email,age,at\n7,eve@example.org,30,2024-03-20T10:00:00Z\n")
    land(project, "people", str(tmp_path / "good.csv"))
    land(project, "people", str(tmp_path / "people.csv"))
    app = create_app(project)
    before = len(events(project))

    def answers(*roles: Binding) -> list[tuple[int, bool, bool]]:
        name = f"a{len(project.accounts.all())}"
        project.accounts.add(Account(name, Kind.SERVICE, name))
        for each in roles:
            project.accounts.grant(Grant("service", name, each.role, each.resource))
        token = issue(
            project.key_store, name=name, scopes=tuple(KeyScope), lifetime_us=DAY, clock=project.wall,
            pepper=project.pepper, owner=name,
        )  # fmt: skip
        client = Client(app, token)
        found = []
        for path in ("/api/data/tables/people/rows", "/data/tables/people/rows"):
            for query in ("", "?reveal=true", "?of=quarantine&reveal=true"):
                answer = client("GET", path + query)
                found.append((answer.status_code, "eve@example.org" in answer.text, "ana@example.org" in answer.text))
        return found

    hidden, refused = (200, False, False), (403, False, False)
    assert answers(Binding(Role.ENGINEER)) == 2 * [hidden, refused, refused]
    other = Binding(Role.ADMINISTRATOR, "table/others")
    assert answers(Binding(Role.ENGINEER), other) == 2 * [hidden, refused, refused]
    assert events(project)[before:] == []
    shown = 2 * [hidden, (200, True, False), (200, False, True)]
    assert answers(Binding(Role.ENGINEER), Binding(Role.ADMINISTRATOR, "table/people")) == shown
    made = [event for event in reversed(project.audit.read()) if event.action.endswith(".reveal")]
    assert [(each.action, each.resource, each.detail) for each in made] == 2 * [
        ("rows.reveal", "source/people", "email"), ("quarantine.reveal", "source/people", "email"),
    ]  # fmt: skip
    assert "local:" not in "".join(each.actor for each in made)


def test_who_may_tell_people_apart_sees_the_same_pseudonym_of_equal_values(project: Project, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    rule = 'principal in Role::"analyst", action == Action::"column.pseudonym", resource == Column::"people/email"'
    (tmp_path / "policies" / "apart.cedar").write_text(f'@id("apart")\npermit ({rule});\n')
    names = ("eve", "ana", "eve")
    rows = "".join(
        f"{number},{name}@example.org,{30 + number},2024-03-20T10:00:00Z\n" for number, name in enumerate(names)
    )
    (tmp_path / "good.csv").write_text("number,email,age,at\n" + rows)
    land(project, "people", str(tmp_path / "good.csv"))
    land(project, "people", str(tmp_path / "people.csv"))  # a row of ana's fails a check

    def emails(role: Role, of: str = "landed") -> dict[int, str]:
        if project.accounts.holder(role) is None:
            project.accounts.add(Account(role, Kind.SERVICE, role))
            project.accounts.grant(Grant("service", role, role, "project"))
        token = issue(
            project.key_store, name=role, scopes=tuple(KeyScope), lifetime_us=DAY, clock=project.wall,
            pepper=project.pepper, owner=role,
        )  # fmt: skip
        answer = Client(create_app(project), token)("GET", f"/api/data/tables/people/rows?of={of}")
        assert "@" not in answer.text
        return {int(each["number"]): each["email"] for each in answer.json()["rows"] if each["email"]}

    assert set(emails(Role.ENGINEER).values()) == {"(withheld)"}
    made = emails(Role.ANALYST)
    assert all(re.fullmatch("~[0-9a-f]{16}", each) for each in made.values())
    assert made[0] == made[2] != made[1] == emails(Role.ANALYST, "quarantine")[1]
    assert emails(Role.ADMINISTRATOR) == emails(Role.ANALYST) == made  # a new caller
    renew(project)
    project.close()
    project = open_project(load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={}))
    assert not set(emails(Role.ANALYST).values()) & set(made.values())


def test_what_is_applied_and_landed_is_in_the_audit_log(project: Project, tmp_path: Path) -> None:
    apply(project)
    apply(project)  # nothing changed
    land(project, "people", str(tmp_path / "people.csv"))
    audit(project, "train", "model/x", "version 1")
    first, begun, second, _ = reversed(project.audit.read())
    assert (first.action, first.resource) == ("apply", "definitions")
    assert "+ source people" in first.detail
    assert (begun.action, begun.detail) == ("ingest.begun", "")
    assert second.detail == "0 ingested, 3 quarantined, 0 already there; version 0 (since event 1)"
