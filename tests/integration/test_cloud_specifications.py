"""Specifications for Vertex AI and Azure ML: their containers start and answer as written; their own SDKs take them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.cloud_targets import AZURE, IMAGE, SIGN, VERTEX
from kit.depth import deep
from kit.engines import ROOT, python_of
from kit.fleet import BODY, Fleet, answer_of
from kit.waiting import free_port, wait_until
from mainspring.deploy.adapters.targets.clouds import CloudTarget, azure_target, vertex_target
from mainspring.deploy.adapters.targets.options import read_options
from mainspring.deploy.exports import export
from mainspring.deploy.exports.place import Place
from mainspring.deploy.manifests.clouds.azureml import AzureOptions
from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.targets.model import Service
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.processes.contained import hosted_endpoint
from mainspring.project import open_project
from mainspring.project.settings import load_settings

SERVICE = Service(endpoint="late-arrival", model="late-arrival", version="late-arrival:2", bundle="ab" * 32)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("clouds") / "project", workers=1)
    fleet.publish("1", "2")
    return fleet


def target(kind: str, root: Path) -> CloudTarget:
    if kind == "vertex":
        return vertex_target(read_options(VertexOptions, {**VERTEX, "terraform": True}, "east"), root, SIGN)
    return azure_target(read_options(AzureOptions, AZURE, "east"), root, SIGN)


def documents(kind: str, root: Path, **changes: object) -> dict[str, Any]:
    """Write the files of a deployment; return their content by name."""
    usual = {"secrets": (), "image": IMAGE, "replicas": (1, 4), "env": {}}
    usual["region"] = "europe-west4" if kind == "vertex" else "westeurope"
    made = target(kind, root)
    pieces = made.render(deployment(**{**usual, **changes}))
    for piece in pieces:
        made.make(piece)
    sent = (piece for piece in pieces if piece.name != "apply.py" and not piece.name.startswith("terraform/"))
    return {piece.name: json.loads(piece.content) for piece in sent}


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Host": "of-the-service"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


@pytest.fixture
def started(fleet: Fleet, tmp_path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Start a process as Vertex AI starts the container of a rendered model; yield its port and its specification."""
    port = free_port()
    spec = documents("vertex", tmp_path, services=(SERVICE,), port=port)["shop-late-arrival/model.json"]
    container = spec["model"]["containerSpec"]
    given = {each["name"]: each["value"] for each in container["env"]}
    given |= {"AIP_HTTP_PORT": str(container["ports"][0]["containerPort"]), "AIP_MODE": "PREDICTION"}
    command = [sys.executable, "-m", "mainspring.processes.contained", "--project", str(fleet.root), *container["args"]]
    environment = {**os.environ, **given, "MAINSPRING_PEPPER_FILE": "nowhere"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        yield port, container
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_the_container_of_a_model_of_vertex_answers_at_the_routes_that_it_names(
    started: tuple[int, dict[str, Any]],
) -> None:
    port, container = started
    wait_until(lambda: ask(port, "GET", container["healthRoute"])[0] == 200, "the container")
    status, body = ask(port, "POST", container["predictRoute"], BODY)
    found = json.loads(body)
    assert (status, found["model_version"]) == (200, "2")
    assert found["outputs"][0]["data"] == pytest.approx(answer_of("2"))
    assert ask(port, "POST", "/v2/models/late-arrival/infer", BODY)[0] in (401, 403)
    assert container["startupProbe"]["httpGet"] == {"path": container["healthRoute"], "port": port, "scheme": "HTTP"}


def test_the_container_of_a_deployment_of_azure_starts(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = documents("azureml", tmp_path, services=(SERVICE,))["shop-late-arrival/deployment.yml"]
    for name, value in spec["environment_variables"].items():
        monkeypatch.setenv(name, value)
    project = open_project(load_settings(fleet.root), reads_only=True)
    assert hosted_endpoint(project, asked=True) == "late-arrival:2@azureml"
    routes = spec["environment"]["inference_config"]
    assert {each["port"] for each in routes.values()} == {project.settings.gateway.port}
    assert {name: each["path"] for name, each in routes.items()} == {
        "liveness_route": "/ping", "readiness_route": "/ping", "scoring_route": "/invocations"
    }  # fmt: skip


def read_by_sdk(kind: str, *folders: Path, program: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(python_of(kind)), "-W", "ignore", "-m", "kit.cloud_specifications", program or kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(
        [*command, *map(str, folders)], env=environment, cwd=folders[0], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["vertex", "azureml"])
def test_the_sdk_takes_every_file_and_no_misspelt_one(kind: str, tmp_path: Path) -> None:
    slow = replace(SERVICE, endpoint="slow", deadline_ms=90_000.0)
    found = documents(kind, tmp_path / "whole", services=(SERVICE, slow))
    if kind == "azureml":
        found["pipeline-nightly.yml"] = json.loads(export(two_steps(), "azureml", Place(image=IMAGE)))
        (target(kind, tmp_path / "whole").path / "pipeline-nightly.yml").write_text(
            json.dumps(found["pipeline-nightly.yml"])
        )
    wrong = [tmp_path / str(number) for number in range(len(found))]
    for folder, (name, content) in zip(wrong, sorted(found.items()), strict=True):
        place = folder / name
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(misspelt(content)))
    done = read_by_sdk(kind, target(kind, tmp_path / "whole").path, *wrong)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert set(lines) == {*found, *(f"refused {each}" for each in wrong)}


@deep
@pytest.mark.timeout(600)
def test_the_program_sends_the_files_to_a_server_that_speaks_the_api_once(tmp_path: Path) -> None:
    documents("vertex", tmp_path)
    done = read_by_sdk("vertex", target("vertex", tmp_path).path, program="applied")
    assert done.returncode == 0, done.stderr[-2000:]
    first, cut, again, received = map(json.loads, done.stdout.splitlines()[-4:])
    assert [line.split()[0] for line in first] == ["made", "made", "deployed", "private"] * 2
    assert [line.split()[0] for line in cut] == ["is", "is", "deployed", "private"] + ["is"] * 3 + ["private"]
    assert [line.split()[0] for line in again] == (["is"] * 3 + ["private"]) * 2
    assert received == ["UploadModel", "CreateEndpoint", "DeployModel"] * 2 + ["DeployModel"]


def two_steps() -> Graph:
    return Graph(name="nightly", nodes=(Node(name="load", function="f"), Node(name="fit-one", after=("load",))))


def misspelt(content: dict[str, Any]) -> dict[str, Any]:
    """Return a document with its last name but the tags' misspelt."""
    name = [each for each in content if each not in ("tags", "labels")][-1]
    return {(f"{each}x" if each == name else each): value for each, value in content.items()}
