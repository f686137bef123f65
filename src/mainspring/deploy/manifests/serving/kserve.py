"""Objects of KServe: our gateway as a serving runtime, and an inference service for each endpoint.

Sources of names: https://kserve.github.io/website/docs/reference/crd-api. Clients speak protocol v2, the Open Inference
Protocol, at the host that KServe gives a service.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mainspring.deploy.manifests.kinds import Object, made_of, object_name
from mainspring.deploy.manifests.quantities import cores
from mainspring.deploy.manifests.serving.gateways import GATEWAY, template
from mainspring.deploy.manifests.serving.networks import closed, egress
from mainspring.deploy.manifests.serving.objects import Around
from mainspring.deploy.manifests.serving.options import ClusterOptions, Placed
from mainspring.deploy.manifests.serving.watching import dashboards, monitor, rule, scraped
from mainspring.deploy.targets.model import Deployment, Needs, Service

FORMAT = "mainspring"  # of models, by which a runtime is chosen
_CONTAINER = "kserve-container"  # the name that KServe demands
_MODE = "serving.kserve.io/deploymentMode"
_OF_CONTAINER = ("containers", "volumes")  # of a pod, in the runtime; the rest is in the service
# Knative refuses the first, whose time is its own `timeoutSeconds`, and spreads pods itself:
# https://github.com/knative/serving/blob/main/pkg/apis/serving/fieldmask.go
_NOT_OF_KNATIVE = ("terminationGracePeriodSeconds", "topologySpreadConstraints")


class KserveOptions(ClusterOptions, frozen=True, kw_only=True):
    """Options of the kind `kserve`.

    Attributes:
        mode: Pods by Deployments, or by Knative, which can have none while nobody calls.
        domain: Of the hosts that KServe gives services.
        clients: Namespaces from which requests come: of the mesh, of Knative, of callers.
        canary_percent: Share of requests that the newest revision of pods gets; 100: all.
        concurrent: Requests at once for each pod, by which Knative scales.
        busy: Share of a pod's processors by which Deployments scale.
    """

    mode: Literal["RawDeployment", "Serverless"] = "RawDeployment"
    domain: str = "example.com"
    clients: list[str] = msgspec.field(default_factory=lambda: ["istio-system", "knative-serving", "kserve"])
    canary_percent: int = 100
    concurrent: int = 8
    busy: float = 0.7

    def __post_init__(self) -> None:
        ClusterOptions.__post_init__(self)
        if not 0 <= self.canary_percent <= 100:
            raise ValueError(f"canary_percent is {self.canary_percent}: write a number from 0 to 100")
        if self.canary_percent < 100 and self.mode != "Serverless":
            raise ValueError('canary_percent is set, and KServe splits requests with mode = "Serverless" alone')
        if not 0 < self.busy <= 1:
            raise ValueError(f"busy is {self.busy}: write a share from 0 to 1")
        if self.concurrent < 1:
            raise ValueError(f"concurrent is {self.concurrent}: write a number from 1")


def objects(deployment: Deployment, options: KserveOptions, around: Around) -> list[tuple[Object, Needs | None]]:
    """Return the objects, with the resources of those that have pods.

    Raises:
        Invalid: A cluster cannot have the deployment.
    """
    placed = Placed(deployment, options, around.drain_s, around.hosts)
    least, most = deployment.replicas
    if least == 0 and options.mode != "Serverless":
        least = 1  # a Deployment's autoscaler has no metric of pods that are not there
    names = {
        each.endpoint: object_name(deployment.project, deployment.target, each.endpoint) for each in deployment.services
    }
    hosts = [host for name in names.values() for host in _hosts(name, options)]
    pod = template(placed, hosts)["spec"]
    needs = Needs(count=least, most=most, cpu=deployment.cpu, memory=deployment.memory, gpus=deployment.gpus)
    account = made_of(
        "ServiceAccount", f"{placed.name}-{GATEWAY}", options.namespace, placed.labels(GATEWAY),
        automountServiceAccountToken=False,
    )  # fmt: skip
    spaces = [*options.clients, *([options.monitoring] if options.monitoring else [])]
    policies = closed(placed, GATEWAY, spaces, egress([*around.addresses, *options.egress]))
    services = [
        (_service(placed, options, each, names[each.endpoint], pod, (least, most)), needs)
        for each in deployment.services
    ]
    plain = [account, *policies, _runtime(placed, options, pod), *_watched(placed, around)]
    return [*((each, None) for each in plain), *services]


def _watched(placed: Placed, around: Around) -> list[Object]:
    """Return what the Prometheus operator and Grafana read. Pods are scraped: KServe makes services as it likes."""
    if not placed.options.monitoring:
        return []
    pods = monitor(placed, "PodMonitor", [scraped(placed, portNumber=placed.deployment.port)])
    return [pods, rule(placed, around.rules()), *dashboards(placed, around.dashboard())]


def _hosts(name: str, options: KserveOptions) -> list[str]:
    space = options.namespace
    found = []
    for each in (name, f"{name}-predictor"):
        found += [f"{each}-{space}.{options.domain}", f"{each}.{space}.{options.domain}"]
        found += [f"{each}.{space}", f"{each}.{space}.svc", f"{each}.{space}.svc.cluster.local"]
    return found


def _runtime(placed: Placed, options: KserveOptions, pod: Object) -> Object:
    [container] = pod["containers"]
    container = {name: value for name, value in container.items() if name != "lifecycle"}
    ports = [{"containerPort": placed.deployment.port, "protocol": "TCP"}]  # Knative takes one, without our name
    probes = {name: _by_number(container[name], placed.deployment.port) for name in container if name.endswith("Probe")}
    if options.mode == "Serverless":
        probes.pop("startupProbe", None)  # which Knative refuses without a readiness probe of its own kind
    kept = {name: value for name, value in container.items() if not name.endswith("Probe")}
    spec = {
        "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": True}],
        "protocolVersions": ["v2"],
        "multiModel": False,
        "containers": [{**kept, "name": _CONTAINER, "ports": ports, **probes}],
        "volumes": pod["volumes"],
    }
    return made_of("ServingRuntime", placed.name, options.namespace, placed.labels(GATEWAY), spec=spec)


def _by_number(probe: Object, port: int) -> Object:
    return {**probe, "httpGet": {**probe["httpGet"], "port": port}}


def _service(
    placed: Placed, options: KserveOptions, service: Service, name: str, pod: Object, replicas: tuple[int, int]
) -> Object:
    model = {
        "modelFormat": {"name": FORMAT, "version": "1"},
        "runtime": placed.name,
        "protocolVersion": "v2",
    }
    scale: dict[str, Any] = {"scaleMetric": "cpu", "scaleTarget": round(100 * options.busy)}
    if options.mode == "Serverless":
        scale = {"scaleMetric": "concurrency", "scaleTarget": options.concurrent}
    left_out = (*_OF_CONTAINER, *(_NOT_OF_KNATIVE if options.mode == "Serverless" else ()))
    around = {each: value for each, value in pod.items() if each not in left_out}
    predictor = {
        **around,
        "labels": placed.labels(GATEWAY),
        "minReplicas": replicas[0],
        "maxReplicas": replicas[1],
        **scale,
        **({"canaryTrafficPercent": options.canary_percent} if options.canary_percent < 100 else {}),
        "model": model,
    }
    made = made_of("InferenceService", name, options.namespace, placed.labels(GATEWAY), spec={"predictor": predictor})
    made["metadata"]["annotations"] = {
        _MODE: options.mode,
        "mainspring-endpoint": service.endpoint,
        "mainspring-processors": cores(placed.deployment.cpu),
    }
    return made
