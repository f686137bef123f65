"""Log-in links: they work once, for a while, and give no key away."""

from urllib.parse import parse_qs, urlsplit

import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from mainspring.console.app import create_app
from mainspring.core.time import HOUR, MINUTE
from mainspring.operations.keys import ADMINISTRATOR, console_link, first_key
from mainspring.security.model import KeyScope


@pytest.fixture
def project() -> Project:
    return populated()


def ticket_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["ticket"][0]


def logged_in(browser: Client, ticket: str, wanted: str = "/"):
    return browser("POST", "/login", data={"ticket": ticket, "next": wanted}, headers={"accept": "text/html"})


def test_a_link_logs_in_once(project: Project) -> None:
    app = create_app(project)
    link = console_link(project)
    assert link.startswith(project.settings.control.url)
    browser = Client(app)
    shown = browser.page(link.removeprefix(project.settings.control.url))
    assert "This link logs you in once." in shown.text
    assert browser.page("/").status_code == 401  # to look at it logs nobody in
    assert logged_in(browser, ticket_of(link), "/models").headers["location"] == "/models"
    assert browser.page("/keys").status_code == 200
    again = logged_in(Client(app), ticket_of(link))
    assert again.status_code == 401
    assert "was used before" in again.text


def test_it_expires_and_no_other_text_is_a_ticket(project: Project) -> None:
    app, ticket = create_app(project), ticket_of(console_link(project))
    project.wall.advance(10 * MINUTE)
    for each in (ticket, "nonsense", ticket[:-4] + "AAAA"):
        assert logged_in(Client(app), each).status_code == 401


def test_a_session_is_no_ticket_and_a_ticket_no_session(project: Project) -> None:
    app, browser = create_app(project), Client(create_app(project))
    ticket = ticket_of(console_link(project))
    cookie = logged_in(browser, ticket).headers["set-cookie"].partition("=")
    assert logged_in(Client(app), cookie[2].partition(";")[0]).status_code == 401
    other = ticket_of(console_link(project))
    assert Client(app).get("/api/status", headers={"cookie": f"{cookie[0]}={other}"}).status_code == 401


def test_links_share_a_key_while_it_is_young(project: Project) -> None:
    before = len(project.key_store.all())
    for _ in range(3):
        console_link(project)
    assert len(project.key_store.all()) == before + 1
    project.wall.advance(7 * HOUR)
    console_link(project)
    assert len(project.key_store.all()) == before + 2


def test_a_link_does_not_keep_the_administrator_from_their_key() -> None:
    project = Project()
    console_link(project)
    assert first_key(project) is not None
    assert first_key(project) is None
    names = [key.name for key in project.key_store.all() if KeyScope.MANAGE in key.scopes]
    assert ADMINISTRATOR in names


def test_a_revoked_key_ends_its_sessions(project: Project) -> None:
    browser = Client(create_app(project))
    logged_in(browser, ticket_of(console_link(project)))
    assert browser.page("/").status_code == 200
    key = next(key for key in project.key_store.all() if key.name.startswith("console of "))
    project.key_store.revoke(key.id, project.authenticator.clock.now())
    later = project.having(key_store=project.key_store)  # a process that has not cached the key
    other = Client(create_app(later))
    other.cookies.update(dict(browser.cookies))
    assert other.page("/").status_code == 401
