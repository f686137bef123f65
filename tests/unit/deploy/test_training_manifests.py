"""Objects of Kubernetes that train: what controllers take, without rights, secrets or stores that end with a pod."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kit.depot import lay_out
from kit.depth import deep
from kit.engines import python_of
from kit.kubernetes_objects import schema_of
from mainspring.cli.commands.train import command as train
from mainspring.cli.exits import INTERRUPTED, UNAVAILABLE
from mainspring.core.errors import Invalid
from mainspring.deploy.manifests.pods import Pod
from mainspring.deploy.manifests.training import KINDS, Training, name_of
from mainspring.deploy.variables import check_no_secret
from mainspring.operations.distributed.manifests import PLAN, Wanted, as_yaml, training_manifest
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

POD = Pod("", "shop:1", [], "/project", env={"A": "b"}, secret="shop", gpus=2, claims={"data": "/mnt/data"})
SERVERS = {
    "catalog": "postgresql://db/shop", "tracking": "postgresql://db/shop", "lake": "s3://shop/lake",
    "blobs": "s3://shop/blobs", "checkpoints": "s3://shop/checkpoints", "kubernetes_image": "shop:1",
    "kubernetes_secret": "shop",
}  # fmt: skip


def training(machines: int = 3) -> Training:
    arguments = ["late-delivery", "--processes", "2", "--machines", str(machines), "--profile", "prod"]
    return Training("late-delivery", "research", arguments, machines, 3, POD, queue="gpus")


def rendered() -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    for (kind, make), machines in product(KINDS.items(), (1, 3)):
        yield kind, machines, make(training(machines))


def pods(found: Any) -> Iterator[dict[str, Any]]:
    """Yield the templates of pods within an object."""
    if isinstance(found, dict):
        if "containers" in found.get("spec", {}):
            yield found
        for each in found.values():
            yield from pods(each)
    elif isinstance(found, list):
        for each in found:
            yield from pods(each)


def test_objects_are_of_their_schemas_and_a_misspelt_field_is_not() -> None:
    for _, _, objects in rendered():
        for each in objects:
            jsonschema_rs.validate(schema_of(each["kind"]), each)
        wrong = json.loads(json.dumps(objects[-1]).replace('"name"', '"nane"', 1))
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema_of(wrong["kind"]), wrong)


def test_pods_have_no_rights_and_limits_and_are_reached_by_each_other_alone() -> None:
    for _, _, objects in rendered():
        [policy] = [each for each in objects if each["kind"] == "NetworkPolicy"]
        [sender] = policy["spec"]["ingress"][0]["from"]
        assert sender == {"podSelector": policy["spec"]["podSelector"]}
        found = list(pods(objects))
        assert found
        for pod in found:
            assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            spec, [container] = pod["spec"], pod["spec"]["containers"]
            assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
            assert (spec["automountServiceAccountToken"], spec["terminationGracePeriodSeconds"]) == (False, 60)
            assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
            }  # fmt: skip
            assert container["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": "2"}
            assert container["resources"]["requests"]["cpu"] == "1"
            mounted = {each["mountPath"] for each in container["volumeMounts"]}
            assert mounted == {"/state", "/tmp", "/dev/shm", "/mnt/data"}
            assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in spec["volumes"]}
            assert all(set(each) == {"name", "value"} for each in container["env"])


def test_each_pod_runs_the_command_of_its_machine() -> None:
    for kind, machines, objects in rendered():
        for number, pod in enumerate(pods(objects)):
            [container] = pod["spec"]["containers"]
            assert container["command"][:4] == ["python", "-m", "mainspring", "train"]
            words = container["command"][4:]
            words = [each.replace("$(JOB_COMPLETION_INDEX)", "0").replace("$(RANK)", "2") for each in words]
            given = train.make_context("train", words).params
            assert (given["model"], given["machines"], given["profile"]) == ("late-delivery", machines, "prod")
            if machines == 1:
                assert given["machine"] is given["meet"] is None
                continue
            assert given["machine"] == (2 if number else 0)
            first = "late-delivery-master-0" if kind == "pytorchjob" else "late-delivery-node-0-0.late-delivery"
            assert given["meet"] == f"{first}:29400"


def test_pods_are_made_again_unless_that_would_end_alike() -> None:
    for kind, machines, objects in rendered():
        if kind == "pytorchjob":
            spec = objects[-1]["spec"]
            assert spec["runPolicy"]["backoffLimit"] == 3 * machines
            assert {each["restartPolicy"] for each in spec["pytorchReplicaSpecs"].values()} == {"ExitCode"}
            assert sum(each["replicas"] for each in spec["pytorchReplicaSpecs"].values()) == machines
            continue
        spec = objects[1]["spec"] if kind == "jobset" else objects[1]["spec"]["template"]["spec"]
        assert spec["failurePolicy"] == {"maxRestarts": 0}
        [job] = spec["replicatedJobs"]
        job = job["template"]["spec"]
        assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 3 * machines)
        final, disrupted, stopped = job["podFailurePolicy"]["rules"]
        assert (final["action"], disrupted["action"], stopped["action"]) == ("FailJob", "Ignore", "Ignore")
        assert not {0, UNAVAILABLE, INTERRUPTED, 137} & set(final["onExitCodes"]["values"])
        assert stopped["onExitCodes"]["values"] == [INTERRUPTED]
        assert objects[-1]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", "x"), ("db_password", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("KEY", "x"), ("SSH_PRIVATE", "x"),
        ("CATALOG", "postgresql://shop:hidden@db/shop"), ("CERT", "-----BEGIN PRIVATE KEY-----"),
        ("LAKE", "https://db/x?password=hidden"),
    ],
)  # fmt: skip
def test_a_secret_is_refused(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=f"{name} may be a secret") as refused:
        replace(POD, env={name: value})
    assert value == "x" or value not in str(refused.value)


@given(st.text(alphabet="ABCXYZ_", min_size=1), st.sampled_from(["1", "postgresql://db/shop", "s3://b/p", "info"]))
def test_other_variables_are_taken(name: str, value: str) -> None:
    check_no_secret({name: value}, "")


@given(st.text(alphabet="aZ0-_.é", min_size=1, max_size=50))
def test_names_are_those_of_hosts(model: str) -> None:
    with suppress(Invalid):
        name = name_of(model)
        jsonschema_rs.validate({"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 40}, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("depot") / "depot").root


def project(folder: Path, **changes: str) -> Project:
    return open_project(load_settings(folder, overrides={**SERVERS, **changes}, environment={}))


def test_a_model_is_rendered_with_the_profile_and_what_is_wanted(folder: Path) -> None:
    wanted = Wanted(processes=4, machines=2, gpu=True, memory="64Gi", env={"LEVEL": "info"})
    objects = training_manifest(project(folder, kubernetes_cpu="500m"), "late-parcel", "jobset", wanted)
    assert list(yaml.safe_load_all(as_yaml(objects))) == objects
    [pod] = pods(objects)
    [container] = pod["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "2000m", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert (container["image"], container["envFrom"]) == ("shop:1", [{"secretRef": {"name": "shop"}}])
    assert {"name": "LEVEL", "value": "info"} in container["env"]


@pytest.mark.parametrize(
    ("changes", "wanted", "words"),
    [
        ({"catalog": "sqlite:///x.db"}, Wanted(), "has its catalog at sqlite"),
        ({"lake": "lake"}, Wanted(claims={"data": "/elsewhere"}), "has its lake at file"),
        ({"checkpoints": ""}, Wanted(machines=2), "names no place for checkpoints"),
        ({"kubernetes_image": ""}, Wanted(), "needs an image"),
        ({}, Wanted(memory="lots"), "memory is 'lots'"),
        ({}, Wanted(memory=PLAN, gpu=True), "The plan says the memory of GPUs"),
        ({}, Wanted(claims={"data": "mnt"}), "claim data is mounted at 'mnt'"),
        ({}, Wanted(name="Late"), "'Late' cannot name objects"),
        ({}, Wanted(name="x" * 41), "cannot name objects"),
    ],
)
def test_what_pods_could_not_train_is_refused(
    folder: Path, changes: dict[str, str], wanted: Wanted, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        training_manifest(project(folder, **changes), "late-parcel", "trainjob", wanted)


CHECK = """
import json, kubernetes_validate
import kubernetes.client.models as models
import kubeflow.training.models as theirs
from kubeflow_trainer_api import models as trainer
from kubernetes.client import ApiClient

for name in dir(theirs):
    if name[0].isupper():
        setattr(models, name, getattr(theirs, name))
KINDS = {"JobSet": trainer.JobsetV1alpha2JobSet, "TrainJob": trainer.TrainerV1alpha1TrainJob,
         "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime}

class Reply:
    def __init__(self, document):
        self.data = json.dumps(document)

def kept(document):
    if document["kind"] == "PyTorchJob":
        client = ApiClient()
        return client.sanitize_for_serialization(client.deserialize(Reply(document), "KubeflowOrgV1PyTorchJob"))
    return json.loads(KINDS[document["kind"]].from_dict(document).to_json())

def check(document):
    if document["kind"] == "NetworkPolicy":
        for version in ("1.29", "1.37"):
            kubernetes_validate.validate(document, version, strict=True)
        return
    assert kept(document) == document, document["kind"]

def check_job(spec):
    for version in ("1.29", "1.37"):
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": spec}
        kubernetes_validate.validate(job, version, strict=True)

objects, pods = json.load(open("objects.json"))
for each in objects:
    check(each)
    for job in each["spec"].get("template", each).get("spec", {}).get("replicatedJobs", []):
        check_job(job["template"]["spec"])
for pod in pods:
    pod["spec"]["restartPolicy"] = "Never"
    check_job({"template": pod})
for each in objects:
    try:
        check(json.loads(json.dumps(each).replace('"spec": {"', '"spec": {"misspelt": 1, "', 1)))
    except (AssertionError, ValueError, kubernetes_validate.ValidationError):
        continue
    raise SystemExit(each["kind"] + " is taken with a misspelt field")
"""


@deep
@pytest.mark.timeout(1600)
def test_objects_are_what_kubernetes_and_the_controllers_own_models_take(tmp_path: Path) -> None:
    objects = [each for _, _, found in rendered() for each in found]
    (tmp_path / "objects.json").write_text(json.dumps([objects, list(pods(objects))]))
    subprocess.run([python_of("kubernetes"), "-c", CHECK], cwd=tmp_path, check=True)
