"""Promoting, approving and rolling back in the console: what the page says will happen, and what happens."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from kit.console.client import HOST, Client
from kit.console.flights import Project, populated
from kit.console.registered import MODEL, registered
from kit.console.rolled import rolled
from kit.console.troubled import troubled
from mainspring.console.app import create_app
from mainspring.core.time import DAY
from mainspring.operations.promote import promote
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope
from mainspring.training.gates import at_most
from unit.console.test_pages import Markup, text_of

VERSION = f"/models/{MODEL}/versions"


def asking(project: Project, *gates: Any) -> Project:
    """Return the project with these gates and no approvals."""
    model = replace(project.definitions.models[MODEL], gates=gates)
    return project.having(
        settings=replace(project.settings, approvals=0),
        definitions=replace(project.definitions, models={MODEL: model}),
    )


class Person:
    """A logged-in browser."""

    def __init__(self, project: Project, *scopes: KeyScope, maker: str = "") -> None:
        self.client = Client(create_app(project))
        key = issue(
            project.key_store,
            name="nina",
            scopes=scopes,
            lifetime_us=DAY,
            clock=project.wall,
            pepper=project.pepper,
            created_by=maker,
        )
        self.post("/login", key=key, next="/audit")

    def shown(self, path: str, status: int = 200) -> str:
        answer = self.client.page(path)
        assert answer.status_code == status, answer.text
        Markup().feed(answer.text)
        return answer.text

    def post(self, path: str, **fields: str) -> Any:
        headers = {"origin": f"http://{HOST}", "accept": "text/html"}
        headers["content-type"] = "application/x-www-form-urlencoded"
        return self.client("POST", path, headers=headers, content=urlencode(fields))

    def confirm(self, path: str, **changed: str) -> Any:
        """Send the form of a page of confirmation."""
        page = self.shown(path)
        (form,) = re.findall(r'(?s)<form method="post" action="(/models/[^"]+)" class="confirm">(.*?)</form>', page)
        fields = dict(re.findall(r'name="(\w+)" (?:type="hidden" )?value="([^"]*)"', form[1]))
        assert form[0] == path.partition("?")[0]
        return self.post(form[0], **{**fields, **changed})


MANAGER = (KeyScope.VIEW, KeyScope.MANAGE)


class TestPromotion:
    def test_the_page_says_what_will_happen_and_the_form_does_it(self) -> None:
        project = asking(populated(), at_most("brier", 0.2))
        promote(project, MODEL, "1")
        nina = Person(project, *MANAGER)
        assert f'href="{VERSION}/2/promote"' in nina.shown(f"{VERSION}/2")
        assert f"{VERSION}/1/promote" not in nina.shown(f"{VERSION}/1")  # it is champion
        said = text_of(nina.shown(f"{VERSION}/2/promote"))
        assert "Version 2 becomes champion of late-arrival, instead of version 1." in said
        assert "The endpoint late-arrival serves it from then on." in said
        assert re.search(r"brier &lt;= 0.2|brier <= 0.2|brier at most 0.2", said)
        assert "mainspring promote late-arrival 2" in said
        answer = nina.confirm(f"{VERSION}/2/promote", reason="the <b>new</b> season")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{VERSION}/2#gates")
        move = project.versions.moves(MODEL, "champion")[0]
        assert (move.old, move.new, move.reason) == ("1", "2", "promote: the <b>new</b> season")
        assert move.actor.startswith("nina (")
        assert project.routes.current()[MODEL].arms[0].version == "2"
        assert any(each.actor == move.actor and each.action == "promote" for each in project.audit.read())

    def test_a_failed_gate_is_said_before_and_nothing_moves(self) -> None:
        project = asking(populated(), at_most("brier", 0.1))
        nina = Person(project, *MANAGER)
        project.versions.set_alias(replace(project.versions.moves(MODEL)[0], old="2", new="1"))
        page = nina.shown(f"{VERSION}/2/promote")
        assert "would not be promoted" in text_of(page)
        assert '<span class="state alert">not passed</span>' in page
        assert 'class="confirm"' not in page
        forced = Client(create_app(project), project.key(*MANAGER, name="olaf"))
        answer = forced("POST", f"/api{VERSION}/2/promote", json={"reason": "now"})
        assert (answer.status_code, "did not pass its gates" in answer.text) == (409, True)
        assert project.versions.get(MODEL, "champion").version == "1"

    def test_a_page_that_is_out_of_date_does_nothing(self) -> None:
        project = asking(populated())
        promote(project, MODEL, "1")
        nina = Person(project, *MANAGER)
        csrf = re.findall(r'name="csrf" value="([^"]+)"', nina.shown(f"{VERSION}/2/promote"))[0]
        fields = {"csrf": csrf, "confirm": "yes"}
        assert nina.post(f"{VERSION}/2/promote", **fields, champion="7").status_code == 409
        assert nina.post(f"{VERSION}/2/promote", champion="1", csrf=csrf).status_code == 400
        assert nina.post(f"{VERSION}/2/promote", confirm="yes", champion="1").status_code == 403
        assert project.versions.get(MODEL, "champion").version == "1"
        assert nina.post(f"{VERSION}/2/promote", **fields, champion="1").status_code == 303
        again = nina.post(f"{VERSION}/2/promote", **fields, champion="1")  # sent twice
        assert (again.status_code, "has moved" in again.text) == (409, True)


class TestRollback:
    def test_an_endpoint_and_an_incident_lead_to_it(self) -> None:
        made = troubled()
        nina = Person(made.project, *MANAGER)
        assert f'href="/models/{MODEL}/rollback?endpoint={MODEL}"' in nina.shown(f"/endpoints/{MODEL}")
        page = nina.shown(f"/incidents/{made.quality}")
        assert f"/models/{MODEL}/rollback?incident={made.quality}" in page
        said = text_of(nina.shown(f"/models/{MODEL}/rollback?incident={made.quality}"))
        assert "Version 1 becomes champion of late-arrival again, instead of version 2." in said
        answer = nina.confirm(f"/models/{MODEL}/rollback?incident={made.quality}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/incidents/{made.quality}")
        move = made.project.versions.moves(MODEL, "champion")[0]
        assert (move.new, move.reason) == ("1", f"rollback: incident {made.quality}")
        refused = text_of(nina.shown(f"/models/{MODEL}/rollback"))
        assert "no earlier version" in refused
        assert 'href="/models/late-arrival/rollback' not in nina.shown(f"/endpoints/{MODEL}")

    def test_live_rollouts_are_named_and_end(self) -> None:
        made = rolled()
        nina = Person(made.project, *MANAGER)
        assert "The live rollout of late-arrival ends" in text_of(nina.shown(f"/models/{MODEL}/rollback"))
        assert nina.confirm(f"/models/{MODEL}/rollback").status_code == 303
        assert made.project.rollouts.live() == []

    def test_over_the_api_and_not_twice(self) -> None:
        project = asking(populated())
        api = Client(create_app(project), project.key(*MANAGER, name="olaf"))
        done = api("POST", f"/api/models/{MODEL}/rollback", json={"reason": "x", "champion": "2"})
        assert (done.status_code, done.json()["promotion"]["version"]) == (200, "1")
        assert api("POST", f"/api/models/{MODEL}/rollback", json={"champion": "2"}).status_code == 409
        assert api("POST", f"/api/models/{MODEL}/rollback", json={"because": "x"}).status_code == 400


class TestApproval:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Project:
        return registered(tmp_path)

    def test_somebody_elses_key_approves_once(self, project: Project) -> None:
        dan = Person(project, *MANAGER, maker="local:dan")
        assert f'href="{VERSION}/31/approve"' in dan.shown(f"{VERSION}/31")
        page = dan.shown(f"{VERSION}/31/approve")
        assert f"{MODEL} 31 counts one more approval" in text_of(page)
        assert f"mainspring models approve {MODEL}:31" in page
        answer = dan.confirm(f"{VERSION}/31/approve", reason="looked at it")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{VERSION}/31")
        (given,) = project.approvals.of(MODEL, "31")
        assert (given.approver.endswith(":nina"), given.reason) == (True, "looked at it")
        assert "1 of 1 needed" in dan.shown(f"{VERSION}/31")
        assert dan.confirm(f"{VERSION}/31/approve").status_code == 409

    @pytest.mark.parametrize("maker", ["", "local:ana", "local:ben"])
    def test_an_author_or_nobody_known_is_told_why_not(self, project: Project, maker: str) -> None:
        author = {"30": "local:ben", "31": "local:ana"}
        number = next(each for each, name in author.items() if maker in ("", name))
        nina = Person(project, *MANAGER, maker=maker)
        page = nina.shown(f"{VERSION}/{number}/approve")
        assert ("is the author" if maker else "was made by nobody who is known") in text_of(page)
        assert 'class="confirm"' not in page


@pytest.mark.parametrize("path", [f"{VERSION}/2/promote", f"{VERSION}/2/approve", f"/models/{MODEL}/rollback"])
def test_a_viewer_sees_the_scope_that_is_missing(path: str) -> None:
    project = asking(populated())
    viewer = Person(project, KeyScope.VIEW)
    page = viewer.shown(path)
    assert "needs the scope manage" in text_of(page)
    assert 'class="confirm"' not in page
    (csrf, *_) = re.findall(r'name="csrf" value="([^"]+)"', page)
    assert viewer.post(path, csrf=csrf, confirm="yes", champion="2").status_code == 403
    assert len(project.versions.moves(MODEL)) == 2


@pytest.mark.parametrize("path", [f"{VERSION}/99/promote", "/models/none/rollback", f"{VERSION}/x/approve"])
def test_what_is_not_there_is_404(path: str) -> None:
    assert Person(populated(), *MANAGER).shown(path, 404)
