"""Deployments to a cluster: its problems are told, others' fields are kept, and a kill leaves nothing over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.cluster import TOKEN, Cluster
from kit.cluster_objects import APPLY, Objects, usual
from kit.depot import ENDPOINT, Depot, ask, keyed, logged, opened
from kit.waiting import wait_until
from mainspring.core.errors import Conflict, Invalid, Unavailable
from mainspring.core.time import DAY
from mainspring.deploy.adapters.targets.cluster import ClusterTarget
from mainspring.deploy.adapters.targets.kubernetes import kserve_target, kuberay_target, serving_target
from mainspring.deploy.adapters.targets.memory import MemoryRecords
from mainspring.deploy.engines.kubernetes_api import Api, Reply
from mainspring.deploy.manifests.kinds import KINDS
from mainspring.deploy.manifests.serving.kserve import KserveOptions
from mainspring.deploy.manifests.serving.objects import Around, objects
from mainspring.deploy.manifests.serving.options import KubernetesOptions
from mainspring.deploy.manifests.serving.ray_clusters import KuberayOptions
from mainspring.deploy.targets import deploying
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.targets.model import Piece
from mainspring.operations.keys import create_key

GATEWAY = "Deployment/shop-east-gateway"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = Cluster(tmp_path)
    server.objects = usual()
    yield server
    server.close()


@pytest.fixture
def state(cluster: Cluster) -> Objects:
    assert cluster.objects is not None
    return cluster.objects


def target_at(cluster: Cluster, **options: Any) -> ClusterTarget:
    target = serving_target(KubernetesOptions(**options), Around())
    return replace(target, connect=lambda: Api(cluster.url, None, TOKEN), gone_s=0.5)


def deployed(target: ClusterTarget, **changes: Any) -> tuple[list[Piece], MemoryRecords]:
    pieces, records = target.render(deployment(**changes)), MemoryRecords()
    list(deploying.apply(target, deploying.plan(target, "east", pieces, records), pieces, records, lambda: 7))
    return pieces, records


@pytest.mark.parametrize(
    ("lacks", "options", "changes", "told"),
    [
        (lambda at: at.namespaces.clear(), {}, {}, "no namespace 'default'.*create namespace"),
        (lambda at: at.kinds.pop("/apis/keda.sh/v1alpha1"), {"autoscaling": "keda"}, {"replicas": (1, 3)},
         r"no ScaledObject \(keda.sh/v1alpha1\).*install KEDA"),
        (lambda at: at.nodes["node-1"].pop("nvidia.com/gpu"), {}, {"gpus": 1},
         "requests 1 nvidia.com/gpu, and no node has so much: node-1 0"),
        (lambda at: None, {}, {"gpus": 2, "replicas": (3, 3)}, "3 pods of .* request 6 nvidia.com/gpu.*node-1 2"),
        (lambda at: None, {"gpu_resource": "nvidia.com/mig-1g.10gb"}, {"gpus": 1}, "nvidia.com/mig-1g.10gb"),
        (lambda at: None, {}, {"memory": 100 << 30}, "requests 100Gi memory, and no node.*node-1 64Gi"),
        (lambda at: at.quotas.update(team={"hard": {"requests.cpu": "3"}, "used": {"requests.cpu": "2500m"}}), {}, {},
         "quota 'team' .* has 0.5 requests.cpu left of 3, and 1.5 are needed"),
        (lambda at: at.quotas.update(team={"hard": {"pods": "1"}, "used": {"pods": "0"}}), {}, {}, "1 pods left of 1"),
        (lambda at: at.denied.update({("patch", "deployments"), ("create", "services")}), {}, {},
         "may not patch deployments"),
        (lambda at: at.secrets.clear(), {}, {}, "no Secret 'shop-east-.*' with the entries MAINSPRING_CATALOG"),
        (lambda at: at.refused.update(Deployment=(403, "admission webhook denied: no owner")), {}, {},
         "Kubernetes answers 403 .* denied: no owner"),
        (lambda at: at.refused.update(Service=(422, "spec.ports: Required value")), {}, {}, "422 .* Required value"),
    ],
)  # fmt: skip
def test_what_a_cluster_lacks_or_refuses_is_told_before_anything_is_made(
    cluster: Cluster, state: Objects, lacks: Callable[[Objects], Any], options: Any, changes: Any, told: str
) -> None:
    target = target_at(cluster, **options)
    lacks(state)
    pieces = target.render(deployment(**changes))
    planned = deploying.plan(target, "east", pieces, MemoryRecords())
    assert planned.problems
    with pytest.raises(Invalid, match=f"(?s){told}"):
        raise Invalid("\n".join(planned.problems))
    assert not state.there


@pytest.mark.parametrize(
    "make",
    [
        lambda: kserve_target(KserveOptions(), Around()),
        lambda: kuberay_target(KuberayOptions(), Around()),
        lambda: kuberay_target(KuberayOptions(run=["batch", "run", "nightly"]), Around()),
    ],
    ids=["kserve", "kuberay", "run"],
)
def test_pods_that_controllers_make_are_counted_as_well(
    cluster: Cluster, state: Objects, make: Callable[[], ClusterTarget]
) -> None:
    target = replace(make(), connect=lambda: Api(cluster.url, None, TOKEN))
    state.secrets.clear()
    state.quotas["team"] = {"hard": {"requests.nvidia.com/gpu": "1"}, "used": {}}
    told = "\n".join(target.problems(target.render(deployment(gpus=2, replicas=(2, 2)))))
    assert "no Secret 'shop-east-environment' with the entries MAINSPRING_CATALOG" in told
    assert "no Secret 'shop-east-keys'" in told
    assert "request 4 nvidia.com/gpu, and the nodes have node-1 2" in told
    assert "has 1 requests.nvidia.com/gpu left of 1" in told


def test_a_large_object_fits_its_annotations(cluster: Cluster, state: Objects) -> None:
    alert = {"alert": "Down", "expr": "up == 0", "annotations": {"description": "all is down " * 20}}
    rules = [{"name": f"g{number}", "rules": [alert] * 8} for number in range(300)]
    options = KubernetesOptions(monitoring="monitoring")
    target = replace(
        serving_target(options, Around(rules=lambda: rules)), connect=lambda: Api(cluster.url, None, TOKEN)
    )
    pieces, records = deployed(target)
    made = next(each for key, each in state.there.items() if key[1] == "prometheusrules")
    assert len(json.dumps(made["spec"])) > 512 << 10
    assert sum(map(len, made["metadata"]["annotations"].values())) < 256 << 10
    assert deploying.plan(target, "east", pieces, records).nothing


def test_where_the_account_may_not_look_nothing_is_reported(cluster: Cluster, state: Objects) -> None:
    state.denied |= {("list", "nodes"), ("list", "resourcequotas"), ("get", "secrets"), ("list", "pods")}
    state.nodes.clear()
    state.secrets.clear()
    pieces, _ = deployed(target_at(cluster))
    assert {each.state for each in deploying.await_ready(target_at(cluster), pieces, 10)} == {"ready"}


def test_fields_of_others_are_kept_and_a_change_of_ours_is_seen_and_restored(cluster: Cluster, state: Objects) -> None:
    target = target_at(cluster)
    pieces, records = deployed(target, replicas=(1, 5))

    def scale(made: dict[str, Any]) -> None:
        made["spec"]["replicas"] = 4
        made["metadata"]["annotations"]["team"] = "pricing"

    state.edit(GATEWAY, scale, "autoscaler")
    assert deploying.plan(target, "east", pieces, records).nothing

    def meddle(made: dict[str, Any]) -> None:
        made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "9Gi"

    state.edit(GATEWAY, meddle)
    [changed] = [each for each in deploying.status(target, "east", records) if each.state != "ready"]
    assert (changed.piece, changed.state) == (GATEWAY, "changed")
    target.make(next(each for each in pieces if each.id == GATEWAY))
    assert deploying.plan(target, "east", pieces, records).nothing
    after = next(made for key, made in state.there.items() if key[1:] == ("deployments", "shop-east-gateway"))
    assert after["spec"]["replicas"] == 4
    assert after["metadata"]["annotations"]["team"] == "pricing"


def test_a_field_that_is_no_longer_deployed_is_removed(cluster: Cluster, state: Objects) -> None:
    target = target_at(cluster)
    deployed(target, env={"MAINSPRING_MODEL_TIME": "5s"})
    deployed(target)
    made = next(made for key, made in state.there.items() if key[1:] == ("deployments", "shop-east-gateway"))
    names = [each["name"] for each in made["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert "MAINSPRING_MODEL_TIME" not in names
    assert len(names) == len(set(names)) > 5


def test_a_removal_waits_for_finalizers_and_names_those_that_do_not_end(cluster: Cluster, state: Objects) -> None:
    target = target_at(cluster)
    _, records = deployed(target)
    state.slow = 2
    done = list(deploying.destroy(target, "east", records, lambda: 9))
    assert not state.there
    assert done[-1].done
    _, records = deployed(target)
    state.slow = 10_000
    with pytest.raises(Unavailable, match="waits for foregroundDeletion"):
        list(deploying.destroy(target, "east", records, lambda: 9))
    assert records.targets() == ["east"]
    left = records.made("east")[-1].piece
    assert {each.state for each in target.look([left])} == {"starting"}
    with pytest.raises(Conflict, match="is being deleted"):
        target.make(Piece(id=left, content=b"{}"))


def test_a_pod_that_cannot_start_fails_the_deployment_with_its_reason(cluster: Cluster, state: Objects) -> None:
    target = target_at(cluster)
    pieces, _ = deployed(target)
    [gateway] = [each for each in pieces if each.id == GATEWAY]
    key = next(key for key in state.there if key[1:] == ("deployments", "shop-east-gateway"))
    state.there[key]["status"] = {"availableReplicas": 0}
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    state.pods = [
        {
            "metadata": {"name": "shop-east-gateway-x"},
            "status": {"containerStatuses": [{"state": {"waiting": waiting}}]},
        }
    ]
    [status] = deploying.await_ready(target, [gateway], 5)
    assert status.state == "failed"
    assert "shop-east-gateway-x: ImagePullBackOff: no such image" in status.why
    quota = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: team"}
    state.there[key]["status"] = {"conditions": [quota]}
    [status] = deploying.await_ready(target, [gateway], 5)
    assert (status.state, status.why) == ("failed", "FailedCreate: exceeded quota: team")


def test_two_that_apply_the_same_field_conflict_unless_one_insists(cluster: Cluster) -> None:
    deployed(target_at(cluster))
    api = Api(cluster.url, None, TOKEN)
    made = json.loads(next(each for each in target_at(cluster).render(deployment()) if each.id == GATEWAY).content)
    made["spec"]["replicas"] = 9
    path = KINDS["Deployment"].path("default", "shop-east-gateway")
    assert api.ask("PATCH", path, made, content_type=APPLY, fieldManager="other").status == 409
    assert api.ask("PATCH", path, made, content_type=APPLY, fieldManager="other", force="true").status == 200
    assert [each.digest for each in target_at(cluster).look([GATEWAY])] == [""]
    with pytest.raises(Invalid, match="no kind of objects"):
        target_at(cluster).look(["Pod/x"])


def test_an_object_that_somebody_makes_meanwhile_is_not_taken_over(cluster: Cluster, state: Objects) -> None:
    target = target_at(cluster)
    [service] = [each for each in target.render(deployment()) if each.id == "Service/shop-east-gateway"]
    other = json.loads(service.content)
    other["metadata"]["labels"], other["spec"]["ports"][0]["targetPort"] = {"app": "another"}, 9999
    path = KINDS["Service"].path("default", "shop-east-gateway")
    api = Api(cluster.url, None, TOKEN)

    class Meanwhile(Api):
        def ask(self, verb: str, *given: Any, **more: Any) -> Reply:
            if verb == "PATCH":
                api.ask("PATCH", path, other, content_type=APPLY, fieldManager="kubectl")
            return super().ask(verb, *given, **more)

    with pytest.raises(Conflict, match="conflict with kubectl"):
        replace(target, connect=lambda: Meanwhile(cluster.url, None, TOKEN)).make(service)
    [made] = state.there.values()
    assert made["spec"]["ports"][0]["targetPort"] == 9999


_TARGET = """
[targets.east]
kind = "kubernetes"
image = "registry.example.org/depot@sha256:%s"
secrets = ["MAINSPRING_CATALOG"]
config = "kubeconfig"
"""


def test_a_killed_deployment_is_resumed_and_a_killed_removal_is_ended(
    depot: Depot, cluster: Cluster, state: Objects
) -> None:
    config = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
        "clusters": [{"name": "it", "cluster": {"server": cluster.url}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
    }
    (depot.root / "kubeconfig").write_text(json.dumps(config))
    with (depot.root / "mainspring.toml").open("a") as file:
        file.write(_TARGET % ("0f" * 32))
    name = "parcels-east" if (depot.root / "parcels").is_dir() else "depot-east"
    state.secrets |= {f"{each}-{what}" for each in (name, "depot-east") for what in ("environment", "keys")}
    left = 0

    def killing(victim: Any, number: int) -> Callable[[str, str], None]:
        counted = [number]

        def done(_verb: str, _path: str) -> None:
            counted[0] -= 1
            if not counted[0]:
                os.kill(victim[0].pid, signal.SIGKILL)

        return done

    for command in (("deploy", "east"), ("targets", "destroy", "east", "--yes")):
        victim: list[Any] = []
        state.done = killing(victim, 4)
        with cluster.changing:
            victim.append(depot.start(*command, "--json"))
        _, told = victim[0].communicate(timeout=60)
        assert victim[0].returncode == -signal.SIGKILL, told
        state.done = lambda _verb, _path: None
        half = json.loads(depot.run("targets", "list", "--json").stdout)
        assert sum(each["half"] for each in half) == 1, half
        ended = depot.run(*command, "--json")
        assert ended.code == 0, ended.stderr
        left = len(state.there)
        assert left > 4 if command[0] == "deploy" else left == 0
    assert depot.run("targets", "status", "east", "--json").code == 0


def test_the_rendered_pod_serves_answers_its_probes_and_moves_its_log(depot: Depot, tmp_path: Path) -> None:
    """The containers run as processes, with the pod's commands and variables and other folders."""
    project = opened(depot)
    key = create_key(project, "test", ["predict"], DAY)
    stores = {"catalog": "sqlite:///catalog.db", "online": "sqlite:///online.db", "tracking": "sqlite:///tracking.db"}
    stores |= {"lake": "lake", "blobs": "bundles"}
    env = {f"MAINSPRING_{name.upper()}": at.replace("///", f"///{depot.state}/") for name, at in stores.items()}
    env |= {f"MAINSPRING_{name}": str(depot.state / stores[name.lower()]) for name in ("LAKE", "BLOBS")}
    options = KubernetesOptions(project_folder=str(depot.root))
    asked = replace(deployment(port=depot.gateway, env=env, profile="local", worker=False), secrets=())
    gateway = next(each for each in objects(asked, options, Around()) if each["kind"] == "Deployment")
    pod = gateway["spec"]["template"]["spec"]
    [keys], [container] = pod["initContainers"], pod["containers"]
    (state := tmp_path / "pod" / "state").mkdir(parents=True)
    moved = {"/state": str(state), "/keys": str(depot.state / "keys")}

    def here(text: str) -> str:
        return next((text.replace(place, other) for place, other in moved.items() if text.startswith(place)), text)

    copying = [sys.executable, *map(here, keys["command"][1:])]
    subprocess.run(copying, check=True)
    missing = subprocess.run([*copying[:-2], str(tmp_path / "none"), copying[-1]], capture_output=True, check=False)
    assert (missing.returncode, b"cannot be read" in missing.stderr) == (1, True)
    assert (state / "keys" / "pepper").stat().st_mode & 0o777 == 0o600
    assert (state / "keys" / "pepper").read_bytes() == (depot.state / "keys" / "pepper").read_bytes()
    (state / "keys" / "spent").write_text("newer")
    (depot.state / "keys" / "spent").write_text("older")
    (depot.state / "keys" / "spent").chmod(0o600)
    subprocess.run(copying, check=True)
    assert (state / "keys" / "spent").read_text() == "newer"
    (state / "keys" / "spent").unlink()
    variables = {"POD_IP": "127.0.0.7"}
    for each in container["env"]:
        if "value" in each:
            value = each["value"].replace("$(POD_IP)", variables["POD_IP"])
            variables[each["name"]] = here(value) if each["name"] in ("HOME", "MAINSPRING_STATE") else value
    command = [sys.executable, *container["command"][1:]]
    with subprocess.Popen(
        command, env=depot.environment | variables, cwd=depot.root, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                path = container[name]["httpGet"]["path"]
                wait_until(lambda path=path: _probe(depot.gateway, path, "127.0.0.7") == 200, name)  # type: ignore[misc]
            assert _probe(depot.gateway, path, "evil.example.org") == 403
            answer = ask(depot.gateway, "POST", f"/v2/models/{ENDPOINT}/infer", keyed("c1"), key=key)
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=60)
            assert process.returncode == 0, told
        finally:
            process.kill()
    assert "moving the prediction log" in told
    assert not list((state / "logs").glob("*.log"))
    assert set(answer.body["parameters"]["prediction_ids"]) <= logged(project)
    assert {each.name for each in state.iterdir()}.isdisjoint(stores.values())
    project.close()


def _probe(port: int, path: str, host: str) -> int:
    """Ask as a kubelet does, which names the pod's address."""
    with suppress(OSError):
        return ask(port, "GET", path, headers={"Host": f"{host}:{port}"}).status
    return 0
