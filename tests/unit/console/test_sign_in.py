"""Sign-in at an identity provider: one browser, one attempt, one person, for as long as the provider knows them."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from kit.console.client import HOST, Client
from kit.console.flights import Project, populated
from kit.identity_provider import CLIENT, SECRET, IdentityProvider, Person, SigningKey, in_json, running
from mainspring.console.app import create_app
from mainspring.core.settings import SignIn, TrustedIssuer
from mainspring.core.time import MINUTE, SECOND
from mainspring.operations.access import set_disabled
from mainspring.security.model import Account, AuditEvent, Grant, Role
from mainspring.security.sign_ins import AWAY_US, CHECK_US, RETRY_US

ADDRESSES = itertools.count()
CALLBACK = f"http://{HOST}/login/callback"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Project, IdentityProvider, Any]]:
    project = populated()
    with running(IdentityProvider([SigningKey("ES256")])) as provider:
        provider.now = lambda: project.wall.now() / SECOND
        sign_in = SignIn(TrustedIssuer(provider.url, (CLIENT,)), CLIENT, SECRET, redirect=CALLBACK)
        project = project.having(replace(project.settings, sign_in=sign_in))
        yield project, provider, create_app(project)


def browser_of(app: Any) -> Client:
    """Return a browser at an address of its own: attempts are counted by address."""
    return Client(app, address=f"10.0.{next(ADDRESSES)}.1")


class Console:
    """A console with a provider, and a browser."""

    def __init__(self, project: Project, provider: IdentityProvider, app: Any = None) -> None:
        self.project, self.provider = project, provider
        self.app = app or create_app(project)
        self.browser = browser_of(self.app)

    def begin(self, wanted: str = "/", browser: Client | None = None) -> str:
        """Go to the provider and return the address to which it sends the browser back."""
        there = (browser or self.browser).get(f"/login/provider?next={wanted}").headers["location"]
        status, headers, _ = self.provider.answer("GET", there.removeprefix(self.provider.url), {}, "")
        assert status == 302
        return headers["Location"].removeprefix(f"http://{HOST}")

    def sign_in(self, person: str = "ana", wanted: str = "/") -> httpx.Response:
        self.provider.person = person
        return self.browser.page(self.begin(wanted))

    def status(self, path: str = "/audit") -> int:
        return self.browser.page(path).status_code

    def grant(self, person: str = "ana") -> str:
        account = self.project.accounts.of_subject(self.provider.url, person)
        self.project.accounts.grant(Grant("user", account.id, Role.ADMINISTRATOR))
        self.wait(2 * SECOND)
        return account.id

    def wait(self, duration: int) -> None:
        self.project.wall.advance(duration)
        self.project.authenticator._people.clear()  # its cache is by the machine's time


def begin_anew(project: Project, provider: IdentityProvider, *people: Person) -> None:
    """Leave nobody and no answer of an earlier test."""
    provider.people = {each.sub: each for each in people}
    provider.answers, provider.change = {}, dict
    for account in project.accounts.all():
        project.accounts.remove(account.id)


@pytest.fixture
def console(shared) -> Console:
    project, provider, app = shared
    begin_anew(project, provider, Person("ana", "Ana"), Person("ben", "Ben"))
    found = Console(project, provider, app)
    found.sign_in()
    found.grant()
    return found


def test_the_first_sign_in_makes_an_account_without_a_role(shared, console) -> None:
    assert console.sign_in("ben").status_code == 200
    assert console.status() == 403
    account = console.project.accounts.of_subject(console.provider.url, "ben")
    assert (account.name, account.email) == ("Ben", "ben@example.org")
    actions = [each.action for each in console.project.audit.read(2)]
    assert actions == ["console.login", "accounts.add"]


def test_a_person_with_a_role_is_in_and_goes_on_to_the_page_that_was_wanted(console) -> None:
    shown = console.sign_in(wanted="/models")
    assert 'content="0;url=/models"' in shown.text
    assert console.status("/models") == 200
    assert [each.action for each in console.project.audit.read(1)] == ["console.login"]
    cookie = next(each for each in shown.headers.get_list("set-cookie") if "SameSite=strict" in each)
    assert "HttpOnly" in cookie


def test_the_log_in_page_offers_the_provider(console) -> None:
    assert 'href="/login/provider?next=' in browser_of(console.app).page("/models").text


def test_what_is_sent_to_the_provider_binds_the_answer_to_this_browser(console) -> None:
    answer = browser_of(console.app).get("/login/provider")
    sent = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    assert sent["redirect_uri"] == CALLBACK
    assert (sent["code_challenge_method"], sent["response_type"], sent["client_id"]) == ("S256", "code", CLIENT)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/login" in cookie
    assert not {sent["state"], sent["nonce"]} & {*cookie.split("=")}


@pytest.mark.parametrize("wanted", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_no_other_page_is_gone_on_to(console, wanted) -> None:
    assert 'content="0;url=/"' in console.sign_in(wanted=wanted).text


def test_another_browser_cannot_finish_an_attempt(console) -> None:
    address = console.begin()
    thief = browser_of(console.app)
    assert thief.page(address).status_code == 401
    console.begin(browser=thief)  # it has an attempt of its own
    assert thief.page(address).status_code == 401
    assert thief.page("/audit").status_code == 401
    assert console.browser.page(address).status_code == 200


def test_an_answer_of_an_attacker_does_not_sign_a_victim_in(console) -> None:
    """Session fixation: a victim is led to the way back of the attacker's own attempt."""
    attacker, victim = browser_of(console.app), browser_of(console.app)
    address = console.begin(browser=attacker)
    assert victim.page(address).status_code == 401
    assert victim.page("/audit").status_code == 401


def test_an_attempt_is_used_once_and_not_after_ten_minutes(console) -> None:
    address = console.begin()
    copy = browser_of(console.app)
    copy.cookies.update(console.browser.cookies)
    assert console.browser.page(address).status_code == 200
    assert copy.page(address).status_code == 401
    address = console.begin()
    console.wait(10 * MINUTE)
    assert console.browser.page(address).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: {**claims, "nonce": "x"},
        lambda claims: {**claims, "aud": "other"},
        lambda claims: {**claims, "iss": "https://evil.example"},
        lambda claims: {**claims, "exp": 1},
        lambda claims: {**claims, "at_hash": "x"},
        lambda claims: {**claims, "sub": ""},
    ],
)
def test_an_id_token_that_is_not_for_this_attempt_signs_nobody_in(console, change) -> None:
    console.provider.change = change
    browser = console.browser = browser_of(console.app)
    assert browser.page(console.begin()).status_code == 401
    assert browser.page("/audit").status_code == 401


def test_what_the_provider_says_of_an_error_is_not_shown(console) -> None:
    state = parse_qs(urlsplit(console.begin()).query)["state"][0]
    shown = console.browser.page(f"/login/callback?state={state}&error=access_denied&error_description=<b>evil</b>")
    assert shown.status_code == 401
    assert "evil" not in shown.text


def test_a_person_removed_at_the_provider_is_out_within_a_minute(console) -> None:
    console.sign_in()
    assert console.status() == 200
    del console.provider.people["ana"]
    console.wait(CHECK_US)
    assert CHECK_US < MINUTE
    assert console.status() == 401
    assert console.project.audit.read(1)[0].action == "console.session.ended"
    console.provider.people["ana"] = Person("ana", "Ana")
    assert console.status() == 401, "the session stays ended"


def test_a_person_disabled_here_is_out_and_cannot_come_back(console) -> None:
    console.sign_in()
    account = console.project.accounts.of_subject(console.provider.url, "ana")
    console.project.accounts.set_disabled(account.id, 1)
    console.wait(2 * SECOND)
    assert console.status() == 401
    assert console.sign_in().status_code == 401


@pytest.mark.parametrize("signs_in", [True, False])
def test_a_person_disabled_during_a_sign_in_or_a_refresh_stays_disabled(console, monkeypatch, signs_in) -> None:
    console.sign_in()
    accounts = console.project.accounts
    account, of_subject = accounts.of_subject(console.provider.url, "ana"), accounts.of_subject

    def read_and_disable(issuer: str, subject: str) -> Account | None:
        found = of_subject(issuer, subject)
        set_disabled(console.project, account, True)
        return found

    monkeypatch.setattr(accounts, "of_subject", read_and_disable)
    console.provider.people["ana"].groups = ["ml"]
    if signs_in:
        console.sign_in()
    else:
        console.wait(CHECK_US)
    assert console.status() == 401
    kept = accounts.find(account.id)
    assert kept.disabled_at is not None
    assert kept.provider_groups == ("ml",)


def test_sessions_go_on_for_a_while_without_the_provider_and_survive_a_restart(console) -> None:
    console.sign_in()
    console.provider.answers["/token"] = lambda: (503, {}, b"{}")
    console.wait(AWAY_US - 1)
    assert console.status() == 200
    restarted = Console(console.project, console.provider)
    restarted.browser.cookies.update(console.browser.cookies)
    assert restarted.status() == 200
    console.wait(2)
    assert console.status() == 503
    console.provider.answers.clear()
    console.wait(2 * RETRY_US)
    assert console.status() == 200


def test_a_provider_that_does_not_answer_is_not_asked_by_each_request(console) -> None:
    console.sign_in()
    other = Console(console.project, console.provider, console.app)
    other.sign_in()
    console.wait(CHECK_US)
    answering, asked = threading.Event(), threading.Event()

    def late() -> tuple[int, dict[str, str], bytes]:
        asked.set()
        answering.wait(10)
        return 503, {}, b"{}"

    console.provider.answers["/token"] = late
    console.provider.asked.clear()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(console.status)
        assert asked.wait(10)
        copy = browser_of(console.app)
        copy.cookies.update(console.browser.cookies)
        assert copy.page("/audit").status_code == 200
        assert not first.done(), "a request waits for another's question"
        answering.set()
        assert first.result() == 200
    assert [console.status(), other.status(), console.status()] == [200] * 3
    tries = [path for path, _ in console.provider.asked if path == "/token"]
    assert len(tries) == 1
    console.wait(RETRY_US)
    assert [console.status(), other.status(), console.status(), other.status()] == [200] * 4
    tries = [path for path, _ in console.provider.asked if path == "/token"]
    assert len(tries) == 2, "one session tries for all"
    console.provider.answers.clear()
    del console.provider.people["ana"]
    console.wait(2 * RETRY_US)
    assert (console.status(), other.status()) == (401, 401)


@pytest.mark.usefixtures("complete")
def test_without_a_refresh_token_the_person_is_asked_for_by_the_access_token(console) -> None:
    without(console, refresh_token="")
    console.sign_in()
    console.wait(CHECK_US)
    assert console.status() == 200
    console.provider.accesses.clear()
    console.wait(CHECK_US)
    assert console.status() == 401


def without(console: Console, **left_out: str) -> None:
    """Have the provider leave tokens out of its answers from now on."""
    tokens = console.provider.tokens
    console.provider.tokens = lambda *args, **more: {**tokens(*args, **more), **left_out}


@pytest.fixture
def complete(shared) -> Iterator[None]:
    yield
    vars(shared[1]).pop("tokens", None)


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("left_out", ["refresh_token", "id_token"])
def test_userinfo_brings_the_newest_groups_and_no_other_person(console, left_out) -> None:
    if left_out == "refresh_token":
        without(console, refresh_token="")
    console.sign_in()
    without(console, **{left_out: ""})
    groups = console.provider.people["ana"].groups
    for now in (["ml"], ["ml", "hr"], []):
        groups[:] = now
        console.wait(CHECK_US)
        assert console.status() == 200
        assert console.project.accounts.of_subject(console.provider.url, "ana").provider_groups == tuple(now)
    console.provider.answers["/userinfo"] = lambda: in_json({**Person("ana").claims(), "sub": "ben"})
    console.wait(CHECK_US)
    assert console.status() == 401


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("left_out", ["refresh_token", "id_token"])
@pytest.mark.parametrize("limits", [{"allowed_groups": ("ml",)}, {"allowed_domains": ("example.org",)}])
def test_a_person_who_is_not_admitted_any_more_is_out_also_without_an_id_token(shared, left_out, limits) -> None:
    project, provider, _ = shared
    begin_anew(project, provider, Person("ana", "Ana", groups=["ml"]))
    only = replace(project.settings.sign_in, **limits)
    console = Console(project.having(replace(project.settings, sign_in=only)), provider)
    if left_out == "refresh_token":
        without(console, refresh_token="")
    console.sign_in()
    console.grant()
    without(console, **{left_out: ""})
    provider.answers["/userinfo"] = lambda: in_json({"sub": "ana"})
    console.wait(CHECK_US)
    assert console.status() == 200, "a claim that is left out is as it was"
    provider.answers.clear()
    provider.people["ana"] = Person("ana", "Ana", "ana@elsewhere.org", ["sales"])
    console.wait(CHECK_US)
    assert console.status() == 401


@pytest.mark.usefixtures("complete")
def test_new_tokens_are_kept_where_userinfo_does_not_answer(console) -> None:
    console.sign_in()
    without(console, id_token="")
    console.provider.answers["/userinfo"] = lambda: (503, {}, b"{}")
    console.wait(CHECK_US)
    assert console.status() == 200
    console.provider.answers.clear()
    console.wait(2 * RETRY_US)
    assert console.status() == 200


def test_a_change_of_groups_is_an_event_with_those_before_and_after(console) -> None:
    console.sign_in()
    account = console.project.accounts.of_subject(console.provider.url, "ana")

    def change(groups: list[str], action: Callable[[], object]) -> list[AuditEvent]:
        console.provider.people["ana"].groups = groups
        before = console.project.wall.now()
        console.wait(CHECK_US)
        action()
        return [e for e in console.project.audit.read(10) if e.at > before and e.action == "accounts.provider-groups"]

    for action in (console.status, console.sign_in):
        (event,) = change(["ml", "hr"], action)
        assert (event.actor, event.resource) == (account.id, f"user/{account.id}")
        assert event.detail == "groups at the identity provider: ['ml', 'hr'], before []"
        assert change(["hr", "ml"], action) == [], "their order is no change"
        (event,) = change([], action)
        assert event.detail == "groups at the identity provider: [], before ['hr', 'ml']"
    console.provider.people["ben"].groups = ["ml"]
    console.sign_in("ben")
    assert console.project.audit.read(2)[1].detail == "first sign-in, groups at the identity provider: ['ml']"


def test_a_stranger_is_shown_nothing_of_this_installation(console, caplog) -> None:
    console.provider.answers["/token"] = lambda: (503, {}, b"{}")
    shown = console.browser.page(console.begin())
    assert shown.status_code == 503
    for ours in (console.provider.url, "client_id", "answered"):
        assert ours not in shown.text
    assert f"{console.provider.url} answered 503" in caplog.text


def test_a_refresh_brings_the_newest_groups_and_no_other_person(console) -> None:
    console.sign_in()
    console.provider.people["ana"].groups = ["ml"]
    console.wait(CHECK_US)
    assert console.status() == 200
    assert console.project.accounts.of_subject(console.provider.url, "ana").provider_groups == ("ml",)
    console.provider.change = lambda claims: {**claims, "sub": "ben"}
    console.wait(CHECK_US)
    assert console.status() == 401


def test_logging_out_ends_the_session_here_and_at_the_provider(console) -> None:
    shown = console.sign_in()
    assert shown.status_code == 200
    page = console.browser.page("/audit").text
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    copy = browser_of(console.app)
    copy.cookies.update(console.browser.cookies)
    out = console.browser("POST", "/logout", data={"csrf": csrf}, headers={"accept": "text/html"})
    assert f"url={console.provider.url}/logout?" in out.text
    assert copy.page("/audit").status_code == 401


def test_all_sessions_of_a_person_can_be_ended(console) -> None:
    console.sign_in()
    account = console.project.accounts.of_subject(console.provider.url, "ana")
    assert console.project.user_sessions.remove_all(account.id) >= 1
    assert console.status() == 401


def test_tokens_of_the_provider_are_not_readable_in_the_catalog(console) -> None:
    console.sign_in()
    account = console.project.accounts.of_subject(console.provider.url, "ana")
    refresh = list(console.provider.refreshes)[-1]
    assert all(refresh.encode() not in each.sealed for each in console.project.user_sessions.of(account.id))


def test_people_of_other_groups_and_domains_are_not_admitted(shared) -> None:
    project, provider, _ = shared
    begin_anew(project, provider, Person("ana", "Ana", groups=["sales"], email="ana@elsewhere.org"))
    for limits in ({"allowed_groups": ("ml",)}, {"allowed_domains": ("example.org",)}):
        only = replace(project.settings.sign_in, **limits)
        console = Console(project.having(replace(project.settings, sign_in=only)), provider)
        assert console.sign_in().status_code == 401
    provider.people["ana"] = Person("ana", "Ana", email="ana@example.org", email_verified=False)
    assert console.sign_in().status_code == 401, "an address that nobody verified counts for nothing"


def test_attempts_of_one_address_are_limited(console) -> None:
    browser = browser_of(console.app)
    answers = [browser.page("/login/provider").status_code for _ in range(21)]
    assert answers == [303] * 20 + [429]


def test_a_session_is_listed_and_ended_with_a_reason(console) -> None:
    project = console.project
    for each in project.user_sessions.all():
        project.user_sessions.remove(each.id)
    console.sign_in()
    ben = browser_of(console.app)
    console.provider.person = "ben"
    ben.page(console.begin(browser=ben))
    page = console.browser.page("/sessions").text
    assert "2 open" in page
    told = console.browser.get("/api/sessions").json()["sessions"]
    assert [each["name"] for each in told] == ["Ana", "Ben"]
    assert not {"sealed", "access", "refresh"} & told[0].keys()
    path = f"/sessions/{told[1]['id']}/end"
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)[1]

    def end(**fields: str) -> int:
        headers = {"origin": f"http://{HOST}", "accept": "text/html", "content-type": FORM}
        return console.browser("POST", path, headers=headers, content=urlencode({"csrf": csrf, **fields})).status_code

    assert end(reason="a lost laptop") == 400  # not confirmed
    assert end(confirm="yes", reason=" ") == 400
    assert ben.page("/sessions").status_code == 403  # he has no role, and is in
    assert end(confirm="yes", reason="a lost laptop") == 303
    assert ben.page("/sessions").status_code == 401
    assert end(confirm="yes", reason="again") == 404
    event = next(each for each in project.audit.read(5) if each.action == "sessions.end")
    assert event.detail == f"session {told[1]['id']}: a lost laptop"
    assert event.actor.startswith("Ana (")
    assert console.status("/sessions") == 200
