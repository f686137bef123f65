"""Vertex AI: a model, an endpoint and a deployment of each endpoint, jobs of training and of pipelines.

Each is the body of one request of the REST API, whose names and limits are Google's:
https://cloud.google.com/vertex-ai/docs/reference/rest and, for what a container has to answer,
https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements. The image answers `/ping` and
`/invocations` (`serving.http.hosted`), and the model says so to Vertex AI.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from math import ceil
from typing import Any, Literal

from mainspring.core.environment import VERTEX
from mainspring.core.errors import Invalid
from mainspring.deploy.manifests.clouds.hosting import check_hosted, hosted_variables, short_digest
from mainspring.deploy.manifests.clouds.machines import Machine, machine_for
from mainspring.deploy.manifests.clouds.names import cloud_names, image_by_digest
from mainspring.deploy.manifests.clouds.options import CloudOptions, check_plain
from mainspring.deploy.manifests.kinds import object_name
from mainspring.deploy.networks import is_private_network
from mainspring.deploy.targets.model import Deployment, Service
from mainspring.serving.http.hosted import INVOCATIONS, PING

Body = dict[str, Any]
FAMILIES = ("e2-", "n2-", "c3-", "g2-", "a2-", "a3-")
# Of online prediction on Compute Engine's prices of the same machines: https://cloud.google.com/vertex-ai/pricing
SURCHARGE = 0.15
_PLACE = "Vertex AI"
_LONGEST = 48  # characters of a name; those of models are longer by a digest, and 63 are taken
_PROJECT = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]")
_ACCOUNT = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]@[a-z][-a-z0-9]{4,28}[a-z0-9]\.iam\.gserviceaccount\.com")
_MEMBER = re.compile(r"(user|group|serviceAccount):[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_CHANNEL = re.compile(r"projects/[a-z][-a-z0-9]{4,28}[a-z0-9]/notificationChannels/\d+")
_START_S = 30 * 60
# Of an answer of an endpoint of its own, private or public; with more than the least one says so:
# https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type
_LEAST_S, _LONGEST_S = 60, 3600
_GPUS = {  # by the beginning of a machine's name: https://cloud.google.com/compute/docs/gpus
    "g2-": "NVIDIA_L4",
    "a2-highgpu-": "NVIDIA_TESLA_A100",
    "a2-megagpu-": "NVIDIA_TESLA_A100",
    "a2-ultragpu-": "NVIDIA_A100_80GB",
    "a3-highgpu-": "NVIDIA_H100_80GB",
    "a3-megagpu-": "NVIDIA_H100_MEGA_80GB",
    "a3-ultragpu-": "NVIDIA_H200_141GB",
}
_L4S = {"4": 1, "8": 1, "12": 1, "16": 1, "32": 1, "24": 2, "48": 4, "96": 8}  # by the cores of a g2-standard


class VertexOptions(CloudOptions, frozen=True, kw_only=True):
    """Options of the kind `vertex`.

    Attributes:
        folder: Where the files are written, relative to the project.
        project: Google's project.
        service_account: Account of the containers, its e-mail address.
        access: `private`: through Private Service Connect; `public`: an address on the internet.
        clients: Projects of Google that may connect to a private endpoint; by default the own one.
        kms_key: Key that encrypts models, endpoints and jobs.
        network: Network of the jobs of training, `projects/NUMBER/global/networks/NAME`.
        bucket: `gs://` folder for what jobs write.
        pipelines: Compiled pipelines by name: addresses of templates in Artifact Registry.
        subnet: Of the module of Terraform: addresses of the network that it makes for callers of private endpoints.
    """

    folder: str = "deploy/vertex"
    project: str
    service_account: str
    access: Literal["private", "public"] = "private"
    clients: list[str] = []
    kms_key: str = ""
    network: str = ""
    bucket: str = ""
    pipelines: dict[str, str] = {}
    subnet: str = "10.65.0.0/24"

    def __post_init__(self) -> None:
        super().__post_init__()
        for project in (self.project, *self.clients):
            if not _PROJECT.fullmatch(project):
                raise ValueError(f"{project!r} is no id of a project of Google")
        if not _ACCOUNT.fullmatch(self.service_account):
            raise ValueError(f"service_account is {self.service_account!r}: write NAME@PROJECT.iam.gserviceaccount.com")
        for name in ("folder", "kms_key", "network", "bucket"):
            check_plain(name, getattr(self, name))
        if (self.trainings or self.pipelines) and not self.bucket.startswith("gs://"):
            raise ValueError("trainings and pipelines need bucket: write gs://BUCKET/FOLDER")
        for name, template in self.pipelines.items():
            check_plain(f"the pipeline {name}", template)
            if not template.startswith("https://"):
                raise ValueError(f"the pipeline {name} is at {template!r}: write https://REGION-kfp.pkg.dev/...")
        for member in (*self.deployers, *self.callers):
            if not _MEMBER.fullmatch(member):
                raise ValueError(f"{member!r} is nobody: write user:, group: or serviceAccount: and an address")
        if self.notify and not (self.notify_address or _CHANNEL.fullmatch(self.notify)):
            raise ValueError(
                f"notify is {self.notify!r}: write an address, or projects/PROJECT/notificationChannels/ID"
            )
        if not is_private_network(self.subnet) or not 16 <= IPv4Network(self.subnet).prefixlen <= 29:
            raise ValueError(f"subnet is {self.subnet!r}: write a private network of 16 to 29 bits")


def specifications(deployment: Deployment, options: VertexOptions) -> dict[str, Body]:
    """Return the bodies by the names of their files, each after those that it names.

    Raises:
        Invalid: A name, a size or a setting is not to be had on Vertex AI.
    """
    check_hosted(deployment, _PLACE, _LONGEST_S)
    image = image_by_digest(deployment.image, "image")
    names = endpoint_names(deployment)
    machine = machine_for("google", deployment, options.machine, FAMILIES)
    found = dict[str, Body]()
    for service in deployment.services:
        name = names[service.endpoint]
        labels = _labels(deployment, service)
        model = _model(deployment, service, options, name, image, labels)
        found[f"{name}/model.json"] = model
        found[f"{name}/endpoint.json"] = _endpoint(deployment, service, options, name, labels)
        found[f"{name}/deploy.json"] = _deploy(deployment, options, model["modelId"], name, machine)
    found |= {f"train-{name}.json": body for name, body in _trainings(deployment, options)}
    found |= {f"pipeline-{name}.json": body for name, body in _pipelines(deployment, options)}
    return found


def endpoint_names(deployment: Deployment) -> Mapping[str, str]:
    """Return the name of each endpoint there, which is its id, too."""
    return cloud_names(deployment.project, [each.endpoint for each in deployment.services], _LONGEST, _PLACE)


def _labels(deployment: Deployment, service: Service) -> Mapping[str, str]:
    given = {
        "managed-by": "mainspring",
        "project": deployment.project,
        "target": deployment.target,
        "endpoint": service.endpoint,
        "version": service.version.rpartition(":")[2],
        "bundle": service.bundle,
    }
    return {name: label(value) for name, value in given.items()}


def label(value: str) -> str:
    """Return a text as a label of Google may be."""
    return re.sub("[^a-z0-9_-]", "-", value.lower())[:63]


def _model(
    deployment: Deployment,
    service: Service,
    options: VertexOptions,
    name: str,
    image: str,
    labels: Mapping[str, str],
) -> Body:
    """Return the body of `models:upload`. The id follows from the content, so uploading it again changes nothing."""
    port = deployment.port
    probe = {"httpGet": {"path": PING, "port": port, "scheme": "HTTP"}, "timeoutSeconds": 5}
    container = {
        "imageUri": image,
        "args": ["serve"],
        "env": _variables(hosted_variables(deployment, service, VERTEX)),
        "ports": [{"containerPort": port}],
        "predictRoute": INVOCATIONS,
        "healthRoute": PING,
        "deploymentTimeout": f"{_START_S}s",
        "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": _START_S // 5},
        "healthProbe": {**probe, "periodSeconds": 10, "failureThreshold": 3},
    }
    model = {
        "displayName": name,
        "description": f"Version {service.version} of {deployment.project}, bundle {service.bundle}",
        "versionAliases": [f"v{service.version.rpartition(':')[2]}"],
        "labels": dict(labels),
        "containerSpec": container,
        **_encryption(options),
    }
    return {"modelId": f"{name}-{short_digest(model)}", "model": model}


def _variables(env: Mapping[str, str]) -> list[Body]:
    """Return variables as they are written; Vertex AI would put others into `$(NAME)`."""
    return [{"name": name, "value": value.replace("$(", "$$(")} for name, value in env.items()]


def network_of(deployment: Deployment, options: VertexOptions) -> str:
    """Return the network that the module of Terraform makes for callers of private endpoints."""
    return f"projects/{options.project}/global/networks/{object_name(deployment.project, deployment.target)}"


def _endpoint(
    deployment: Deployment, service: Service, options: VertexOptions, name: str, labels: Mapping[str, str]
) -> Body:
    found: Body = {
        "displayName": name,
        "labels": {each: labels[each] for each in ("managed-by", "project", "target", "endpoint")},
        **_encryption(options),
    }
    if options.access == "private":
        found["privateServiceConnectConfig"] = _connections(deployment, options)
    else:
        found["dedicatedEndpointEnabled"] = True
    if service.deadline_ms > 1000 * _LEAST_S:
        found["clientConnectionConfig"] = {"inferenceTimeout": f"{ceil(service.deadline_ms / 1000)}s"}
    return found


def _connections(deployment: Deployment, options: VertexOptions) -> Body:
    """Return who may connect to a private endpoint; with a network of its own, Vertex AI gives it an address there."""
    allowed = options.clients or [options.project]
    if not options.terraform:
        return {"enablePrivateServiceConnect": True, "projectAllowlist": allowed}
    return {
        "enablePrivateServiceConnect": True,
        "projectAllowlist": list(dict.fromkeys([*allowed, options.project])),
        "pscAutomationConfigs": [{"projectId": options.project, "network": network_of(deployment, options)}],
    }


def _deploy(deployment: Deployment, options: VertexOptions, model: str, name: str, machine: Machine) -> Body:
    """Return the body of `endpoints:deployModel`, which gives the model all requests."""
    least, most = deployment.replicas
    metric = "aiplatform.googleapis.com/prediction/online/cpu/utilization"
    deployed = {
        "model": f"projects/{options.project}/locations/{deployment.region}/models/{model}",
        "displayName": name,
        "serviceAccount": options.service_account,
        "enableAccessLogging": False,
        "dedicatedResources": {
            "machineSpec": _machine(machine.name),
            "minReplicaCount": least,
            "maxReplicaCount": most,
            "autoscalingMetricSpecs": [{"metricName": metric, "target": options.cpu_target}],
        },
    }
    return {"deployedModel": deployed, "trafficSplit": {"0": 100}}


def _machine(name: str) -> Body:
    """Return a machine with the GPUs that its type has."""
    kind = next((kind for start, kind in _GPUS.items() if name.startswith(start)), "")
    if not kind:
        return {"machineType": name}
    count = _L4S.get(name.rpartition("-")[2], 0) if kind == "NVIDIA_L4" else _counted(name)
    if not count:
        raise Invalid(f"The machine {name!r} is no type of Google's.", fix="write one such as g2-standard-8.")
    return {"machineType": name, "acceleratorType": kind, "acceleratorCount": count}


def _counted(name: str) -> int:
    found = re.search(r"-(\d{1,2})g$", name)
    return int(found[1]) if found else 0


def _encryption(options: VertexOptions) -> Body:
    return {"encryptionSpec": {"kmsKeyName": options.kms_key}} if options.kms_key else {}


def _trainings(deployment: Deployment, options: VertexOptions) -> Iterator[tuple[str, Body]]:
    """Yield the name and the body of `customJobs` of each training."""
    if not options.trainings:
        return
    image = image_by_digest(options.training_image, "training_image")
    names = cloud_names(deployment.project, options.trainings, _LONGEST, _PLACE)
    for model, name in names.items():
        arguments = ["train", model, "--project", options.project_folder, "--profile", deployment.profile]
        pool = {
            "machineSpec": _machine(options.training_machine),
            "replicaCount": 1,
            "containerSpec": {
                "imageUri": image,
                **({"command": options.training_command} if options.training_command else {}),
                "args": arguments,
                "env": _variables(dict(sorted(deployment.env.items()))),
            },
        }
        yield (
            name,
            {
                "displayName": f"{name}-training",
                "labels": {"managed-by": "mainspring", "target": label(deployment.target)},
                "jobSpec": {
                    "workerPoolSpecs": [pool],
                    "serviceAccount": options.service_account,
                    "scheduling": {
                        "timeout": f"{3600 * options.training_hours}s",
                        "strategy": "SPOT" if options.spot else "STANDARD",
                        "restartJobOnWorkerRestart": True,
                    },
                    "baseOutputDirectory": {"outputUriPrefix": f"{options.bucket.rstrip('/')}/{name}"},
                    **({"network": options.network} if options.network else {}),
                },
                **_encryption(options),
            },
        )


def _pipelines(deployment: Deployment, options: VertexOptions) -> Iterator[tuple[str, Body]]:
    """Yield the name and the body of `pipelineJobs` of each compiled pipeline."""
    for pipeline, name in cloud_names(deployment.project, sorted(options.pipelines), _LONGEST, _PLACE).items():
        yield (
            name,
            {
                "displayName": name,
                "labels": {"managed-by": "mainspring", "target": label(deployment.target)},
                "templateUri": options.pipelines[pipeline],
                "runtimeConfig": {
                    "gcsOutputDirectory": f"{options.bucket.rstrip('/')}/{name}",
                    "failurePolicy": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
                },
                "serviceAccount": options.service_account,
                **({"network": options.network} if options.network else {}),
                **_encryption(options),
            },
        )
