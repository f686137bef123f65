"""SageMaker's contract with a container: its two routes, for one endpoint, and nowhere but where it starts us."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from integration.test_gateway import INFER, on_a_loop, published, running
from kit.fleet import BODY, Fleet, answer_of
from kit.serving import FEATURES, Kit, full_request
from kit.waiting import free_port, wait_until
from mainspring.core.environment import AZUREML, SAGEMAKER, VERTEX
from mainspring.core.errors import Invalid
from mainspring.processes.contained import hosted_endpoint, refuse_hosted
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.serving.http.hosted import Hosted

FRONT = {"authorization": "", "host": "model.aws.local:8080"}  # SageMaker sends no key, and its own name


@on_a_loop
async def test_its_two_routes_answer_without_a_key_for_the_one_endpoint() -> None:
    kit = published(hosted=Hosted("late-arrival"))
    async with running(kit) as each:
        assert (await each.client.get("/ping", headers=FRONT)).status_code == 200
        asked = await each.client.post("/invocations", json=full_request(id="mine"), headers=FRONT)
        usual = await each.infer(full_request(id="mine"))
        assert (asked.status_code, asked.json()["outputs"]) == (200, usual.json()["outputs"])
        logged = kit.log.find(asked.json()["parameters"]["prediction_ids"][0])
        assert (logged.endpoint, logged.version) == ("late-arrival", "1")
        compressed = await each.client.post("/invocations", content=b"{", headers=FRONT)
        assert compressed.status_code == 400
        for method, path, status in (
            ("POST", INFER, 403), ("POST", "/v2/models/other/infer", 403), ("GET", "/metrics", 403),
            ("GET", "/invocations", 405), ("POST", "/ping", 401), ("POST", "/invocations/", 403),
            ("POST", "/invocations/../v2/models/other/infer", 403), ("POST", "/%69nvocations", 200),
        ):  # fmt: skip
            reply = await each.client.request(method, path, json=full_request(), headers=FRONT)
            assert (path, reply.status_code) == (path, status)
        without_key = await each.client.post(INFER, json=full_request(), headers={"authorization": ""})
        assert without_key.status_code == 401


@on_a_loop
async def test_a_container_answers_by_its_version_and_is_ready_with_its_endpoint() -> None:
    kit = Kit(hosted=Hosted("late-arrival", "2"))
    kit.publish("1", "2")
    async with running(kit) as each:
        versions = {
            (await each.client.post("/invocations", json=full_request(), headers=FRONT)).json()["model_version"]
            for _ in range(5)
        }
        assert versions == {"2"}
    async with running(published(hosted=Hosted("absent"))) as each:
        assert (await each.client.get("/ping", headers=FRONT)).status_code == 503


def cells(names: list[str], row: int) -> str:
    values = [FEATURES[name][1][row] for name in names]
    return ",".join("" if each is None else str(each) for each in values)


@on_a_loop
async def test_rows_of_a_batch_transform_are_answered_line_by_line() -> None:
    async with running(published(hosted=Hosted("late-arrival"))) as each:
        described = (await each.client.get("/v2/models/late-arrival")).json()
        names = [spec["name"] for spec in described["inputs"]]
        expected = (await each.infer(full_request())).json()["outputs"][0]["data"]

        async def rows(content: str, media: str, **more: str) -> httpx.Response:
            headers = {**FRONT, "content-type": media, **more}
            return await each.client.post("/invocations", content=content, headers=headers)

        table = "".join(f"{cells(names, row)}\r\n" for row in range(2))
        told = await rows(table, "text/csv; charset=utf-8")
        assert (told.status_code, told.headers["content-type"]) == (200, "text/csv"), told.text
        assert [float(line) for line in told.text.splitlines()] == pytest.approx(expected)
        told = await rows(table, "text/csv", accept="application/jsonlines")
        assert [json.loads(line)["probability"] for line in told.text.splitlines()] == pytest.approx(expected)
        objects = [{name: FEATURES[name][1][row] for name in names} for row in range(2)]
        lines = "\n".join(json.dumps({name: value for name, value in each.items() if value is not None})
                          for each in objects)  # fmt: skip
        told = await rows(lines, "application/jsonlines")
        assert [json.loads(line)["probability"] for line in told.text.splitlines()] == pytest.approx(expected)
        for content, media, words in (
            (table + "1,2\n", "text/csv", "Line 3 has 2 cells"),
            (table.replace(cells(names, 0), ",".join("x" * len(names))), "text/csv", "Line 1: 'x' is no value"),
            (",".join(["inf"] * len(names)), "text/csv", "Line 1: 'inf' is no value"),
            ('"', "text/csv", "not CSV"),
            ("{}\n[1]", "application/jsonlines", "Line 2 is no JSON object"),
            ('{"shoe": 1}', "application/jsonlines", "no input 'shoe'"),
            ("", "text/csv", ""),
            ("", "application/jsonlines", ""),
        ):
            told = await rows(content, media)
            assert (told.status_code, words in told.json()["error"]) == (400, True), told.text
        assert (await each.client.post(INFER, content=table, headers={"content-type": "text/csv"})).status_code == 400


@on_a_loop
async def test_a_usual_gateway_has_neither() -> None:
    async with running(published()) as each:
        for headers, status in ((FRONT, 403), ({"authorization": ""}, 401), ({}, 404)):
            assert (await each.client.get("/ping", headers=headers)).status_code == status
            assert (await each.client.post("/invocations", json=full_request(), headers=headers)).status_code == status


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("sagemaker") / "project", workers=1)
    fleet.publish("1", "2")
    return fleet


def opened(fleet: Fleet, **settings: str) -> Project:
    given = {"gateway": "0.0.0.0:8080", **settings}
    return open_project(load_settings(fleet.root, None, given, environment={}), reads_only=True)


@pytest.mark.parametrize(
    ("asked", "variables", "settings", "told"),
    [
        (False, {SAGEMAKER: "late-arrival"}, {}, "not started as SageMaker"),
        (True, {}, {}, f"without {SAGEMAKER}"),
        (True, {SAGEMAKER: "late-arrival"}, {"grpc": "127.0.0.1:9000"}, "sets grpc"),
        (True, {SAGEMAKER: "late-arrival"}, {"gateway_tls_cert": "a", "gateway_tls_key": "b"}, "sets gateway_tls_cert"),
        (True, {SAGEMAKER: "late-arrival"}, {"gateway": "0.0.0.0:80"}, "asks port 8080, and the gateway .* 80"),
        (True, {SAGEMAKER: "late-arrival", "SAGEMAKER_BIND_TO_PORT": "9"}, {}, "asks port 9"),
        (True, {SAGEMAKER: "price"}, {}, "'price', which is not served here"),
        (True, {SAGEMAKER: "late-arrival:3"}, {}, "does not serve the version 3"),
        (True, {SAGEMAKER: "late-arrival:x"}, {}, "names no endpoint"),
        (True, {SAGEMAKER: "../up"}, {}, r"\.\./up"),
        (True, {SAGEMAKER: "late-arrival", VERTEX: "late-arrival"}, {}, f"{SAGEMAKER} and {VERTEX} are set"),
        (False, {VERTEX: "late-arrival"}, {}, "not started as Vertex AI"),
        (True, {VERTEX: "late-arrival", "AIP_HTTP_PORT": "7080"}, {}, "Vertex AI asks port 7080"),
        (False, {AZUREML: "late-arrival"}, {}, "not started as Azure ML"),
        (True, {AZUREML: "late-arrival@root"}, {}, "names no endpoint"),
    ],
)
def test_a_start_that_would_open_them_by_mistake_is_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, asked: bool, variables: dict[str, str], settings: dict[str, str],
    told: str,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Invalid, match=told):
        hosted_endpoint(opened(fleet, **settings), asked=asked)


def test_usual_starts_have_none(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    project = opened(fleet)
    assert hosted_endpoint(project, asked=False) == ""
    refuse_hosted()
    monkeypatch.setenv(SAGEMAKER, "late-arrival:2")
    assert hosted_endpoint(project, asked=True) == "late-arrival:2@sagemaker"
    with pytest.raises(Invalid, match="no container that SageMaker starts"):
        refuse_hosted()
    monkeypatch.delenv(SAGEMAKER)
    monkeypatch.setenv(AZUREML, "late-arrival:2")
    assert Hosted.read(hosted_endpoint(project, asked=True)).principal.id == "azureml"
    with pytest.raises(Invalid, match="no container that Azure ML starts"):
        refuse_hosted()


def ask(port: int, method: str, path: str, body: bytes | None = None, key: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {key}"} if key else {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def test_a_container_as_sagemaker_starts_it(fleet: Fleet, tmp_path: Path) -> None:
    """Forbidden by the project's policies, it may not predict; a key works only with the installation's pepper."""
    port = free_port()
    command = [sys.executable, "-m", "mainspring.processes.contained", "--project", str(fleet.root)]
    environment = {**os.environ, SAGEMAKER: "late-arrival:2", "SAGEMAKER_BIND_TO_PORT": str(port),
                   "MAINSPRING_GATEWAY": f"127.0.0.1:{port}", "MAINSPRING_PEPPER_FILE": "nowhere"}  # fmt: skip
    policies = fleet.root / "policies"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "serve"], env=environment, stderr=log)
    try:
        wait_until(lambda: ask(port, "GET", "/ping")[0] == 200, "the container")
        status, body = ask(port, "POST", "/invocations", BODY)
        assert (status, json.loads(body)["model_version"]) == (200, "2")
        assert json.loads(body)["outputs"][0]["data"] == pytest.approx(answer_of("2"))
        assert ask(port, "POST", INFER, BODY, fleet.key)[0] == 401, "no key reaches it, so none is valid"
        policies.mkdir()
        (policies / "own.cedar").write_text(
            '@id("closed") forbid (principal, action == Action::"endpoint.predict", resource) '
            'when { principal == ServiceAccount::"sagemaker" };'
        )
        wait_until(lambda: ask(port, "POST", "/invocations", BODY)[0] == 403, "the policy")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert "prediction log stays in this container" in (tmp_path / "log").read_text()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "not started as SageMaker does it" in done.stderr
