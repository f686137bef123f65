"""Exported pipelines, run by the engines themselves: Step Functions by moto's interpreter, the others as installed.

Airflow, Prefect, Dagster and kfp have environments of their own: `kit.engines`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest

from kit.depth import deep
from kit.engines import python_of
from kit.exported import RAN, lay_out, ran
from kit.waiting import wait_until
from mainspring.deploy.exports import export, file_name
from mainspring.deploy.exports.place import Place
from mainspring.operations.pipelines.outside import answer
from mainspring.project import Project

PROGRAMS = {
    "prefect": "from nightly_flow import pipeline_nightly\npipeline_nightly()\n",
    "dagster": (
        "import dagster\nfrom nightly_job import pipeline_nightly\n"
        "with dagster.DagsterInstance.ephemeral() as instance:\n"
        "    assert pipeline_nightly.execute_in_process(instance=instance).success\n"
    ),
    "kubeflow": (
        "from kfp import compiler, local\nlocal.init(runner=local.SubprocessRunner(use_venv=False))\n"
        "from nightly_pipeline import pipeline_nightly\npipeline_nightly()\n"
        "compiler.Compiler().compile(pipeline_nightly, 'nightly.yaml')\n"
    ),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = lay_out(tmp_path / "project")
    yield project
    project.close()


@deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["airflow", "prefect", "dagster", "kubeflow"])
def test_an_engine_runs_the_export(engine: str, project: Project, tmp_path: Path) -> None:
    graph = project.definitions.pipeline("nightly")
    command = [sys.executable, "-m", "mainspring"]
    place = Place(command, image="none", folder=str(project.settings.root))
    (tmp_path / file_name(graph, engine)).write_text(export(graph, engine, place))
    (tmp_path / "run.py").write_text(PROGRAMS.get(engine, ""))
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }
    python = python_of(engine)
    commands: Sequence[list[str]] = [[str(python), "run.py"]]
    if engine == "airflow":
        airflow = str(python.with_name("airflow"))
        commands = [[airflow, "db", "migrate"], [airflow, "dags", "test", "nightly"]]
    for each in commands:
        done = subprocess.run(
            each, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert ran(project.settings.root) == RAN


class Lambda(ThreadingHTTPServer):
    """The part of Lambda's API that invokes a function: `operations.pipelines.outside.answer`."""

    daemon_threads = True

    def __init__(self, project: Project) -> None:
        super().__init__(("127.0.0.1", 0), _Invoked)
        self.project = project
        self.tokens: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Invoked(BaseHTTPRequestHandler):
    server: Lambda

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        outcome = answer(self.server.project, event)
        if "token" in event:
            self.server.tokens.append(event["token"])
        content = json.dumps(outcome).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def function(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lambda]:
    server = Lambda(project)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL_LAMBDA": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("name", "expected"), [("nightly", RAN), ("asked", {"load 1": 1, "retire": 1})])
def test_step_functions_run_the_export(name: str, expected: dict[str, int], project: Project, function: Lambda) -> None:
    settings = {"stepfunctions": {"execute_state_machine": True}, "core": {"passthrough": {"urls": [function.url]}}}
    with moto.mock_aws(config=settings):
        client = boto3.client("stepfunctions")
        machine = client.create_state_machine(
            name=name,
            definition=export(project.definitions.pipeline(name), "step-functions", Place()),
            roleArn="arn:aws:iam::123456789012:role/shop",
        )["stateMachineArn"]
        given = json.dumps({"parameters": dict(project.definitions.pipeline(name).parameters), "function": "shop"})
        run = client.start_execution(stateMachineArn=machine, input=given)["executionArn"]

        def ended() -> bool:
            while function.tokens:
                client.send_task_success(taskToken=function.tokens.pop(), output='{"result": null}')
            return bool(client.describe_execution(executionArn=run)["status"] != "RUNNING")

        wait_until(ended, "the execution to end")
        found = client.describe_execution(executionArn=run)
    assert found["status"] == "SUCCEEDED", found
    assert ran(project.settings.root) == expected
