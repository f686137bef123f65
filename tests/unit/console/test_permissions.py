"""Every route has an action, and nobody gets past it to another resource: neither by a route nor in a list."""

import re
from typing import Any

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from kit.planes import flat
from mainspring.console.app import create_app
from mainspring.console.guard import PUBLIC
from mainspring.console.permissions import NEEDS
from mainspring.console.server import SIGNED
from mainspring.core.time import DAY
from mainspring.ledger import sealing
from mainspring.security.keys import issue
from mainspring.security.model import PROJECT, Account, Action, Binding, Grant, KeyScope, Kind, Role

MODEL, VIEW, TABLE = "late-arrival", "OriginTraffic", "schedule"
KINDS = ("model", "endpoint", "feature-view", "table", "pipeline")
LISTS = [key for key, needs in NEEDS.items() if (needs.unnamed or needs.action) is Action.CONSOLE_OPEN]
OTHERS = [key for key in NEEDS if key not in LISTS]


class Here:
    """The project, and callers with keys of accounts."""

    def __init__(self) -> None:
        self.project: Project = populated()
        self.app: Any = create_app(self.project)
        run = self.project.tracking.search(MODEL)[0].id
        self.names = {
            "model": MODEL,
            "endpoint": MODEL,
            "view": VIEW,
            "source": TABLE,
            "number": "1",
            "run_id": run,
            "run": run,
            "prediction_id": self.project.predictions.recent(limit=1)[0].id,
        }

    def caller(self, *roles: Binding, scopes: tuple[KeyScope, ...] = tuple(KeyScope)) -> Client:
        account = f"a{len(self.project.accounts.all())}"
        self.project.accounts.add(Account(account, Kind.SERVICE, account))
        for role in roles:
            self.project.accounts.grant(Grant("service", account, role.role, role.resource))
        token = issue(
            self.project.key_store,
            name=account,
            scopes=scopes,
            lifetime_us=DAY,
            clock=self.project.wall,
            pepper=self.project.pepper,
            owner=account,
        )
        return Client(self.app, token)

    def filled(self, path: str) -> str:
        named = VIEW if path.startswith("/features") else TABLE if path.startswith("/data") else MODEL
        return re.sub(r"\{(\w+)\}", lambda found: self.names.get(found[1], named), path)


@pytest.fixture(scope="module")
def here() -> Here:
    return Here()


def test_every_route_has_an_action_and_no_action_is_left_over(here: Here) -> None:
    routes = {(method, route.path) for route in flat(here.app.routes) for method in route.methods if method != "HEAD"}
    open_ = {route for route in routes if route[1] in PUBLIC or (route[0] == "POST" and route[1].startswith(SIGNED))}
    assert routes - open_ == NEEDS.keys()


def test_who_administers_everything_else_gets_at_nothing_here(here: Here) -> None:
    stranger = here.caller(*(Binding(Role.ADMINISTRATOR, f"{kind}/other") for kind in KINDS))
    for method, path in OTHERS:
        answer = stranger(method, here.filled(path))
        assert answer.status_code == 403, (method, path, answer.text)
        assert "administrator" in (answer.json().get("fix") or answer.json()["detail"]), (method, path)


def test_lists_hide_what_one_may_not_see(here: Here) -> None:
    stranger = here.caller(*(Binding(Role.ADMINISTRATOR, f"{kind}/other") for kind in KINDS))
    for method, path in LISTS:
        if path in ("/logout", "/events", "/static/{name}", "/api/openapi.json"):
            continue
        answer = stranger(method, path)
        assert answer.status_code == 200, (path, answer.text)
        model = MODEL if path.startswith("/api/") else f"/{MODEL}"  # the name is in a page's example too
        for hidden in (model, VIEW, here.names["run_id"], here.names["prediction_id"]):
            assert hidden not in answer.text, (path, hidden)


def test_a_viewer_of_one_model_meets_no_other_name_in_any_list(here: Here) -> None:
    viewer = here.caller(Binding(Role.VIEWER, f"model/{MODEL}"))
    lists = [path for method, path in NEEDS if method == "GET" and "{" not in path and path != "/events"]
    assert len(lists) > 40
    for path in lists:
        answer = viewer.get(path)
        assert answer.status_code in (200, 403), (path, answer.text)
        others = {VIEW, "Weather", f"/data/{TABLE}", here.names["prediction_id"], f"/endpoints/{MODEL}"}
        assert [each for each in others if each in answer.text] == [], path
    [of_it] = viewer.get("/api/models").json()["models"]
    assert (of_it["name"], of_it["serving"]) == (MODEL, [])
    version = f"/models/{MODEL}/versions/{here.names['number']}"
    for path in (f"/models/{MODEL}", version):
        answer = viewer.get(path)
        assert (answer.status_code, f"/endpoints/{MODEL}" in answer.text, "?endpoint=" in answer.text) == (
            200, False, False
        ), path  # fmt: skip
    both = here.caller(*(Binding(Role.VIEWER, f"{kind}/{MODEL}") for kind in ("model", "endpoint")))
    assert f"/endpoints/{MODEL}" in both.get("/models").text
    assert both.get(f"/api{version}").json()["endpoints"] == [MODEL]
    assert viewer.get(f"/api{version}").json()["endpoints"] == []


def test_who_may_see_one_resource_sees_it_in_lists_and_by_its_routes(here: Here) -> None:
    bound = {"model": MODEL, "endpoint": MODEL, "feature-view": VIEW, "table": TABLE}
    viewer = here.caller(*(Binding(Role.ANALYST, f"{kind}/{name}") for kind, name in bound.items()))
    for path, name in {
        "/api/models": MODEL,
        "/api/endpoints": MODEL,
        "/api/features": VIEW,
        "/api/data": TABLE,
    }.items():
        assert name in viewer.get(path).text, path
    assert "Weather" not in viewer.get("/api/features").text
    for path in (f"/api/runs?model={MODEL}", f"/api/predictions?endpoint={MODEL}", f"/models/{MODEL}"):
        assert viewer.get(path).status_code == 200, path
    for path in ("/api/runs", "/api/predictions", "/api/runs?model=other", "/api/keys", "/api/audit"):
        assert viewer.get(path).status_code == 403, path
    for path in ("/api/runs/{run_id}", "/api/predictions/{prediction_id}"):
        assert viewer.get(here.filled(path)).status_code == 200, path


@pytest.mark.parametrize(
    "path",
    [
        *("/api/predictions?endpoint", "/predictions?endpoint", "/predictions.csv?endpoint", "/incidents?endpoint"),
        *("/api/incidents?endpoint", "/api/rollouts?endpoint", "/runs?model", "/api/runs?model"),
    ],
)
def test_a_query_names_a_resource_once_and_an_empty_name_is_the_project(here: Here, path: str) -> None:
    other = here.caller(*(Binding(Role.ADMINISTRATOR, f"{kind}/other") for kind in ("model", "endpoint")))
    route, name = path.split("?")
    for query in (f"{name}=other&{name}=", f"{name}=&{name}=other", f"{name}=other&{name}={MODEL}"):
        for who in (other, here.caller(Binding(Role.ADMINISTRATOR))):
            assert who.get(f"{route}?{query}").status_code == 400, query
    for query in ("", f"{name}=", f"{name}=%20"):
        answer = other.get(f"{route}?{query}")
        assert answer.status_code == 403, query
        assert f"/{MODEL}" not in answer.text


def test_an_id_that_is_not_there_is_refused_as_another_ones(here: Here) -> None:
    stranger = here.caller(Binding(Role.ADMINISTRATOR, "model/other"))
    for known, unknown in (("run_id", "0" * 32), ("prediction_id", "0" * 26)):
        kind = known.removesuffix("_id")
        there = stranger.get(f"/api/{kind}s/{here.names[known]}").json()
        missing = stranger.get(f"/api/{kind}s/{unknown}").json()
        assert there["error"].replace(here.names[known], unknown) == missing["error"]


def test_names_of_other_scripts_and_quotes_are_other_names(here: Here) -> None:
    one = here.caller(Binding(Role.ADMINISTRATOR, f"model/{MODEL}"))
    for name in (
        "lаte-arrival",
        "late-arrival ",
        "LATE-ARRIVAL",
        'late-arrival"',
        "late-arrival%00",
    ):
        assert one.get(f"/api/models/{name}").status_code in (403, 404), name


def test_a_key_is_bounded_by_its_scopes_and_by_its_owners_roles(here: Here) -> None:
    narrow = here.caller(Binding(Role.ADMINISTRATOR, PROJECT), scopes=(KeyScope.VIEW,))
    assert narrow.get("/api/models").status_code == 200
    assert narrow.get("/api/keys").status_code == 403
    assert "scope 'manage'" in narrow.get("/api/keys").json()["fix"]
    engineer = here.caller(Binding(Role.ENGINEER, PROJECT))
    made = engineer("POST", "/api/keys", json={"name": "x", "scopes": ["manage"], "lifetime": "1d"})
    assert made.status_code == 403


def test_a_key_made_over_the_api_has_its_makers_owner(here: Here) -> None:
    administrator = here.caller(Binding(Role.ADMINISTRATOR, PROJECT))
    made = administrator("POST", "/api/keys", json={"name": "x", "scopes": ["view"], "lifetime": "1d"}).json()
    key = here.project.key_store.find(made["id"])
    owner = key.owner
    assert owner
    assert key.created_by == key.person == f"service:{owner}"
    assert Client(here.app, made["token"]).get("/api/models").status_code == 200
    here.project.accounts.remove(owner)
    here.project.authenticator._rows.clear()  # as a second later
    assert Client(here.app, made["token"]).get("/api/models").status_code == 401


@pytest.mark.parametrize("at", ["/api/predictions/", "/predictions/"])
def test_personal_values_are_for_those_who_may_reveal_them(here: Here, at: str) -> None:
    one = here.project.predictions.recent(limit=1)[0]
    made = msgspec.structs.replace(one, id=f"01{len(at)}", request={"tail": "N-of-somebody"})
    store: Any = here.project.predictions
    store.append([sealing.hidden(made, ["tail"], store.sealer)])
    engineer, administrator = (here.caller(Binding(role)) for role in (Role.ENGINEER, Role.ADMINISTRATOR))
    before = here.project.audit.read(1_000)
    shown = engineer("GET", f"{at}{made.id}")
    assert (shown.status_code, "N-of-somebody" in shown.text) == (200, False)
    assert engineer("GET", f"{at}{made.id}?reveal=true").status_code == 403
    shown = administrator("GET", f"{at}{made.id}?reveal=true")
    assert (shown.status_code, "N-of-somebody" in shown.text) == (200, True)
    after = here.project.audit.read(1_000)
    made_now = after[: len(after) - len(before)]
    assert [(event.action, event.detail) for event in made_now] == [("predictions.reveal", "tail")]
