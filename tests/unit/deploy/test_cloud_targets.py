"""Specifications for Vertex AI and Azure ML: careful defaults, names and machines that the clouds have, refusals."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from kit.cloud_targets import AZURE, IMAGE, SIGN, VERTEX
from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.targets.clouds import CloudTarget, azure_target, vertex_target
from mainspring.deploy.adapters.targets.options import read_options
from mainspring.deploy.manifests.clouds.azureml import AzureOptions
from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.targets.model import Service
from mainspring.deploy.targets.ports import Target

KINDS = ("vertex", "azureml")
REGIONS = {"vertex": "europe-west4", "azureml": "westeurope"}


def target(kind: str, **changes: Any) -> CloudTarget:
    given = {each: value for each, value in {**_options(kind), **changes}.items() if value is not None}
    if kind == "vertex":
        return vertex_target(read_options(VertexOptions, given, "east"), Path("nowhere"), SIGN)
    return azure_target(read_options(AzureOptions, given, "east"), Path("nowhere"), SIGN)


def _options(kind: str) -> dict[str, Any]:
    return VERTEX if kind == "vertex" else AZURE


def rendered(kind: str, options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"secrets": (), "image": IMAGE, "region": REGIONS[kind]}
    made: Target = target(kind, **(options or {}))
    pieces = made.render(deployment(**{**usual, **changes}))
    return {each.name: json.loads(each.content) for each in pieces if each.name != "apply.py"}


def service(name: str, version: str = "late:3", **changes: Any) -> Service:
    return Service(endpoint=name, model="late", version=version, bundle="ab" * 32, **changes)


def test_an_endpoint_is_private_and_encrypted_unless_told() -> None:
    google = rendered("vertex")
    endpoint = google["shop-late/endpoint.json"]
    assert endpoint["privateServiceConnectConfig"] == {
        "enablePrivateServiceConnect": True, "projectAllowlist": ["shop-web", "shop-batch"]
    }  # fmt: skip
    assert "dedicatedEndpointEnabled" not in endpoint
    own = rendered("vertex", {"clients": None})["shop-late/endpoint.json"]
    assert own["privateServiceConnectConfig"]["projectAllowlist"] == ["shop-prod"]
    named = [body.get("model", body) for name, body in google.items() if not name.endswith("deploy.json")]
    assert {each["encryptionSpec"]["kmsKeyName"] for each in named} == {VERTEX["kms_key"]}
    public = rendered("vertex", {"access": "public"})["shop-late/endpoint.json"]
    assert public["dedicatedEndpointEnabled"] is True
    assert "privateServiceConnectConfig" not in public
    azure = rendered("azureml")["shop-late/endpoint.yml"]
    assert (azure["public_network_access"], azure["auth_mode"]) == ("disabled", "aad_token")
    assert rendered("azureml", {"access": "public"})["shop-late/endpoint.yml"]["public_network_access"] == "enabled"
    assert rendered("azureml", {"identity": None})["shop-late/endpoint.yml"]["identity"] == {"type": "system_assigned"}


def test_a_container_runs_as_the_account_that_is_named() -> None:
    google = rendered("vertex")
    accounts = [
        google["shop-late/deploy.json"]["deployedModel"]["serviceAccount"],
        google["train-shop-late.json"]["jobSpec"]["serviceAccount"],
        google["pipeline-shop-nightly.json"]["serviceAccount"],
    ]
    assert set(accounts) == {VERTEX["service_account"]}
    labels = rendered("vertex", target="East.1")["train-shop-late.json"]["labels"]
    assert labels == {"managed-by": "mainspring", "target": "east-1"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_version_has_the_same_name_and_another_one_a_new_one(kind: str) -> None:
    def name(**changes: Any) -> str:
        found = rendered(kind, **changes)
        return str(found["shop-late/model.json"]["modelId"] if kind == "vertex" else
                   found["shop-late/deployment.yml"]["name"])  # fmt: skip

    first = name()
    assert first == name()
    assert len({first, name(env={"A": "1"}), name(image=IMAGE.replace("0f", "1e")), name(services=(
        service("late", "late:4"), service("price")))}) == 4  # fmt: skip


def test_a_service_waits_as_long_as_the_endpoint_may_take() -> None:
    slow = (service("late", deadline_ms=174_500.0),)
    azure = rendered("azureml", services=slow)["shop-late/deployment.yml"]
    assert azure["request_settings"]["request_timeout_ms"] == 179_500
    vertex = rendered("vertex", services=slow)["shop-late/endpoint.json"]
    assert vertex["clientConnectionConfig"] == {"inferenceTimeout": "175s"}
    assert "clientConnectionConfig" not in rendered("vertex")["shop-late/endpoint.json"]


def test_a_machine_is_the_cheapest_that_is_large_enough() -> None:
    def machine(**changes: Any) -> dict[str, Any]:
        found = rendered("vertex", **changes)["shop-late/deploy.json"]["deployedModel"]["dedicatedResources"]
        return dict(found["machineSpec"])

    assert machine() == {"machineType": "e2-standard-2"}
    assert machine(cpu=7.0) == {"machineType": "e2-standard-8"}
    assert machine(memory=100 << 30)["machineType"] == "n2-highmem-16"
    assert machine(gpus=1) == {"machineType": "g2-standard-4", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
    (many,) = (
        rendered("vertex", {"machine": "a2-highgpu-4g"}, gpus=4)["shop-late/deploy.json"]["deployedModel"][
            "dedicatedResources"]["machineSpec"],
    )  # fmt: skip
    assert many == {"machineType": "a2-highgpu-4g", "acceleratorType": "NVIDIA_TESLA_A100", "acceleratorCount": 4}
    new = rendered("vertex", {"machine": "n9-standard-4"})["shop-late/deploy.json"]["deployedModel"]
    assert new["dedicatedResources"]["machineSpec"] == {"machineType": "n9-standard-4"}


@pytest.mark.parametrize(
    ("kind", "options", "changes", "told"),
    [
        *((kind, {}, {"secrets": ("MAINSPRING_CATALOG",)}, "names MAINSPRING_CATALOG") for kind in KINDS),
        *((kind, {}, {"replicas": (0, 3)}, "at least one replica") for kind in KINDS),
        *((kind, {}, {"services": (service("late", ""),)}, "'late' has no version") for kind in KINDS),
        *((kind, {}, {"image": "registry.example.org/shop:1"}, "registry.example.org/shop:1") for kind in KINDS),
        *((kind, {}, {"image": ""}, "The image is ''") for kind in KINDS),
        *(
            (kind, {}, {"services": (service("late"), service("LATE"))}, "'late' and 'LATE' would both")
            for kind in KINDS
        ),
        *((kind, {}, {"region": ""}, "has the region ''") for kind in KINDS),
        *((kind, {"machine": None}, {"region": "mars"}, "'mars'") for kind in KINDS),
        *((kind, {}, {"region": 'x"; import os'}, "has the region") for kind in KINDS),
        *((kind, {"machine": None}, {"cpu": 500.0}, "500 cores") for kind in KINDS),
        *((kind, {}, {"services": (service("x" * 60),)}, "65 characters") for kind in KINDS),
        *((kind, {"training_image": "shop:1"}, {}, "The training_image is 'shop:1'") for kind in KINDS),
        ("azureml", {}, {"services": (service("x" * 30),)}, "35 characters"),
        ("azureml", {}, {"services": (service("late", deadline_ms=176_000.0),)}, "176 s, and Azure ML waits 175 s"),
        ("vertex", {}, {"services": (service("late", deadline_ms=3_601_000.0),)}, "3601 s, and Vertex AI waits 3600 s"),
        ("azureml", {}, {"env": {"A": "${{secrets.x}}"}}, "an expression to Azure ML"),
        ("azureml", {"training_command": []}, {}, "in a shell of the image"),
        ("azureml", {}, {"port": 9000}, "does not tell a container its port"),
        ("vertex", {"machine": "e2-standard-2"}, {"cpu": 4.0}, "2 cores, which are fewer than the 4"),
        ("vertex", {"machine": "e2-standard-2"}, {"memory": 9 << 30}, "8 GiB, which are less than the 9.0 GiB"),
        ("vertex", {"machine": "e2-standard-2"}, {"gpus": 1}, "0 GPUs, which are not the 1"),
        ("vertex", {"machine": "g2-standard-5"}, {"gpus": 1}, "'g2-standard-5' is no type"),
    ],
)
def test_what_a_cloud_does_not_take_is_refused(
    kind: str, options: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid, match=told) as raised:
        rendered(kind, options, **changes)
    assert raised.value.fix


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("vertex", {"project": None}, "project"),
        ("vertex", {"project": "Shop"}, "no id of a project"),
        ("vertex", {"clients": ["*"]}, "no id of a project"),
        ("vertex", {"service_account": None}, "service_account"),
        ("vertex", {"service_account": "me@example.org"}, "write NAME@PROJECT"),
        ("vertex", {"access": "open"}, "access"),
        ("vertex", {"bucket": None}, "need bucket"),
        ("vertex", {"bucket": "s3://shop"}, "need bucket"),
        ("vertex", {"pipelines": {"nightly": "http://elsewhere/p"}}, "kfp.pkg.dev"),
        ("vertex", {"kms_key": "a b"}, "kms_key"),
        ("azureml", {"subscription": "mine"}, "subscription is 'mine'"),
        ("azureml", {"resource_group": "a/b"}, "resource_group"),
        ("azureml", {"workspace": "x"}, "workspace"),
        ("azureml", {"identity": "gateway"}, "identity"),
        ("azureml", {"auth": "none"}, "auth"),
        *((kind, {"training_machine": None}, "trainings need") for kind in KINDS),
        *((kind, {"cpu_target": 99}, "cpu_target") for kind in KINDS),
        *((kind, {"training_hours": 0}, "training_hours") for kind in KINDS),
        *((kind, {"quota": -1}, "quota") for kind in KINDS),
        *((kind, {"project_folder": "/a; rm -rf /"}, "project_folder") for kind in KINDS),
        *((kind, {"machine": "$(id)"}, "machine") for kind in KINDS),
        *((kind, {"colour": "red"}, "colour") for kind in KINDS),
    ],
)
def test_an_option_without_sense_is_refused(kind: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        target(kind, **options)


@pytest.mark.parametrize(("kind", "enough"), [("vertex", 2 * 4 * 2), ("azureml", 2 * 5 * 4)])
def test_a_quota_that_is_too_small_is_a_problem(kind: str, enough: int) -> None:
    """Two endpoints of up to four machines with two or four cores; Azure keeps a fifth for its own changes."""
    machine = None if kind == "vertex" else "Standard_F4s_v2"
    wanted = deployment(secrets=(), image=IMAGE, region=REGIONS[kind], replicas=(1, 4))
    unknown = target(kind, quota=1000, machine="new-4")
    assert "cores of a new-4 are unknown" in unknown.problems(unknown.render(wanted))[0]
    for quota, problems in ((0, 0), (enough, 0), (enough - 1, 1)):
        made = target(kind, quota=quota, machine=machine)
        found = made.problems(made.render(wanted))
        assert len(found) == problems
        assert all(f"{enough} cores, and the quota is {quota}" in each for each in found)


def test_values_are_never_templates_or_commands() -> None:
    hostile = {"A": '$(HOME) "quoted" `id`', "B": "a\nb: c"}
    google = rendered("vertex", env=hostile)["shop-late/model.json"]["model"]["containerSpec"]["env"]
    assert {each["name"]: each["value"] for each in google}["A"] == '$$(HOME) "quoted" `id`'
    azure = rendered("azureml", env=hostile)["shop-late/deployment.yml"]["environment_variables"]
    assert {name: azure[name] for name in hostile} == hostile
    job = rendered("azureml", profile="prod; rm -rf /")["train-shop-late.yml"]
    assert shlex.split(job["command"])[-1] == "prod; rm -rf /"


def test_scaling_follows_the_replicas() -> None:
    fixed = rendered("azureml", replicas=(2, 2))
    assert fixed["shop-late/deployment.yml"]["instance_count"] == 2
    assert "shop-late/autoscale.json" not in fixed
    scaled = rendered("azureml", replicas=(2, 5))
    setting = scaled["shop-late/autoscale.json"]["properties"]
    assert setting["profiles"][0]["capacity"] == {"minimum": "2", "maximum": "5", "default": "2"}
    assert setting["targetResourceUri"].endswith(f"/deployments/{scaled['shop-late/deployment.yml']['name']}")
    google = rendered("vertex", replicas=(2, 5))["shop-late/deploy.json"]["deployedModel"]["dedicatedResources"]
    assert (google["minReplicaCount"], google["maxReplicaCount"]) == (2, 5)


def test_a_training_on_spare_machines_says_so() -> None:
    job = rendered("vertex")["train-shop-late.json"]["jobSpec"]
    assert job["scheduling"] == {"timeout": "28800s", "strategy": "SPOT", "restartJobOnWorkerRestart": True}
    assert (
        rendered("vertex", {"spot": False})["train-shop-late.json"]["jobSpec"]["scheduling"]["strategy"] == "STANDARD"
    )
    own = rendered("vertex", {"training_command": []})["train-shop-late.json"]["jobSpec"]["workerPoolSpecs"][0]
    assert (own["containerSpec"]["args"][0], "command" in own["containerSpec"]) == ("train", False)
    azure = rendered("azureml")["train-shop-late.yml"]
    assert azure["queue_settings"] == {"job_tier": "spot"}
    assert azure["resources"]["instance_type"] == AZURE["training_machine"]
    shared = rendered("azureml", {"compute": "trainers"})["train-shop-late.yml"]
    assert (shared["compute"], "queue_settings" in shared) == ("azureml:trainers", False)
