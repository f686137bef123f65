"""The pages of keys and of the audit log: what they show, change and refuse."""

import csv
import io
import re

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, populated
from mainspring.console.app import create_app
from mainspring.core.time import DAY, HOUR
from mainspring.operations.auditing import VERIFIED
from mainspring.security.model import AuditEvent, KeyScope
from unit.console.test_guard import log_in
from unit.console.test_pages import text_of


@pytest.fixture
def project() -> Project:
    return populated()


@pytest.fixture
def browser(project: Project) -> Client:
    browser = Client(create_app(project))
    log_in(browser, project.key())
    return browser


def posted(browser: Client, path: str, **fields: str):
    csrf = re.search(r'name="csrf" value="([^"]+)"', browser.page("/keys").text)
    assert csrf is not None
    return browser("POST", path, data={"csrf": csrf[1], **fields}, headers={"accept": "text/html"})


class TestKeys:
    def test_a_new_key_is_shown_once_and_works(self, project: Project, browser: Client) -> None:
        made = posted(browser, "/keys", name="nightly <b>", lifetime="1d", **{"scope.view": "yes"})
        assert made.status_code == 201
        token = re.search(r'class="token">([^<]+)<', made.text)
        assert token is not None
        assert Client(create_app(project), token[1]).get("/api/status").status_code == 200
        page = browser.page("/keys").text
        assert token[1] not in page
        assert "nightly &lt;b&gt;" in page
        assert project.audit.read(1)[0].action == "key.create"

    def test_a_key_that_cannot_be_says_why_and_makes_none(self, project: Project, browser: Client) -> None:
        for fields in ({"name": "x", "lifetime": "soon", "scope.view": "yes"}, {"name": "x", "lifetime": "1d"}):
            answer = posted(browser, "/keys", **fields)
            assert answer.status_code == 400
            assert 'role="alert"' in answer.text
        assert [key.name for key in project.key_store.all()].count("x") == 0

    def test_a_revoked_key_is_refused_and_only_after_a_confirmation(self, project: Project, browser: Client) -> None:
        token = project.key(KeyScope.VIEW)
        key_id = token.split("_")[1]
        assert posted(browser, f"/keys/{key_id}/revoke").status_code == 400
        assert posted(browser, f"/keys/{key_id}/revoke", confirm="yes").status_code == 303
        found = project.key_store.find(key_id)
        assert found is not None
        assert found.revoked_at is not None
        assert Client(create_app(project), token).get("/api/status").status_code == 401

    def test_a_viewer_sees_no_keys_and_no_link_to_them(self, project: Project) -> None:
        viewer = Client(create_app(project), project.key(KeyScope.VIEW))
        assert viewer.page("/keys").status_code == 403
        assert 'href="/keys"' not in viewer.page("/").text
        assert viewer.page("/audit").status_code == 200


class TestAudit:
    @pytest.fixture
    def client(self, project: Project) -> Client:
        project.audit.append(
            [
                AuditEvent(NOW - 3 * DAY, "local:ana", "promote", "model/late-arrival", "=1+1"),
                *(AuditEvent(NOW - 2 * HOUR + n, "local:ben", "keys.create", f"key/{n}", "a <b>") for n in range(60)),
            ]
        )
        return Client(create_app(project), project.key())

    def test_filters_pages_and_files_say_the_same(self, client: Client) -> None:
        page = client.page("/audit?actor=BEN&action=keys").text
        assert page.count("<code>keys.create</code>") == 50
        assert "a &lt;b&gt;" in page
        older = re.search(r'href="(/audit\?[^"]+)" rel="next"', page)
        assert older is not None
        rest = client.page(older[1].replace("&amp;", "&")).text
        assert rest.count("<code>keys.create</code>") == 10
        assert 'rel="next"' not in rest
        told = client.get("/api/audit?actor=BEN&action=keys&limit=200").json()
        assert (len(told["events"]), told["next"]) == (60, None)
        rows = list(csv.reader(io.StringIO(client.get("/audit.csv?actor=BEN&action=keys").text)))
        assert (len(rows), rows[0]) == (61, ["at", "actor", "action", "resource", "detail"])
        assert 'href="/api/audit?actor=BEN&amp;action=keys"' in page

    def test_the_page_tells_of_the_tree_and_shows_no_subject(self, client: Client, project: Project) -> None:
        assert "A tree of 61 events, its head signed; never verified." in text_of(client.page("/audit").text)
        project.audit.append([AuditEvent(NOW, "local:ana", "features.reveal", "view/Late", subject="Zoe Quux")])
        project.audit.append([AuditEvent(NOW, "local:ana", VERIFIED, "audit", "62 events: whole")])
        page = client.page("/audit").text
        assert "A tree of 63 events, its head signed; last verified" in text_of(page)
        shown = [page, client.get("/api/audit").text, client.get("/audit.csv").text]
        assert ["features.reveal" in each for each in shown] == [True] * 3
        assert not any("Quux" in each for each in shown)

    def test_a_spreadsheet_computes_nothing(self, client: Client) -> None:
        assert ",'=1+1" in client.get("/audit.csv?action=promote&actor=ana").text

    def test_days_include_their_end(self, client: Client) -> None:
        day = "2013-08-29"
        assert "local:ana" in text_of(client.page(f"/audit?since={day}&until={day}").text)
        assert "No event matches" in text_of(client.page("/audit?until=2013-08-28").text)

    def test_a_time_that_is_none_is_refused_beside_the_fields(self, client: Client) -> None:
        answer = client.page("/audit?since=soon")
        assert answer.status_code == 400
        assert "is not an ISO 8601 time" in text_of(answer.text)
        assert 'value="soon"' in answer.text
