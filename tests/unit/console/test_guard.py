"""Nothing gets past the guard: every route is asked by everybody who may not have it."""

import asyncio
import re

import pytest

from kit.console.client import HOST, Client
from kit.console.flights import Project, populated
from mainspring.console.app import create_app
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.security.model import KeyScope
from mainspring.security.sessions import LIFETIME

PUBLIC = {"/health/live", "/health/ready", "/login", "/login/provider", "/login/callback"}
SIGNED = ("/api/webhooks/", "/api/edge/records/")
PATHS = {
    "/",
    "/login",
    "/logout",
    "/predictions",
    "/predictions.csv",
    "/api/predictions/x/explanation",
    "/api/predictions/x/replay",
    "/predictions/x",
    "/features",
    "/features/x",
    "/data",
    "/data/x",
    "/data/tables/x",
    "/data/commits",
    "/data/commits/x",
    "/static/x",
    "/health/live",
    "/health/ready",
    "/api/openapi.json",
    "/api/status",
    "/api/endpoints",
    "/api/endpoints/x/windows",
    "/api/endpoints/x/quality",
    "/api/endpoints/x/distribution",
    "/api/endpoints/x/baselines",
    "/api/endpoints/x/objectives",
    "/api/endpoints/x/service",
    "/api/endpoints/x/scaling",
    "/api/predictions",
    "/api/predictions/x",
    "/api/models",
    "/api/models/x",
    "/api/models/x/history",
    "/api/models/x/versions",
    "/api/models/x/versions/x",
    "/api/models/x/versions/x/card",
    "/api/models/x/versions/x/evaluation",
    "/models",
    "/models/x",
    "/models/x/history",
    "/models/x/versions/x",
    "/models/x/versions/x/card",
    "/models/x/versions/x/evaluation",
    "/models/x/versions/x/explanation",
    "/models/x/versions/x/card.md",
    "/api/runs",
    "/api/whoami",
    "/sessions",
    "/sessions/x/end",
    "/api/sessions",
    "/api/sessions/x/end",
    "/api/keys",
    "/api/keys/x",
    "/api/audit",
    "/api/audit/heads",
    "/keys",
    "/keys/x/revoke",
    "/audit",
    "/audit.csv",
    "/evidence",
    "/evidence/x/x",
    "/api/evidence",
    "/endpoints",
    "/endpoints/x",
    "/endpoints/x/performance",
    "/endpoints/x/drift",
    "/endpoints/x/latency",
    "/endpoints/x/capacity",
    "/endpoints/x/scaling",
    "/endpoints/x/rollout",
    "/incidents",
    "/incidents/x",
    "/incidents/x/x",
    "/find",
    "/api/find",
    "/events",
    "/api/features",
    "/api/features/x",
    "/api/features/x/distributions",
    "/api/features/x/online",
    "/api/lineage",
    "/api/data",
    "/api/data/tables/x",
    "/api/data/tables/x/profile",
    "/api/data/commits",
    "/api/data/commits/x",
    "/api/data/commits/x/difference",
    "/runs",
    "/runs/compare",
    "/runs/x",
    "/api/runs/x",
    "/api/runs/x/history",
    "/runs/x/search",
    "/api/runs/x/search",
    "/jobs",
    "/predictions/x/answer",
    "/api/predictions/x/answer",
    "/collections",
    "/collections/x",
    "/collections/x/search",
    "/api/collections",
    "/api/collections/x",
    "/api/collections/x/search",
    "/answers",
    "/answers/x",
    "/api/answers",
    "/api/answers/x",
    "/prompts",
    "/prompts/x",
    "/api/prompts",
    "/api/prompts/x",
    "/api/prompts/x/difference",
    "/language-models",
    "/language-models.csv",
    "/language-models/x",
    "/api/language-models",
    "/api/language-models/x",
    "/api/language-model-usage",
    "/api/language-model-budgets",
    "/cost",
    "/cost.csv",
    "/api/cost",
    "/api/cost/own",
    "/held-calls",
    "/held-calls/x/x",
    "/api/held-calls",
    "/api/held-calls/x/x",
    "/streams",
    "/streams/x",
    "/api/streams",
    "/api/streams/x",
    "/api/streams/x/dead-letters",
    "/fleet",
    "/fleet/x",
    "/api/edge/fleet",
    "/api/edge/devices",
    "/api/edge/devices/x",
    "/api/edge/records/x",
    "/jobs/x",
    "/rollouts",
    "/rollouts/x",
    "/rollouts/x/x",
    "/api/incidents",
    "/api/incidents/x",
    "/api/incidents/x/x",
    "/data/tables/x/rows",
    "/api/data/tables/x/rows",
    "/endpoints/x/callers",
    "/api/endpoints/x/callers",
    "/endpoints/x/fairness",
    "/api/endpoints/x/fairness",
    "/models/x/rollback",
    "/models/x/versions/x/promote",
    "/models/x/versions/x/approve",
    "/api/models/x/rollback",
    "/api/models/x/versions/x/promote",
    "/api/models/x/versions/x/approve",
    "/api/rollouts",
    "/api/rollouts/x",
    "/api/rollouts/x/looks",
    "/api/rollouts/x/x",
    "/pipelines",
    "/pipelines/x",
    "/pipelines/x/runs",
    "/pipelines/x/runs/x",
    "/pipelines/x/runs/x/steps/x",
    "/pipelines/x/runs/x/x",
    "/api/pipelines",
    "/api/pipelines/x",
    "/api/pipelines/x/runs",
    "/api/pipelines/x/runs/x",
    "/api/pipelines/x/runs/x/steps/x/log",
    "/api/pipelines/x/runs/x/x",
    "/api/jobs",
    "/api/jobs/x",
    "/api/webhooks/x",
    "/metrics",
    "/scim/v2/ServiceProviderConfig",
    "/scim/v2/ResourceTypes",
    "/scim/v2/Users",
    "/scim/v2/Users/x",
    "/scim/v2/Groups",
    "/scim/v2/Groups/x",
}


def routes(app) -> list[tuple[str, str]]:
    """Return every (method, path) that the application answers, path parameters filled in."""

    def walk(found) -> list[tuple[str, str]]:
        pairs = []
        for route in found:
            if hasattr(route, "methods"):
                path = re.sub(r"{[^}]*}", "x", route.path)
                pairs += [(method, path) for method in sorted(route.methods)]
            else:
                inner = getattr(route, "original_router", None) or route
                pairs += walk(inner.routes)
        return pairs

    return walk(app.routes)


ALL = routes(create_app(Project()))
GUARDED = [pair for pair in ALL if pair[1] not in PUBLIC]
SIGNED_BODY = [pair for pair in GUARDED if pair[1].startswith(SIGNED)]  # a key is no way in; see test_webhooks.py
KEYED = [pair for pair in GUARDED if pair not in SIGNED_BODY]
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
MANAGING = [pair for pair in KEYED if pair[0] in CHANGES or pair[1] in ("/api/keys", "/keys")]
EVERY_ROUTE = pytest.mark.parametrize(("method", "path"), GUARDED)


def test_the_enumeration_finds_every_route() -> None:
    assert {path for _, path in ALL} == PATHS
    assert ("POST", "/api/keys") in GUARDED
    assert ("DELETE", "/api/keys/x") in GUARDED


@EVERY_ROUTE
def test_anonymous_gets_401(anonymous, method, path) -> None:
    for accept in ("*/*", "text/html"):
        response = anonymous(method, path, headers={"accept": accept})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "late-arrival" not in response.text


@EVERY_ROUTE
def test_a_wrong_key_gets_401(anonymous, method, path) -> None:
    for header in ("Bearer nonsense", "Basic YTpi", "Bearer "):
        assert anonymous(method, path, headers={"authorization": header}).status_code == 401, header


@pytest.mark.parametrize(("method", "path"), [pair for pair in KEYED if pair[1] != "/metrics"])
def test_a_key_without_the_scope_gets_403(app, project, method, path) -> None:
    predictor = Client(app, project.key(KeyScope.PREDICT, KeyScope.SCRAPE))
    assert predictor(method, path).status_code == 403


def test_metrics_are_for_keys_that_scrape(app, project) -> None:
    others = [action for action in KeyScope if action is not KeyScope.SCRAPE]
    assert Client(app, project.key(*others)).get("/metrics").status_code == 403
    assert Client(app, project.key(KeyScope.SCRAPE)).get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [pair for pair in MANAGING if pair[1] not in ("/logout", "/api/audit/heads")]
)
def test_viewing_is_not_managing(app, project, method, path) -> None:
    viewer = Client(app, project.key(KeyScope.VIEW))
    response = viewer(method, path)
    assert response.status_code == 403
    assert "manage" in (response.json().get("fix") or response.json()["detail"])


@pytest.mark.parametrize(("method", "path"), ALL)
def test_another_host_is_answered_nowhere(administrator, method, path) -> None:
    """DNS rebinding: the attacker's name points here, and the browser says that name."""
    for host in ("evil.example", "127.0.0.1.evil.example:8081", ""):
        response = administrator(method, path, headers={"host": host})
        assert response.status_code == 403, host
        assert method == "HEAD" or "does not serve the host" in response.text


@pytest.mark.parametrize("path", ["/login", "/logout", "/api/keys"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000"])
def test_another_pages_post_is_refused_before_anything_else(administrator, path, origin) -> None:
    response = administrator("POST", path, headers={"origin": origin})
    assert response.status_code == 403
    assert "does not belong to this server" in response.text


def test_a_route_that_nobody_thought_of_is_behind_the_guard(anonymous, administrator) -> None:
    assert anonymous.get("/anything").status_code == 401
    assert administrator.get("/anything").status_code == 404


def test_a_route_with_an_empty_id_is_none(administrator) -> None:
    answer = administrator.get("/api/rollouts/")
    assert answer.status_code == 404


def test_path_tricks_open_nothing(anonymous) -> None:
    for path in (
        "/login/",
        "//login",
        "/login/../api/keys",
        "/health/live/../../api/keys",
        "/LOGIN",
        "/login%2f",
        "/api/keys?/login",
    ):
        assert anonymous.get(path).status_code == 401


def test_websockets_are_refused(app) -> None:
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


class TestSessions:
    @pytest.fixture
    def here(self) -> Project:
        return populated()

    @pytest.fixture
    def browser(self, here) -> Client:
        browser = Client(create_app(here))
        answer = log_in(browser, here.key())
        assert answer.status_code == 303
        return browser

    def test_a_key_opens_a_session_in_a_private_cookie(self, here) -> None:
        answer = log_in(Client(create_app(here)), here.key())
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("mainspring_8081=")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert answer.headers["location"] == "/"

    def test_the_session_shows_pages(self, browser) -> None:
        assert browser.page("/").status_code == 200
        assert browser.get("/api/keys").status_code == 200

    def test_it_is_asked_for_a_csrf_token_whatever_it_changes(self, browser) -> None:
        for method, path in MANAGING:
            if method != "GET" and path != "/api/keys":
                assert browser(method, path).status_code == 403
        answer = browser("POST", "/api/keys", json={"name": "x", "scopes": ["view"], "lifetime": "1d"})
        assert answer.status_code == 403
        assert "does not belong to your session" in answer.json()["error"]

    def test_the_pages_token_lets_it_through(self, browser) -> None:
        token = csrf(browser)
        body = {"name": "x", "scopes": ["view"], "lifetime": "1d"}
        assert browser("POST", "/api/keys", json=body, headers={"x-csrf-token": token}).status_code == 201
        assert browser("POST", "/api/keys", json=body, headers={"x-csrf-token": token[:-1]}).status_code == 403

    def test_another_sessions_token_does_not(self, here, browser) -> None:
        other = Client(create_app(here))
        log_in(other, here.key())
        assert browser("POST", "/logout", data={"csrf": csrf(other)}).status_code == 403

    def test_logging_out_ends_it_for_good(self, browser) -> None:
        cookies = dict(browser.cookies)
        assert browser("POST", "/logout", data={"csrf": csrf(browser)}).status_code == 303
        browser.cookies.update(cookies)
        assert browser.page("/").status_code == 401

    def test_revoking_its_key_ends_it(self, here, browser) -> None:
        here.authenticator._rows.clear()  # as a second later
        for key in here.key_store.all():
            here.key_store.revoke(key.id, here.wall.now())
        assert browser.page("/").status_code == 401

    def test_it_ends_by_itself(self, here, browser) -> None:
        assert isinstance(here.wall, ManualClock)
        here.wall.advance(LIFETIME)
        assert browser.page("/").status_code == 401

    def test_a_changed_cookie_is_none(self, browser) -> None:
        name, value = next(iter(browser.cookies.items()))
        assert Client(browser.app).get("/", headers={"cookie": f"{name}={value[:-4]}AAAA"}).status_code == 401

    @pytest.mark.parametrize("key", ["", "nonsense", "msp_" + "0" * 26 + "_" + "a" * 43 + "00000000"])
    def test_a_wrong_key_opens_nothing(self, here, key) -> None:
        answer = log_in(Client(create_app(here)), key)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text

    def test_attempts_are_limited_whatever_key_they_bring(self, here) -> None:
        browser, key = Client(create_app(here)), here.key()
        answers = [log_in(browser, "nonsense" if number % 2 else key) for number in range(25)]
        assert [answer.status_code for answer in answers[:20]] == [303, 401] * 10
        assert {answer.status_code for answer in answers[20:]} == {429}
        assert int(answers[-1].headers["retry-after"]) > 0
        assert "set-cookie" not in answers[-1].headers

    def test_logged_out_it_stays_ended_after_a_restart(self, here, browser) -> None:
        cookies = dict(browser.cookies)
        assert (
            Client(create_app(here)).get("/", headers={"cookie": "; ".join(map("=".join, cookies.items()))}).is_success
        )
        assert browser("POST", "/logout", data={"csrf": csrf(browser)}).status_code == 303
        restarted = Client(create_app(here))
        restarted.cookies.update(cookies)
        assert restarted.page("/").status_code == 401

    def test_a_key_that_may_not_view_opens_nothing(self, here) -> None:
        answer = log_in(Client(create_app(here)), here.key(KeyScope.PREDICT))
        assert answer.status_code == 401
        assert "may not console.open" in answer.text

    @pytest.mark.parametrize(
        ("wanted", "there"),
        [
            ("/predictions/01k6f3", "/predictions/01k6f3"),
            ("/?endpoint=late-arrival", "/?endpoint=late-arrival"),
            ("/models/late-arrival/versions/3/card", "/models/late-arrival/versions/3/card"),
            ("/endpoints/late-arrival/drift?range=7d", "/endpoints/late-arrival/drift?range=7d"),
            ("/models/late-arrival/history", "/models/late-arrival/history"),
            ("/models/late-arrival/versions/3/promote", "/models/late-arrival/versions/3/promote"),
            ("/models/late-arrival/rollback?incident=01k6", "/models/late-arrival/rollback?incident=01k6"),
            ("/endpoints/late-arrival/fairness", "/endpoints/late-arrival/fairness"),
            ("/runs/01k6f3/search", "/runs/01k6f3/search"),
            ("/jobs/01k6f3", "/jobs/01k6f3"),
            ("/features?q=late&owner=ana#x", "/features?q=late&owner=ana#x"),
            ("/runs?q=metrics.auc+%3E+0.7&sort=metrics.auc", "/runs?q=metrics.auc+%3E+0.7&sort=metrics.auc"),
            ("/runs/compare?run=01k6f3&run=01k6f4", "/runs/compare?run=01k6f3&run=01k6f4"),
            ("/?a=\r\nset-cookie: x=y", "/"),
            ("/models//evil.example", "/"),
            ("//evil.example?x=1", "/"),
            ("/login?next=/", "/"),
            ("//evil.example", "/"),
            ("https://evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("/logout", "/"),
            ("javascript:alert(1)", "/"),
        ],
    )
    def test_it_goes_on_to_an_own_page_only(self, here, wanted, there) -> None:
        assert log_in(Client(create_app(here)), here.key(), wanted).headers["location"] == there

    def test_a_refused_log_in_is_noted_without_what_was_typed(self, here) -> None:
        log_in(Client(create_app(here)), "correct horse battery")
        (event,) = here.audit.read()
        assert (event.action, event.resource) == ("console.login.refused", "console")
        assert event.actor.startswith("unknown at ")
        assert "This is not a valid API key" in event.detail
        assert "horse" not in repr(event)

    def test_a_flood_of_refused_log_ins_is_two_events_with_the_count(self, here) -> None:
        app = create_app(here)
        for _ in range(12):
            log_in(Client(app), "correct horse battery")
        app.state.refusals.flush()
        assert [event.detail[:7] for event in here.audit.read()] == ["11 more", "This is"]

    def test_a_link_that_was_shared_is_the_page_behind_the_log_in(self, here) -> None:
        link = "/features?q=late&owner=ana"
        asked = Client(create_app(here)).page(link)
        assert asked.status_code == 401
        assert 'name="next" value="/features?q=late&amp;owner=ana"' in asked.text

    def test_an_error_is_shown_with_the_way_back_to_those_who_are_let_in(self, browser, anonymous) -> None:
        assert 'aria-label="Sections"' in browser.page("/predictions/nobody").text
        assert 'aria-label="Sections"' not in anonymous.page("/predictions/nobody").text

    def test_logging_in_and_out_is_noted(self, here, browser) -> None:
        browser("POST", "/logout", data={"csrf": csrf(browser)})
        assert [event.action for event in here.audit.read()] == ["console.logout", "console.login"]
        assert all(event.actor.startswith("administrator (") for event in here.audit.read())


def log_in(browser: Client, key: str, wanted: str = "/"):
    return browser("POST", "/login", data={"key": key, "next": wanted}, headers={"origin": f"http://{HOST}"})


def csrf(browser: Client) -> str:
    return re.search(r'name="csrf" value="([0-9a-f]+)"', browser.page("/").text)[1]


def test_a_form_of_too_many_fields_is_refused(anonymous) -> None:
    fields = {f"field{number}": "1" for number in range(21)}
    response = anonymous("POST", "/login", data=fields, headers={"origin": f"http://{HOST}"})
    assert response.status_code == 400
    assert "more than 20 fields" in response.text


class TestAssets:
    def addresses(self, administrator) -> list[str]:
        return re.findall(r'(?:href|src)="(/static/[^"]+)"', administrator.page("/").text)

    def test_a_page_names_them_by_their_content_and_they_are_kept(self, administrator) -> None:
        addresses = self.addresses(administrator)
        assert len(addresses) == 5
        for address in addresses:
            packed = administrator.get(address, headers={"accept-encoding": "gzip"})
            plain = administrator.get(address, headers={"accept-encoding": "identity"})
            assert packed.headers["cache-control"] == "private, max-age=31536000, immutable"
            assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
            assert packed.content == plain.content  # httpx has unpacked it
            assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])

    def test_without_its_content_in_the_address_it_is_asked_for_again(self, administrator) -> None:
        for address in ("/static/console.css", "/static/console.css?v=0123456789abcdef"):
            first = administrator.get(address)
            assert first.headers["cache-control"] == "private, no-cache"
            again = administrator.get(address, headers={"if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert administrator.get(address, headers={"if-none-match": '"other"'}).status_code == 200


class TestAnswers:
    @pytest.mark.parametrize("path", ["/", "/login", "/health/live", "/api/status", "/static/console.js", "/nowhere"])
    def test_every_answer_is_fortified(self, administrator, anonymous, path) -> None:
        for client in (administrator, anonymous):
            headers = client.page(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "script-src 'self';" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            kept = path.startswith("/static/") and client is administrator
            assert headers["cache-control"] == ("private, no-cache" if kept else "no-store")

    def test_no_page_carries_code_or_style_in_attributes(self, administrator, project) -> None:
        one = project.predictions.recent(limit=1)[0]
        for path in ("/", f"/predictions/{one.id}"):
            text = administrator.page(path).text
            assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text) == []
            assert re.findall(r'(?:href|src|action)="(?!/|#|data:)[^"]*"', text) == []

    def test_a_large_body_is_refused(self, administrator, anonymous) -> None:
        for client, path in ((administrator, "/api/keys"), (anonymous, "/login")):
            assert client("POST", path, content=b"x" * 70_000).status_code == 413

    def test_a_body_that_is_not_utf_8_is_refused(self, administrator) -> None:
        answer = administrator("POST", "/api/keys", content=b'{"name": "\xff"}')
        assert (answer.status_code, "UTF-8" in answer.json()["error"]) == (400, True)

    def test_a_failure_tells_nothing(self, caplog) -> None:
        class BrokenTracking(MemoryTracking):
            def search(self, model=None, *, status=None, limit=50):
                raise RuntimeError("a detail of ours")

        project = Project(tracking=BrokenTracking())
        answer = Client(create_app(project), project.key()).get("/api/runs")
        assert answer.status_code == 500
        assert answer.json()["error"] == "An internal error occurred."
        assert answer.headers["cache-control"] == "no-store"
        assert "a detail of ours" in caplog.text
