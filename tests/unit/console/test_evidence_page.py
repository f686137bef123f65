"""The newest evidence of each framework in the console: its counts, its signed files, and who may see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import Project
from mainspring.console.app import create_app
from mainspring.core.errors import Corrupt
from mainspring.core.time import DAY
from mainspring.governance.evidence import frameworks
from mainspring.operations.access import add_account
from mainspring.operations.evidence.reporting import newest
from mainspring.operations.jobs.handlers import WORK
from mainspring.operations.keys import create_key
from mainspring.project.built_in_jobs import options
from mainspring.security.model import Grant, KeyScope, Kind, Role
from mainspring.security.signing import check_signed_text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project()
    made.settings = replace(made.settings, state=tmp_path)
    return made


class Run:
    """A job's run, of which only the progress is asked."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, _done: float, _total: float | None = None, note: str = "") -> None:
        self.notes.append(note)


def client_of(project: Project, role: Role, scope: KeyScope = KeyScope.VIEW) -> Client:
    account = add_account(project, Kind.SERVICE, role)
    project.accounts.grant(Grant(Kind.SERVICE, account.id, role))
    return Client(create_app(project), create_key(project, role, [KeyScope.VIEW, scope], DAY, owner=account.id))


def test_a_job_measures_and_auditors_see_the_newest_with_its_signature(project: Project) -> None:
    auditor = client_of(project, Role.AUDITOR)
    page = auditor.page("/evidence")
    assert page.status_code == 200
    assert page.text.count("not measured yet") == 2 * len(frameworks())  # as a title, and to be read out
    assert auditor.get("/evidence/gdpr/html").status_code == 404
    run = Run()
    counted = WORK["evidence"].do(project, run, options("evidence", {"frameworks": ["gdpr", "sox"]}))
    assert (sorted(counted), run.notes) == (["gdpr", "sox"], ["gdpr", "sox"])
    shown = {each["id"]: each for each in auditor.get("/api/evidence").json()["reports"]}
    assert shown["gdpr"]["states"] == counted["gdpr"]
    assert shown["hipaa"]["at"] == ""
    html = auditor.get("/evidence/gdpr/html")
    check_signed_text(html.content, project.signing_key.public)
    assert html.headers["content-disposition"] == 'attachment; filename="gdpr.html"'
    assert auditor.get("/evidence/gdpr/json").json()["signature"]["algorithm"] == "Ed25519"
    assert '<a href="/evidence/sox/json" download>' in auditor.page("/evidence").text


def test_auditors_start_the_job_that_measures_again_and_one_is_enough(project: Project) -> None:
    auditor, viewer = (
        client_of(project, Role.AUDITOR, KeyScope.MANAGE),
        client_of(project, Role.VIEWER, KeyScope.MANAGE),
    )
    assert 'action="/evidence"' in auditor.page("/evidence").text
    assert "confirmed" in auditor("POST", "/evidence", data={}).text
    first = auditor("POST", "/api/evidence").json()["job"]
    assert auditor("POST", "/evidence", data={"confirm": "yes"}).headers["location"] == "/evidence"
    [job] = project.jobs.find(handlers={"evidence"})
    assert (job.id, job.started_by) == (first, project.audit.read(1)[0].actor)
    page = auditor.page("/evidence").text
    assert (f"/jobs/{first}" in page, 'action="/evidence"' in page) == (True, False)
    for path in ("/evidence", "/api/evidence"):
        assert viewer("POST", path, data={"confirm": "yes"}).status_code == 403, path


def test_others_see_no_report_and_no_path_is_taken_from_an_address(project: Project) -> None:
    viewer, auditor = client_of(project, Role.VIEWER), client_of(project, Role.AUDITOR)
    for path in ("/evidence", "/api/evidence", "/evidence/gdpr/html"):
        assert viewer.get(path).status_code == 403, path
    for path in ("/evidence/none/html", "/evidence/gdpr/key", "/evidence/..%2Fkeys/json"):
        assert auditor.get(path).status_code in (404, 422, 400), path


def test_a_damaged_report_is_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/gdpr.json").write_bytes(msgspec.json.encode({"at": 1}))
    with pytest.raises(Corrupt, match="gdpr is damaged"):
        newest(project)
