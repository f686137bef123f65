"""The gateway's OpenAPI document: valid, whole, and true of what is asked and answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from kit.serving import full_request, keyed_request
from kit.serving_process import ServingProcess, gateway_process
from mainspring.serving.http.routes import ROUTES

INFER = "/v2/models/late-arrival/versions/2/infer"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with gateway_process(tmp_path_factory.mktemp("gateway"), models=["late-arrival"], versions=2) as each:
        yield each


@pytest.fixture
def client(gateway: ServingProcess) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=gateway.url, headers={"authorization": gateway.key}, timeout=30, trust_env=False
    ) as each:
        yield each


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    reply = client.get("/v2/openapi.json")
    assert reply.status_code == 200
    return reply.json()


def fits(document: dict[str, Any], name: str, value: Any) -> bool:
    """Return whether a value is valid by a schema of the document."""
    # Draft 2020-12 knows $ref into the document that the schema is part of.
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    loaded = schemathesis.openapi.from_dict(document)
    loaded.validate()  # by the meta-schema of OpenAPI 3.1
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    operations = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(operations)) == len(operations)


def test_every_route_is_there_and_no_other(document: dict[str, Any]) -> None:
    found = {
        (method.upper(), re.sub(r"versions/\d+", "versions/{version}", path.replace("late-arrival", "{model}")))
        for path, methods in document["paths"].items()
        for method in methods
    }
    documented = [route for route in ROUTES if (route.method, route.path) in found]
    assert len(documented) == len(found)
    # The rest is there for Triton's clients to be refused in words, or for models that yield, as this one does not.
    refused = {"generate_stream", "load", "regions", "region", "register", "unregister", "settings"}
    assert {route.handler for route in ROUTES if route not in documented} == refused
    for route in documented:
        path = route.path.format(model="late-arrival", version="1", region="{region}")
        assert bool(document["paths"][path][route.method.lower()]["security"]) == (route.action is not None)


@pytest.mark.parametrize("request_body", [full_request(), keyed_request("AA", None)], ids=["full", "keyed"])
def test_what_is_answered_is_described(
    document: dict[str, Any], client: httpx.Client, request_body: dict[str, Any]
) -> None:
    assert fits(document, "late-arrival.2.request", request_body)
    reply = client.post(INFER, json={**request_body, "id": "mine", "parameters": {"feature_statuses": True}})
    assert reply.status_code == 200
    assert fits(document, "late-arrival.2.reply", reply.json())
    assert not fits(document, "late-arrival.2.reply", {**reply.json(), "model_name": "other"})


def test_the_examples_are_answered(document: dict[str, Any], client: httpx.Client) -> None:
    for version in ("1", "2"):
        for example in document["components"]["schemas"][f"late-arrival.{version}.request"]["examples"]:
            reply = client.post(f"/v2/models/late-arrival/versions/{version}/infer", json=example)
            assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    "change",
    [
        {"name": "nobody"},
        {"datatype": "FP64"},
        {"shape": [0]},
        {"shape": [2, 2]},
        {"data": ["x", "y"]},
        {"data": [2**63, 1]},
    ],
    ids=str,
)
def test_what_is_refused_is_not_described(
    document: dict[str, Any], client: httpx.Client, change: dict[str, Any]
) -> None:
    first, *rest = full_request()["inputs"]
    wrong = {"inputs": [{**first, **change}, *rest]}
    assert not fits(document, "late-arrival.2.request", wrong)
    reply = client.post(INFER, json=wrong)
    assert reply.status_code == 400
    assert fits(document, "Error", reply.json())


def test_other_answers_are_described(document: dict[str, Any], client: httpx.Client) -> None:
    for path, schema in {
        "/v2/health/live": "Live",
        "/v2/health/ready": "Ready",
        "/v2": "Server",
        "/v2/models/late-arrival": "Model",
        "/v2/models/late-arrival/ready": "ModelReady",
    }.items():
        reply = client.get(path)
        said = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert said == {"$ref": f"#/components/schemas/{schema}"}
        assert fits(document, schema, reply.json())
