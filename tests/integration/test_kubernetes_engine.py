"""Steps on Kubernetes, Ray and Spark: requests and refusals. The runners' behaviour is in tests/conformance."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.cluster import TOKEN, Cluster
from kit.depth import deep
from mainspring.core.errors import Denied, Invalid, MissingExtra
from mainspring.core.settings import Engines
from mainspring.core.time import MINUTE, SECOND, SystemClock
from mainspring.cost.paying import DECLARED
from mainspring.cost.usage import STEP
from mainspring.deploy.adapters.kubernetes import KubernetesRunner
from mainspring.deploy.engines.kubernetes_api import Api, from_config, in_cluster
from mainspring.deploy.engines.manifest import manifest
from mainspring.jobs.model import NewJob, Renewal, StepFailed
from mainspring.jobs.pipelines.ports import StepCall
from mainspring.jobs.runner import JobRun
from mainspring.operations.pipelines.running import ENGINES
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

STEPS = "import mainspring as ms\n\n@ms.step\ndef echo(value):\n    return value\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "mainspring.toml").write_text(
        f'name = "shop"\nmodules = ["steps"]\n[profiles.local.kubernetes]\nimage = "shop:1"\nfolder = "{tmp_path}"\n'
        'namespace = "ml"\n'
    )
    project = open_project(load_settings(tmp_path, environment={}))
    yield project
    project.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def attempt_of(project: Project, timeout_us: int | None = None) -> JobRun:
    clock = SystemClock()
    project.jobs.enqueue([NewJob("step", timeout_us=timeout_us)], clock.now())
    [lease] = project.jobs.claim("ana", {"step"}, clock.now(), 10 * MINUTE, 1)
    return JobRun(lease, project.jobs, clock, lambda: Renewal.HELD)


def call_of(project: Project, **inputs: Any) -> StepCall:
    return StepCall("p", "r", "echo", "steps:echo", inputs, project.settings.root / "echo.log")


def runner_of(project: Project, cluster: Cluster, token: str = TOKEN) -> KubernetesRunner:
    return KubernetesRunner(project.settings, Api(cluster.url, token=token))


def test_a_step_is_one_job_that_is_deleted_with_its_pod(project: Project, cluster: Cluster) -> None:
    attempt = attempt_of(project, 90 * SECOND)
    call = replace(call_of(project, value=[1]), teams=("risk",), teams_why=DECLARED)
    assert runner_of(project, cluster).run(call, attempt) == [1]
    subjects = {(each.subject.id, each.subject.teams) for each in project.usage.read(0, 10**18, kinds=[STEP])}
    assert subjects == {("p/echo", ("risk",))}
    name, jobs = f"mainspring-{attempt.id}", "/apis/batch/v1/namespaces/ml/jobs"
    assert cluster.asked[:3] == [("GET", f"{jobs}/{name}"), ("DELETE", f"{jobs}/{name}"), ("POST", jobs)]
    assert cluster.asked[-1] == ("GET", f"{jobs}/{name}")
    pods = "/api/v1/namespaces/ml/pods"
    assert set(cluster.asked[3:]) == {
        ("GET", f"{jobs}/{name}"), ("GET", pods), ("GET", f"{pods}/{name}-x7k2p/log"), ("DELETE", f"{jobs}/{name}")
    }  # fmt: skip
    assert not cluster.pods
    [job] = cluster.jobs
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["activeDeadlineSeconds"] > 90
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["restartPolicy"] == "Never"


@pytest.mark.parametrize("ended", [True, pytest.param(False, marks=deep)])
def test_the_job_of_a_dead_runner_is_followed(ended: bool, project: Project, cluster: Cluster) -> None:
    attempt, runner, api = attempt_of(project), runner_of(project, cluster), Api(cluster.url, token=TOKEN)
    assert runner.run(call_of(project, value=1), attempt) == 1
    api.ask("POST", "/apis/batch/v1/namespaces/ml/jobs", cluster.jobs[0])
    [pod] = cluster.pods.values()
    if ended:
        pod.process.wait()
    assert runner.run(call_of(project, value=1), attempt) == 1
    assert (len(cluster.jobs), len(cluster.pods)) == (2, 0)
    assert runner.run(call_of(project, value=2), attempt) == 2


@deep
def test_the_job_of_a_dead_runner_that_died_too_is_replaced(project: Project, cluster: Cluster) -> None:
    attempt, runner, api = attempt_of(project), runner_of(project, cluster), Api(cluster.url, token=TOKEN)
    assert runner.run(call_of(project, value=1), attempt) == 1
    api.ask("POST", "/apis/batch/v1/namespaces/ml/jobs", cluster.jobs[0])
    [pod] = cluster.pods.values()
    pod.kill()
    assert runner.run(call_of(project, value=1), attempt) == 1
    assert (len(cluster.jobs), len(cluster.pods)) == (3, 0)


def test_another_job_of_a_dead_runner_is_ended_first(project: Project, cluster: Cluster) -> None:
    attempt, runner = attempt_of(project), runner_of(project, cluster)
    old = manifest(project.settings.engines, f"mainspring-{attempt.id}", "{}", None)
    old["spec"]["template"]["spec"]["containers"][0] |= {"command": ["python", "-c"], "args": ["input() or 1 / 0"]}
    Api(cluster.url, token=TOKEN).ask("POST", "/apis/batch/v1/namespaces/ml/jobs", old)
    [pod] = cluster.pods.values()
    assert runner.run(call_of(project, value=1), attempt) == 1
    assert pod.process.poll() is not None
    assert not cluster.pods


@deep
def test_an_api_that_is_away_for_a_moment_costs_nothing(project: Project, cluster: Cluster) -> None:
    runner, attempt = runner_of(project, cluster), attempt_of(project)
    cluster.away = 3
    assert runner.run(call_of(project, value=1), attempt) == 1


def test_a_pod_that_cannot_start_fails_the_attempt(project: Project, cluster: Cluster) -> None:
    cluster.waiting = {"reason": "ImagePullBackOff", "message": "shop:1 is not there"}
    with pytest.raises(StepFailed, match=r"ImagePullBackOff: shop:1 is not there.*kubernetes_image"):
        runner_of(project, cluster).run(call_of(project, value=1), attempt_of(project))
    assert not cluster.pods


def test_of_a_log_without_end_only_the_last_part_is_kept(tmp_path: Path) -> None:
    class Log(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for number in range(3_000):
                self.wfile.write(b"%06d\n" % number * 1_000)
            self.wfile.write(b"the end\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Log) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = Api(f"http://127.0.0.1:{server.server_port}").ask("GET", "/log", last=1 << 20).content
        server.shutdown()
    assert len(found) == 1 << 20
    assert found.endswith(b"002999\nthe end\n")


def test_an_account_that_may_not_is_told_what_it_needs(project: Project, cluster: Cluster) -> None:
    with pytest.raises(Denied, match=r"401.*Unauthorized.*create, get and delete jobs"):
        runner_of(project, cluster, "wrong").run(call_of(project, value=1), attempt_of(project))


def test_what_a_job_cannot_carry_is_refused() -> None:
    engines = Engines(kubernetes_image="shop:1")
    with pytest.raises(Invalid, match=r"pass their name"):
        manifest(engines, "a", "x" * 800_000, None)
    with pytest.raises(Invalid, match=r"kubernetes_image"):
        manifest(Engines(), "a", "{}", None)
    [container] = manifest(engines, "a", "x" * 500_000, None)["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    job = manifest(engines, "a", "{}", None, {"cpu": 0.5, "gpu": 1})
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"},
    }
    assert max(map(len, container["args"])) < 1 << 17
    assert base64.b64decode("".join(container["args"])) == b"x" * 500_000


def config(**changed: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k.example.org:6443", **changed.get("cluster", {})}}],
        "users": [{"name": "u", "user": changed.get("user", {"token": "t"})}],
    }


def test_a_kubeconfig_names_server_and_token(tmp_path: Path) -> None:
    found = from_config(config(), tmp_path)
    assert (found.server, found.token, found.tls is not None) == ("https://k.example.org:6443", "t", True)
    assert from_config(config(user={"tokenFile": "t.txt"}), tmp_path).token == tmp_path / "t.txt"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (config(cluster={"insecure-skip-tls-verify": True}), "certificate-authority-data"),
        (config(cluster={"server": "http://k.example.org"}), "in clear"),
        (config(user={"exec": {"command": "aws"}}), "not run"),
        ({**config(), "current-context": "d"}, "not complete.*'d'"),
        ([], "not complete"),
    ],
)
def test_a_kubeconfig_that_is_not_safe_or_whole_is_refused(document: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=told):
        from_config(document, tmp_path)


def test_outside_of_a_cluster_there_is_no_account(tmp_path: Path) -> None:
    assert in_cluster(tmp_path) is None


def test_no_kubeconfig_is_refused(project: Project, tmp_path: Path) -> None:
    project.settings = replace(project.settings, engines=Engines(kubernetes_config=str(tmp_path / "none")))
    with pytest.raises(Invalid, match="kubernetes_config"):
        ENGINES["kubernetes"](project)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_an_engine_that_is_not_installed_names_its_extra(project: Project) -> None:
    with pytest.raises(MissingExtra, match="ray"):
        ENGINES["ray"](project)


@ms.step(engine="spark")
def count(rows: int, spark: Any) -> None: ...


@ms.step
def plain(rows: int, spark: Any) -> None: ...


def test_only_a_step_on_spark_is_given_a_session() -> None:
    @ms.pipeline
    def both() -> Any:
        plain(count(3), spark="mine")

    first, second = both.graph.nodes
    assert [name for name, _ in first.inputs] == ["rows"]
    assert sorted(name for name, _ in second.inputs) == ["rows", "spark"]
