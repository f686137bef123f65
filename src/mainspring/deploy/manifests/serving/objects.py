"""All objects of a deployment, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.serving.gateways import GATEWAY, gateways
from mainspring.deploy.manifests.serving.networks import policies, routes
from mainspring.deploy.manifests.serving.options import COMPONENT, KubernetesOptions, Placed
from mainspring.deploy.manifests.serving.scaling import autoscalers, scaled
from mainspring.deploy.manifests.serving.watching import dashboards, monitor, rule, scraped
from mainspring.deploy.manifests.serving.workers import WORKER, workers
from mainspring.deploy.targets.model import Deployment, Needs


@dataclass(frozen=True, slots=True)
class Around:
    """Facts of the project beside its deployment.

    Attributes:
        addresses: `HOST:PORT` of the servers of the target's profile.
        drain_s: Longest time in which a gateway that ends answers its requests.
        rules: Returns the groups of the project's rules for Prometheus.
        hosts: Names of hosts to which the profile lets both planes answer.
        dashboard: Returns the project's dashboard for Grafana, as JSON.
    """

    addresses: Sequence[str] = ()
    drain_s: int = 10
    rules: Callable[[], list[Any]] = field(default=list)
    hosts: tuple[str, ...] = ()
    dashboard: Callable[[], str] = field(default=str)


def objects(deployment: Deployment, options: KubernetesOptions, around: Around) -> list[Object]:
    """Return the objects.

    Raises:
        Invalid: A cluster cannot have the deployment.
    """
    placed = Placed(deployment, options, around.drain_s, around.hosts)
    return [
        *policies(placed, options, around.addresses),
        *_secret(placed, options),
        *gateways(placed, scaled=scaled(placed, options)),
        *autoscalers(placed, options),
        *(workers(placed, options) if deployment.worker else []),
        *_watched(placed, around),
        *routes(placed, options),
    ]


def needs(deployment: Deployment, made: Object, options: KubernetesOptions) -> Needs | None:
    """Return the resources of an object's pods, `None` if it has none."""
    if made["kind"] != "Deployment":
        return None
    least, most = deployment.replicas
    if made["metadata"]["labels"][COMPONENT] != GATEWAY:
        return Needs(cpu=options.worker_cpu, memory=options.worker_memory_mib << 20)
    return Needs(count=least, most=most, cpu=deployment.cpu, memory=deployment.memory, gpus=deployment.gpus)


def _secret(placed: Placed, options: KubernetesOptions) -> list[Object]:
    """Return the object from which an operator makes the Secret of the variables."""
    if not options.secret_store or not placed.deployment.secrets:
        return []
    data = [
        {"secretKey": each, "remoteRef": {"key": placed.name, "property": each}} for each in placed.deployment.secrets
    ]
    spec = {
        "refreshInterval": "1h",
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": options.secret_store},
        "target": {"name": placed.secret, "creationPolicy": "Owner"},
        "data": data,
    }
    return [made_of("ExternalSecret", placed.secret, options.namespace, placed.labels(), spec=spec)]


def _watched(placed: Placed, around: Around) -> list[Object]:
    """Return what the Prometheus operator and Grafana read."""
    if not placed.options.monitoring:
        return []
    ports = {GATEWAY: "http", **({WORKER: "control"} if placed.deployment.worker else {})}
    endpoints = [scraped(placed, port=port) for port in ports.values()]
    found = [monitor(placed, "ServiceMonitor", endpoints), rule(placed, around.rules())]
    return [*found, *dashboards(placed, around.dashboard())]
