"""An image of the whole project: gateway, worker and console in containers of their own, by a file of Compose."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from kit.containers import Podman, podman
from kit.depot import ENDPOINT, MODEL, ask, keyed, lay_out
from kit.depth import deep
from kit.waiting import free_port, wait_until
from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget, probe
from mainspring.deploy.targets.model import Deployment, Service
from mainspring.project import open_project
from mainspring.project.image_code import Whole
from mainspring.project.image_content import ProjectParts
from mainspring.project.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FLOW = f'''
import mainspring as ms


@ms.step
def judge(trained):
    return trained["training_rows"] > 0


@ms.pipeline
def train_it():
    """Train, and look at it."""
    judge(ms.task("train", model="{MODEL}"))
'''
MOUNTS = ("gateway", "worker")


@pytest.fixture
def containers() -> Iterator[Podman]:
    with podman() as found:
        yield found


@deep
def test_gateway_worker_and_console_run_from_one_image(containers: Podman, tmp_path: Path) -> None:
    depot = lay_out(tmp_path / "depot")
    (depot.root / "flows.py").write_text(FLOW)
    toml = depot.root / "mainspring.toml"
    toml.write_text(toml.read_text().replace("modules = [", 'modules = ["flows", ', 1))
    made = Deployment(
        project="depot", target="east", profile="local", port=free_port(), image="localhost/depot:east",
        memory=700 << 20, services=(Service(endpoint=ENDPOINT, model=MODEL),), env={"MAINSPRING_GATEWAY_WORKERS": "1"},
    )  # fmt: skip
    project = open_project(load_settings(depot.root, environment={}))
    image = ImageTarget(
        ImageOptions(contents="project"), depot.root, ProjectParts(project, "local", Whole(extras=("sklearn",)))
    )
    [piece] = image.render(made)
    assert image.render(made) == [piece]
    image.make(piece)
    pepper = project.pepper
    _ = project.signing_key
    project.close()
    for secret in (pepper, pepper.hex().encode()):
        assert secret not in piece.content
    containers("tag", containers.load(image.path / "east"), made.image)

    console = free_port()
    composed = ComposeTarget(
        ComposeOptions(folder="compose", contents="project", console_port=console, worker_memory_mib=3000), tmp_path
    )
    [piece] = composed.render(made)
    composed.make(piece)
    keys = composed.path / "keys"
    keys.mkdir()
    for each in (depot.root / ".mainspring" / "keys").iterdir():
        if each.is_file():
            (keys / each.name).write_bytes(each.read_bytes())
            (keys / each.name).chmod(0o400)
    subprocess.run(["chown", "-R", "10001:10001", str(keys)], check=True)
    rows = tmp_path / "rows"
    rows.mkdir()
    for each in depot.root.glob("*.csv"):
        each.rename(rows / each.name)
    services: dict[str, Any] = {name: {"network_mode": "host"} for name in MOUNTS}
    services["worker"]["volumes"] = [f"{rows}:/rows:ro"]
    (composed.path / "host.yaml").write_text(json.dumps({"services": services}))
    files = ["-f", str(composed.path / "compose.yaml"), "-f", str(composed.path / "host.yaml")]
    containers.compose(*files, "up", "--detach")
    try:
        found = {
            each["Labels"]["com.docker.compose.service"]: each["Id"]
            for each in json.loads(containers("ps", "--format", "json").stdout)
        }
        assert found.keys() == set(MOUNTS)

        def run(*arguments: str) -> Any:
            command = ("exec", found["worker"], "/usr/bin/python3", "-m", "mainspring", *arguments, "--json")
            done = containers(*command, check=False)
            if done.returncode:
                raise RuntimeError(f"{arguments}: {done.stdout} {done.stderr} {state(containers, found['worker'])}")
            return json.loads(done.stdout)

        wait_until(lambda: healthy(console, "/health/live"), "the console")
        for source in ("posted", "scans", "deliveries"):
            run("ingest", source, f"/rows/{source}.csv")
        trained = run("pipelines", "run", "train-it")
        assert {each["status"] for each in trained["steps"]} == {"done"}, containers("logs", found["worker"]).stderr
        run("promote", MODEL)
        wait_until(lambda: healthy(made.port, "/v2/health/ready"), "the gateway")
        key = run("keys", "create", "shop", "--scope", "predict")["key"]
        path = f"/v2/models/{ENDPOINT}/infer"

        def answered() -> bool:
            return ask(made.port, "POST", path, keyed("p1"), key=key).status == 200

        wait_until(answered, "an answer")
        assert ask(made.port, "POST", path, keyed("p1"), key="msp_unknown").status == 401

        session = {"Cookie": log_in(console, run("console")["url"])}
        assert ENDPOINT in ask(console, "GET", "/", headers=session).text
        assert ask(console, "GET", "/").status in (303, 401)

        for name in MOUNTS:
            [seen] = json.loads(containers("inspect", found[name]).stdout)
            assert seen["HostConfig"]["ReadonlyRootfs"]
            assert (seen["EffectiveCaps"], seen["Config"]["User"]) == (None, "10001:10001")
            assert containers("exec", found[name], *probe(made.port)).returncode == 0
            assert containers("stop", "--time", "60", found[name]).returncode == 0
            assert containers("inspect", "--format", "{{.State.ExitCode}}", found[name]).stdout.strip() == "0"
        containers("start", found["worker"])
        wait_until(lambda: healthy(console, "/health/live"), "the console again")
        wait_until(lambda: len(run("predictions", "list")["predictions"]) > 0, "the gateway's log in the lake")
    finally:
        containers.compose(*files, "down", "--volumes", "--timeout", "20")


def log_in(port: int, link: str) -> str:
    """Log into the console by a link, and return the cookie of the session."""
    here = f"http://127.0.0.1:{port}"
    assert link.startswith(f"{here}/login?"), link
    form = urlencode({"next": "/", "ticket": parse_qs(urlsplit(link).query)["ticket"][0]})
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": here}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/login", form, headers)
        reply = connection.getresponse()
        assert reply.status == 303, reply.read()
        return str(reply.headers["set-cookie"]).partition(";")[0]


def state(containers: Podman, id: str) -> str:
    """Return what became of a container, and the end of its log."""
    told = containers("inspect", "--format", "{{json .State}} {{.RestartCount}}", id, check=False).stdout
    return told + containers("logs", id, check=False).stderr[-3000:]


def healthy(port: int, path: str) -> bool:
    try:
        return ask(port, "GET", path).status == 200
    except OSError:
        return False
