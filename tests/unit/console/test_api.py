import re

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, START, WEEKS, Project, populated
from kit.planes import flat
from mainspring.console.app import create_app
from mainspring.console.guard import PUBLIC
from mainspring.console.server import SIGNED
from mainspring.core.errors import Denied
from mainspring.core.time import DAY
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope


def test_status_says_what_is_live(administrator) -> None:
    status = administrator.get("/api/status").json()
    assert (status["project"], status["profile"], status["now"]) == ("flights", "local", NOW)
    (endpoint,) = status["endpoints"]
    (arm,) = endpoint["arms"]
    assert (endpoint["endpoint"], endpoint["model"], endpoint["task"]) == ("late-arrival", "late-arrival", "binary")
    assert (arm["number"], arm["by"], arm["problem"]) == ("2", "ana", None)
    auc = {"metric": "auc", "value": 0.7377, "baseline": 0.6821, "gate": "beats by 0.005"}
    assert arm["metrics"][0] == auc


def test_endpoints_come_with_their_routes(administrator) -> None:
    (endpoint,) = administrator.get("/api/endpoints").json()["endpoints"]
    assert endpoint["name"] == "late-arrival"
    assert endpoint["route"]["arms"][0]["version"] == "2"


def test_windows_can_be_cut(administrator) -> None:
    everything = administrator.get("/api/endpoints/late-arrival/windows").json()["windows"]
    assert len(everything) == WEEKS
    later = administrator.get(f"/api/endpoints/late-arrival/windows?since={START + 1}").json()["windows"]
    assert later == everything[1:]
    assert administrator.get("/api/endpoints/nobody/windows").status_code == 404


def test_predictions_newest_first(administrator) -> None:
    found = administrator.get("/api/predictions?endpoint=late-arrival&limit=3").json()["predictions"]
    assert len(found) == 3
    assert found[0]["at"] > found[1]["at"] > found[2]["at"]
    assert administrator.get("/api/predictions?endpoint=nobody").json()["predictions"] == []


def test_one_prediction_with_its_makers(administrator, project) -> None:
    one = project.predictions.recent(limit=30)[20]
    found = administrator.get(f"/api/predictions/{one.id}").json()
    assert found["prediction"]["features"]["Weather.gust"] is None
    assert found["manifest"]["run_id"] == found["run"]["id"] == found["version"]["run_id"]
    assert found["dataset_commit"]["id"] == found["manifest"]["dataset_commit"]
    assert found["label"]["value"] is True
    assert found["label"]["lag_us"] == found["label"]["arrived_at"] - one.at
    assert found["missing"] == []


def test_a_bundle_that_is_gone_is_named(administrator) -> None:
    project = populated()
    one = project.predictions.recent(limit=1)[0]
    project.blobs.delete(one.digest)
    found = Client(create_app(project), project.key()).get(f"/api/predictions/{one.id}").json()
    assert found["manifest"] is None
    assert len(found["missing"]) == 1
    assert "The bundle" in found["missing"][0]


def test_models_and_versions(administrator) -> None:
    (model,) = administrator.get("/api/models").json()["models"]
    assert (model["name"], model["versions"], model["aliases"]) == ("late-arrival", 2, {"champion": "2"})
    found = administrator.get("/api/models/late-arrival/versions").json()
    assert [version["version"] for version in found["versions"]] == ["2", "1"]
    assert [(move["old"], move["new"]) for move in found["moves"]] == [("1", "2"), (None, "1")]
    assert administrator.get("/api/models/nobody/versions").status_code == 404


def test_runs(administrator) -> None:
    runs = administrator.get("/api/runs?model=late-arrival&limit=1").json()["runs"]
    assert [run["status"] for run in runs] == ["FINISHED"]
    nobody = administrator.get("/api/runs?model=nobody").json()
    assert (nobody["runs"], nobody["next"]) == ([], None)


@pytest.mark.parametrize(
    "path",
    ["status", "endpoints/late-arrival/windows", "predictions", "models", "models/late-arrival/history", "runs",
     "features", "features/Weather", "data", "data/tables/weather", "data/commits", "jobs", "keys", "audit"],
)  # fmt: skip
def test_an_answer_says_in_what_unit_its_instants_are(administrator, path) -> None:
    answer = administrator.get(f"/api/{path}")
    assert answer.status_code == 200
    assert answer.json()["units"]["instants"] == "UTC epoch microseconds"


class TestKeys:
    @pytest.fixture
    def here(self) -> Project:
        return Project()

    @pytest.fixture
    def owner(self, here) -> Client:
        return Client(create_app(here), here.key())

    def create(self, owner, **changed):
        return owner("POST", "/api/keys", json={"name": "batch", "scopes": ["predict"], "lifetime": "90d", **changed})

    def test_a_created_key_works_and_is_shown_once(self, here, owner) -> None:
        made = self.create(owner)
        assert made.status_code == 201
        token = made.json()["token"]
        assert here.authenticator.identify(token).scopes == {KeyScope.PREDICT}
        listed = owner.get("/api/keys")
        assert token.split("_")[2] not in listed.text
        (key,) = [key for key in listed.json()["keys"] if key["name"] == "batch"]
        assert set(key) == {"id", "name", "scopes", "created_at", "expires_at", "revoked_at", "created_by", "owner"}
        assert key["expires_at"] - key["created_at"] == 90 * DAY

    def test_a_key_made_with_a_key_is_of_the_person_who_made_the_first(self, here) -> None:
        first = issue(
            here.key_store,
            name="ana",
            scopes=list(KeyScope),
            lifetime_us=DAY,
            clock=here.authenticator.clock,
            pepper=here.pepper,
            created_by="local:ana",
        )
        second = self.create(Client(create_app(here), first), scopes=["manage", "view"]).json()
        third = self.create(Client(create_app(here), second["token"])).json()
        assert [here.key_store.find(made["id"]).created_by for made in (second, third)] == ["local:ana"] * 2

    def test_a_revoked_key_is_refused(self, here, owner) -> None:
        made = self.create(owner).json()
        assert owner("DELETE", f"/api/keys/{made['id']}").json() == {"id": made["id"], "revoked": True}
        with pytest.raises(Denied, match="revoked"):
            here.authenticator.identify(made["token"])
        assert owner("DELETE", "/api/keys/nobody").status_code == 404

    def test_both_are_in_the_audit_log(self, owner) -> None:
        made = self.create(owner).json()
        owner("DELETE", f"/api/keys/{made['id']}")
        events = owner.get("/api/audit?limit=2").json()["events"]
        assert [event["action"] for event in events] == ["key.revoke", "key.create"]
        assert {event["resource"] for event in events} == {f"key/{made['id']}"}
        assert made["token"] not in str(events)

    @pytest.mark.parametrize(
        "changed",
        [
            {"scopes": []},
            {"scopes": ["root"]},
            {"scopes": "predict"},
            {"lifetime": "0s"},
            {"lifetime": "eternity"},
            {"lifetime": "11000d"},
            {"lifetime": None},
            {"name": ""},
            {"name": 5},
            {"id": "mine"},
        ],
    )
    def test_what_cannot_be_is_refused_and_nothing_is_made(self, here, owner, changed) -> None:
        answer = self.create(owner, **changed)
        assert answer.status_code == 400
        assert answer.json()["fix"]
        assert len(here.key_store.all()) == 1

    def test_no_body_is_refused(self, owner) -> None:
        assert owner("POST", "/api/keys").status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/api/predictions/..",
        "/api/predictions/%2e%2e",
        "/api/predictions/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/predictions/a..b",
        "/api/predictions/x%00y",
        "/api/predictions/x%23y",
        "/api/predictions/" + "a" * 200,
        "/api/models/..%2f/versions",
        "/api/endpoints/%3Cb%3E/windows",
        "/api/predictions?endpoint=../x",
        "/api/runs?model=%27%20OR%201",
        "/api/predictions?limit=0",
        "/api/predictions?limit=1000000",
        "/predictions/%3Cscript%3E",
        "/predictions/..%2f..",
        "/?endpoint=..%2f",
        "/static/..%2fconsole.css",
        "/static/uplot-1.6.32",
        "/static/%2e%2e",
    ],
)
def test_an_id_that_cannot_be_one_goes_nowhere(administrator, path) -> None:
    answer = administrator.get(path)
    assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text


def test_a_wrong_parameter_is_named_and_not_repeated(administrator) -> None:
    answer = administrator.get("/api/predictions?limit=zzz-sent-zzz")
    assert answer.json()["error"] == "These fields are not valid: query.limit."


def test_an_evaluation_without_held_out_rows_is_404_with_a_fix(administrator) -> None:
    answer = administrator.get("/api/models/late-arrival/versions/1/evaluation")
    said = {
        "error": "The bundle contains no held-out rows.",
        "fix": "train the model with a label.",
        "retryable": False,
    }
    assert (answer.status_code, answer.json()) == (404, said)


def test_another_method_is_405(administrator) -> None:
    assert administrator("PUT", "/api/status").status_code == 405


def test_the_api_describes_itself_without_pages_from_elsewhere(administrator) -> None:
    described = administrator.get("/api/openapi.json").json()
    operations = [each for path in described["paths"].values() for each in path.values()]
    assert all(re.search(r"\w", each["description"]) for each in operations)
    for path in ("/docs", "/redoc", "/api/docs"):
        assert administrator.get(path).status_code == 404


def test_every_route_but_pages_is_in_the_description(app) -> None:
    described = app.openapi()
    shown = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    pages = {"/api/openapi.json", "/events"}
    routes = {(method, route.path) for route in flat(app.routes) for method in route.methods if method != "HEAD"}
    documents = {each for each in routes if each[1].startswith(("/api/", "/health/", "/scim/", "/metrics"))}
    assert shown == {each for each in documents if each[1] not in pages}
    for method, path in shown:
        said = described["paths"][path][method.lower()]
        open_ = path in PUBLIC or (method == "POST" and path.startswith(SIGNED))
        assert said["security"] == ([] if open_ else [{"key": []}]), path
        assert not open_ or method == "POST" or "401" not in said["responses"]
        assert ("requestBody" in said) == (method in ("POST", "PUT", "PATCH")), path


def test_the_description_says_what_handlers_take_and_give(app) -> None:
    described = app.openapi()
    schemas = described["components"]["schemas"]
    promote = described["paths"]["/api/models/{model}/versions/{number}/promote"]["post"]
    taken = promote["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert schemas[taken]["properties"].keys() == {"reason", "champion"}
    assert schemas[taken]["additionalProperties"] is False
    models = described["paths"]["/api/models"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert models["required"] == ["models", "found", "of"]
    assert models["properties"]["models"]["items"] == {"$ref": "#/components/schemas/ModelRow"}
    assert {"name", "aliases", "serving"} <= {*schemas["ModelRow"]["required"]}
    assert schemas["GateMetric"]["properties"]["value"] == {"type": ["number", "null"]}
    card = described["paths"]["/api/models/{model}/versions/{number}/card"]["get"]["responses"]
    assert {"200", "202", "400", "401", "403", "404"} <= card.keys()
    assert {"422", "413", "500"} & card.keys() == set()
    users = described["paths"]["/scim/v2/Users"]
    assert {each["name"] for each in users["get"]["parameters"]} == {"filter", "startIndex", "count"}
    assert list(users["post"]["responses"]["409"]["content"]) == ["application/scim+json"]
    assert schemas["NewKey"]["required"] == ["name", "scopes", "lifetime"]


def test_probes_need_nothing_and_say_little(anonymous) -> None:
    assert anonymous.get("/health/live").json() == {"live": True}
    assert anonymous.get("/health/ready").json() == {"ready": True}


def test_every_integer_that_is_asked_for_has_bounds(app) -> None:
    """A database takes 64 bits: what is beyond them is the caller's fault, and said to be."""

    def unbounded(schema) -> bool:
        kinds = schema.get("anyOf", [schema])
        return any(
            kind.get("type") == "integer" and not ("minimum" in kind and {"maximum", "exclusiveMaximum"} & kind.keys())
            for kind in kinds
        )

    found = [
        (path, parameter["name"])
        for path, operations in app.openapi()["paths"].items()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if unbounded(parameter["schema"])
    ]
    assert found == []


@pytest.mark.parametrize("since", [2**63, -(2**63) - 1, 10**40])
def test_an_instant_beyond_64_bits_is_refused(administrator, since) -> None:
    response = administrator.get(f"/api/endpoints/late-arrival/windows?since={since}")
    assert response.status_code == 400
    assert "since" in response.text
