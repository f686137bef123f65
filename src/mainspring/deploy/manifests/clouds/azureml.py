"""Azure Machine Learning: an endpoint and a deployment of each endpoint, its scaling, and jobs of training.

Each is a file for `az ml ... create --file`, in the form of https://learn.microsoft.com/azure/machine-learning/reference-yaml-overview;
scaling is the body of a request to Azure Monitor. JSON is YAML. What a container of one's own has to answer:
https://learn.microsoft.com/azure/machine-learning/how-to-deploy-custom-container.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any, Literal

from mainspring.core.environment import AZUREML
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
# Of the machines that managed endpoints take, those that the catalogue has:
# https://learn.microsoft.com/azure/machine-learning/reference-managed-online-endpoints-vm-sku-list
FAMILIES = ("Standard_F", "Standard_NC", "Standard_ND")
_PLACE = "Azure ML"
_PORT = 8080  # which a container assumes where it is not told
_LONGEST = 32  # characters of an endpoint's name
_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
_GUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._()-]{0,88}[A-Za-z0-9_()-]")
_WORKSPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,32}")
_IDENTITY, _REGISTRY, _ACTIONS = (
    re.compile(rf"/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/{kind}/[A-Za-z0-9_.-]+", re.IGNORECASE)
    for kind in (
        r"Microsoft\.ManagedIdentity/userAssignedIdentities",
        r"Microsoft\.ContainerRegistry/registries",
        r"Microsoft\.Insights/actionGroups",
    )
)
_DRAIN_S = 5  # of a request beyond the endpoint's deadline
_LONGEST_S = 180  # of a request: https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas


class AzureOptions(CloudOptions, frozen=True, kw_only=True):
    """Options of the kind `azureml`.

    Attributes:
        folder: Where the files are written, relative to the project.
        subscription, resource_group, workspace: Of the workspace.
        identity: User-assigned identity of the containers, its resource id; by default each endpoint's own.
        access: `private`: through the workspace's private endpoint; `public`: an address on the internet.
        auth: How callers prove who they are: tokens of Entra, or keys of the endpoint.
        compute: Cluster of the trainings; empty: serverless.
        registry: Of the module of Terraform: resource id of the image's registry; by default the one of the image's
            name in the workspace's resource group.
        subnet: Of the module: addresses of the network that it makes for private endpoints.
        clients: Of the module: private networks that may call, beside that one.
    """

    folder: str = "deploy/azureml"
    subscription: str
    resource_group: str
    workspace: str
    identity: str = ""
    access: Literal["private", "public"] = "private"
    auth: Literal["aad_token", "key"] = "aad_token"
    compute: str = ""
    registry: str = ""
    subnet: str = "10.66.0.0/24"
    clients: list[str] = []

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, pattern in (("subscription", _GUID), ("resource_group", _GROUP), ("workspace", _WORKSPACE)):
            if not pattern.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}, which Azure does not take")
        if self.identity and not _IDENTITY.fullmatch(self.identity):
            raise ValueError(f"identity is {self.identity!r}: write the resource id of a user-assigned identity")
        for name in ("folder", "compute"):
            check_plain(name, getattr(self, name))
        self._check_module()

    def _check_module(self) -> None:
        if not self.terraform and (self.registry or self.clients):
            raise ValueError("registry and clients are of the module of Terraform: write terraform = true")
        if self.terraform and self.identity:
            raise ValueError("identity is made by the module of Terraform: leave it out")
        for each in (*self.deployers, *self.callers):
            if not _GUID.fullmatch(each):
                raise ValueError(f"{each!r} is nobody: write the object id of a user, a group or a principal in Entra")
        if self.callers and self.auth == "key":
            raise ValueError('callers have rights by which tokens are checked: write auth = "aad_token"')
        if self.notify and not (self.notify_address or _ACTIONS.fullmatch(self.notify)):
            raise ValueError(f"notify is {self.notify!r}: write an address, or the resource id of an action group")
        if self.registry and not _REGISTRY.fullmatch(self.registry):
            raise ValueError(f"registry is {self.registry!r}: write the resource id of a registry")
        for network in (self.subnet, *self.clients):
            if not is_private_network(network):
                raise ValueError(f'{network!r} is no private network: write such as "10.66.0.0/24"')
        if not 16 <= IPv4Network(self.subnet).prefixlen <= 28:
            raise ValueError(f"subnet is {self.subnet!r}: write one of 16 to 28 bits")


def specifications(deployment: Deployment, options: AzureOptions) -> dict[str, Body]:
    """Return the documents by the names of their files, each after those that it names.

    Raises:
        Invalid: A name, a size or a setting is not to be had on Azure Machine Learning.
    """
    check_hosted(deployment, _PLACE, _LONGEST_S - _DRAIN_S)
    if deployment.port != _PORT:
        raise Invalid(f"Azure ML does not tell a container its port, which is {_PORT}.", fix="leave out `port`.")
    for name, value in deployment.env.items():
        if "${{" in value:
            raise Invalid(
                f"The variable {name} has the value {value!r}, an expression to Azure ML.", fix="write it without ${{."
            )
    found = dict[str, Body]()
    for service, name, made in _deployments(deployment, options):
        found[f"{name}/endpoint.yml"] = _endpoint(deployment, options, service, name)
        found[f"{name}/deployment.yml"] = made
        if deployment.replicas[0] != deployment.replicas[1]:
            found[f"{name}/autoscale.json"] = _autoscale(deployment, options, name, made["name"])
    found |= {f"train-{name}.yml": body for name, body in _trainings(deployment, options)}
    return found


def deployment_names(deployment: Deployment, options: AzureOptions) -> dict[str, tuple[str, str]]:
    """Return the names of each endpoint and its deployment there, by the endpoint's own name."""
    return {service.endpoint: (name, made["name"]) for service, name, made in _deployments(deployment, options)}


def group_of(options: AzureOptions) -> str:
    """Return the resource id of the workspace's resource group."""
    return f"/subscriptions/{options.subscription}/resourceGroups/{options.resource_group}"


def _deployments(deployment: Deployment, options: AzureOptions) -> Iterator[tuple[Service, str, Body]]:
    image = image_by_digest(deployment.image, "image")
    names = cloud_names(deployment.project, [each.endpoint for each in deployment.services], _LONGEST, _PLACE)
    machine = machine_for("azure", deployment, options.machine, FAMILIES)
    for service in deployment.services:
        name = names[service.endpoint]
        yield service, name, _deployment(deployment, service, name, image, machine)


def _identity(deployment: Deployment, options: AzureOptions) -> str:
    """Return the resource id of the identity of the containers; empty if each endpoint has its own."""
    if not options.terraform:
        return options.identity
    name = f"{object_name(deployment.project, deployment.target)}-containers"
    return f"{group_of(options)}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"


def _tags(deployment: Deployment, service: Service | None = None) -> Mapping[str, str]:
    found = {"managed-by": "mainspring", "project": deployment.project, "target": deployment.target}
    if service is not None:
        found |= {"endpoint": service.endpoint, "version": service.version, "bundle": service.bundle}
    return found


def _endpoint(deployment: Deployment, options: AzureOptions, service: Service, name: str) -> Body:
    tags = _tags(deployment, service)
    named = _identity(deployment, options)
    identity = {"type": "system_assigned"} if not named else {
        "type": "user_assigned", "user_assigned_identities": [{"resource_id": named}]
    }  # fmt: skip
    return {
        "$schema": f"{_SCHEMAS}/managedOnlineEndpoint.schema.json",
        "name": name,
        "auth_mode": options.auth,
        "public_network_access": "disabled" if options.access == "private" else "enabled",
        "identity": identity,
        "tags": {each: value for each, value in tags.items() if each not in ("version", "bundle")},
    }


def _deployment(deployment: Deployment, service: Service, name: str, image: str, machine: Machine) -> Body:
    """Return the deployment of a version. Its name follows from its content: another version is another deployment."""
    port = deployment.port
    found: Body = {
        "$schema": f"{_SCHEMAS}/managedOnlineDeployment.schema.json",
        "endpoint_name": name,
        "environment": {
            "image": image,
            "inference_config": {
                "liveness_route": {"port": port, "path": PING},
                "readiness_route": {"port": port, "path": PING},
                "scoring_route": {"port": port, "path": INVOCATIONS},
            },
        },
        "environment_variables": dict(hosted_variables(deployment, service, AZUREML)),
        "instance_type": machine.name,
        "instance_count": deployment.replicas[0],
        "request_settings": {
            "request_timeout_ms": max(1000, round(service.deadline_ms) + 1000 * _DRAIN_S),
            "max_concurrent_requests_per_instance": 100,
        },
        "liveness_probe": {"initial_delay": 60, "period": 10, "timeout": 5, "failure_threshold": 30},
        "readiness_probe": {"initial_delay": 10, "period": 5, "timeout": 5, "failure_threshold": 30},
        "app_insights_enabled": False,
        "tags": dict(_tags(deployment, service)),
    }
    return {"name": f"v{service.version.rpartition(':')[2]}-{short_digest(found)}", **found}


def _autoscale(deployment: Deployment, options: AzureOptions, name: str, made: str) -> Body:
    """Return a setting of Azure Monitor: one more instance above the target, one less well below it."""
    least, most = deployment.replicas
    scaled = (
        f"{group_of(options)}/providers/Microsoft.MachineLearningServices/workspaces/{options.workspace}/"
        f"onlineEndpoints/{name}/deployments/{made}"
    )

    def rule(operator: str, percent: int, direction: str) -> Body:
        return {
            "metricTrigger": {
                "metricName": "CpuUtilizationPercentage",
                "metricResourceUri": scaled,
                "timeGrain": "PT1M",
                "statistic": "Average",
                "timeWindow": "PT5M",
                "timeAggregation": "Average",
                "operator": operator,
                "threshold": percent,
            },
            "scaleAction": {"direction": direction, "type": "ChangeCount", "value": "1", "cooldown": "PT5M"},
        }

    capacity = {"minimum": str(least), "maximum": str(most), "default": str(least)}
    rules = [
        rule("GreaterThan", options.cpu_target, "Increase"),
        rule("LessThan", options.cpu_target // 2, "Decrease"),
    ]
    return {
        "location": deployment.region,
        "tags": dict(_tags(deployment)),
        "properties": {
            "name": f"{name}-{made}",
            "enabled": True,
            "targetResourceUri": scaled,
            "profiles": [{"name": "cores", "capacity": capacity, "rules": rules}],
        },
    }


def _trainings(deployment: Deployment, options: AzureOptions) -> Iterator[tuple[str, Body]]:
    """Yield the name and the document of each training's command job."""
    if not options.trainings:
        return
    if not options.training_command:
        raise Invalid("Azure ML runs a command in a shell of the image.", fix="write training_command.")
    image = image_by_digest(options.training_image, "training_image")
    for model, name in cloud_names(deployment.project, options.trainings, _LONGEST, _PLACE).items():
        place = (
            {"compute": f"azureml:{options.compute}", "resources": {"instance_count": 1}}
            if options.compute
            else {"resources": {"instance_type": options.training_machine, "instance_count": 1}}
        )
        spare = {"queue_settings": {"job_tier": "spot"}} if options.spot and not options.compute else {}
        words = ["train", model, "--project", options.project_folder, "--profile", deployment.profile]
        yield (
            name,
            {
                "$schema": f"{_SCHEMAS}/commandJob.schema.json",
                "type": "command",
                "display_name": f"{name}-training",
                "experiment_name": deployment.project,
                "command": shlex.join([*options.training_command, *words]),
                "environment": {"image": image},
                "environment_variables": dict(sorted(deployment.env.items())),
                "identity": {"type": "managed"},
                "limits": {"timeout": 3600 * options.training_hours},
                "tags": dict(_tags(deployment)),
                **place,
                **spare,
            },
        )
