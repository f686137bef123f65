"""The pages of incidents: what is wrong, why, and what people do about it."""

import re

import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from kit.console.troubled import ENDPOINT, WEATHER, Troubled, troubled
from mainspring.console.app import create_app
from mainspring.security.model import KeyScope
from unit.console.test_guard import log_in
from unit.console.test_pages import Markup, text_of


@pytest.fixture
def made() -> Troubled:
    return troubled()


@pytest.fixture
def client(made: Troubled) -> Client:
    return Client(create_app(made.project), made.project.key())


def shown(client: Client, path: str, status: int = 200) -> str:
    answer = client.page(path)
    assert answer.status_code == status, answer.text
    Markup().feed(answer.text)
    return answer.text


class TestList:
    def test_open_ones_by_importance_and_closed_ones_after(self, client: Client, made: Troubled) -> None:
        page = shown(client, "/incidents")
        places = [page.index(f'href="/incidents/{id}"') for id in (made.weather, made.quality, made.closed)]
        assert places == sorted(places)
        assert "&lt;b&gt;" in page
        assert '<span class="count" title="open incidents">2</span>' in page
        assert ">expected<" in page[places[2] :]

    def test_of_one_endpoint(self, client: Client, made: Troubled) -> None:
        assert f"/incidents/{made.weather}" in shown(client, f"/incidents?endpoint={ENDPOINT}")
        shown(client, "/incidents?endpoint=nobody", 404)

    def test_closed_ones_are_paged_past_open_ones(self, made: Troubled) -> None:
        from mainspring.console.incidents.listing import incident_list

        first = incident_list(made.project, limit=1)
        assert [row.incident.id for row in first.closed] == [made.closed]
        assert first.next is None
        closed = first.closed[0].incident
        rest = incident_list(made.project, before=(closed.opened_at, closed.id))
        assert (rest.open, rest.closed) == ((), ())

    def test_a_position_that_is_none_is_refused(self, client: Client) -> None:
        for before in ("x", "1", "-1:a", "9" * 30 + ":a", "1:a b"):
            assert client.page(f"/incidents?before={before}").status_code == 400

    def test_without_any(self) -> None:
        project = populated()
        page = shown(Client(create_app(project), project.key()), "/incidents")
        assert "Nothing is wrong that the monitor knows of." in text_of(page)
        assert 'class="count"' not in page


class TestIncident:
    def test_cause_symptoms_course_and_remedies(self, client: Client, made: Troubled) -> None:
        page = shown(client, f"/incidents/{made.weather}")
        text = re.sub(r"\s+", " ", text_of(page))
        assert "Source weather Open" in text
        assert all(f"{ENDPOINT} · {column}: nulls" in text for column in WEATHER)
        assert page.count('id="chart-course-') == 4
        assert 'href="/data/tables/weather/rows"' in page
        assert "mainspring data quarantine weather" in text
        assert "owned by ana" in text

    def test_bad_quality_leads_to_a_rollback(self, client: Client, made: Troubled) -> None:
        assert f"mainspring rollback {ENDPOINT}" in text_of(shown(client, f"/incidents/{made.quality}"))

    def test_the_names_of_features_keep_their_case(self, client: Client, made: Troubled) -> None:
        assert "Feature Schedule.month" in text_of(shown(client, f"/incidents/{made.closed}"))

    def test_an_unknown_one_is_not_found(self, client: Client) -> None:
        shown(client, "/incidents/nobody", 404)


class TestActions:
    @pytest.fixture
    def browser(self, made: Troubled) -> Client:
        browser = Client(create_app(made.project))
        log_in(browser, made.project.key(name="ben"))
        return browser

    def act(self, browser: Client, id: str, action: str, **fields: str):
        csrf = re.search(r'name="csrf" value="([^"]+)"', browser.page(f"/incidents/{id}").text)
        assert csrf is not None
        data = {"csrf": csrf[1], **fields}
        return browser("POST", f"/incidents/{id}/{action}", data=data, headers={"accept": "text/html"})

    def stored(self, project: Project, id: str):
        [found] = project.incidents.get([id])
        return found

    def test_take_silence_judge_and_close(self, browser: Client, made: Troubled) -> None:
        id, project = made.weather, made.project
        assert self.act(browser, id, "own", confirm="yes").status_code == 303
        assert self.stored(project, id).owner.startswith("ben (")
        assert self.act(browser, id, "silence", confirm="yes", until="8h", reason="known").status_code == 303
        assert "Silenced until" in text_of(browser.page(f"/incidents/{id}").text)
        assert self.act(browser, id, "verdict", confirm="yes", verdict="real").status_code == 303
        assert self.stored(project, id).is_open
        assert self.act(browser, id, "close", confirm="yes").status_code == 303
        assert (self.stored(project, id).is_open, self.stored(project, id).verdict) == (False, "real")
        assert {event.action for event in project.audit.read(6)} >= {"incident.own", "incident.silence"}

    def test_nothing_happens_without_a_confirmation_or_for_a_viewer(self, browser: Client, made: Troubled) -> None:
        before = self.stored(made.project, made.weather)
        assert self.act(browser, made.weather, "close").status_code == 400
        assert self.act(browser, made.weather, "silence", confirm="yes", until="soon").status_code == 400
        viewer = Client(create_app(made.project), made.project.key(KeyScope.VIEW))
        assert 'action="/incidents' not in viewer.page(f"/incidents/{made.weather}").text
        assert self.stored(made.project, made.weather) == before
