"""Options of targets in a cluster, and a deployment with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.deploy.manifests.kinds import object_name
from mainspring.deploy.manifests.pods import GPU
from mainspring.deploy.targets.model import Deployment

INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"
MANAGED = "app.kubernetes.io/managed-by"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:./]+\]|[^\s:/]+(/\d{1,2})?):\d{1,5}")


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of all kinds that make objects of Kubernetes.

    Attributes:
        namespace: Where the objects are.
        config: Kubeconfig; not used in a pod of the cluster itself.
        project_folder: Folder of the project in the image.
        secret: Secret with an entry for each of the target's `secrets`; by default NAME-environment.
        keys: Secret with the files of `.mainspring/keys`; by default NAME-keys.
        gpu_resource: Name of GPUs at the nodes, such as `nvidia.com/mig-1g.10gb` for a slice.
        node_selector: Labels of nodes that pods may run on.
        egress: Addresses that pods may reach, `HOST:PORT`: a network (`10.0.0.0/8:5432`), a service of the cluster
            (`db.data.svc:5432`), or any other name, for which the port alone is opened.
        monitoring: Namespace of Prometheus, which then scrapes; empty: it does not.
        scrape_key: Secret whose entry `key` is a key with the scope `scrape`.
    """

    namespace: str = "default"
    config: str = "~/.kube/config"
    project_folder: str = "/project"
    secret: str = ""
    keys: str = ""
    gpu_resource: str = GPU
    node_selector: dict[str, str] = {}
    egress: list[str] = []
    monitoring: str = ""
    scrape_key: str = "mainspring-scrape"

    def __post_init__(self) -> None:
        for name in ("namespace", "secret", "keys", "monitoring"):
            value = getattr(self, name)
            if (value or name == "namespace") and not _LABEL.fullmatch(value):
                raise ValueError(f"{name} is {value!r}: write small letters, digits and -, at most 63")
        if not _RESOURCE.fullmatch(self.gpu_resource):
            raise ValueError(f"gpu_resource is {self.gpu_resource!r}: write such as {GPU}")
        if not self.project_folder.startswith("/"):
            raise ValueError(f"project_folder is {self.project_folder!r}: write an absolute path")
        for each in self.egress:
            if not _ADDRESS.fullmatch(each):
                raise ValueError(f"egress has {each!r}: write HOST:PORT or NETWORK/BITS:PORT")


class KubernetesOptions(ClusterOptions, frozen=True, kw_only=True):
    """Options of the kinds `kubernetes` and `helm`.

    Attributes:
        hosts: Names under which callers reach the gateway from outside; with `gateway` an HTTPRoute has them.
        gateway: Gateway of the Gateway API that has the certificates, `NAMESPACE/NAME` or `NAMESPACE/NAME/LISTENER`.
        clients: Namespaces beside the own one whose pods may call the gateway.
        autoscaling: Between the least and most replicas: by processors, by KEDA, by metrics of prometheus-adapter.
        prometheus: Address that KEDA asks.
        wake: Query of Prometheus that is above 0 while somebody calls, though no gateway is there: such as the rate of
            the Gateway's requests. With it and KEDA the least replicas may be 0.
        busy: Share of a gateway's processors that is busy with predictions, above which there are more gateways.
        claim: PersistentVolumeClaim of the worker's state folder; empty: it ends with the pod.
        worker_cpu, worker_memory_mib: Of the worker's pod, with the console, and with jobs and trainings in it.
        steps: Whether the worker runs steps of pipelines as Jobs, for which it gets rights.
        secret_store: ClusterSecretStore from which the External Secrets operator makes `secret`.
    """

    hosts: list[str] = []
    gateway: str = ""
    clients: list[str] = []
    autoscaling: Literal["cpu", "keda", "prometheus", "none"] = "cpu"
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"
    wake: str = ""
    busy: float = 0.7
    claim: str = ""
    worker_cpu: float = 0.5
    worker_memory_mib: int = 2048
    steps: bool = False
    secret_store: str = ""

    def __post_init__(self) -> None:
        ClusterOptions.__post_init__(self)
        if self.gateway and not 2 <= len(self.gateway.split("/")) <= 3:
            raise ValueError(f"gateway is {self.gateway!r}: write NAMESPACE/NAME or NAMESPACE/NAME/LISTENER")
        if self.worker_cpu <= 0 or self.worker_memory_mib < 256:
            raise ValueError("worker_cpu has to be above 0, and worker_memory_mib at least 256")
        if self.wake and self.autoscaling != "keda":
            raise ValueError('wake is set without autoscaling = "keda", which alone starts the first gateway')
        if not self.wake.isprintable():
            raise ValueError(f"wake is {self.wake!r}: write the query in one line")
        if self.gateway and not self.hosts:
            raise ValueError("gateway is set without hosts: name those under which callers come")
        if not 0 < self.busy <= 1:
            raise ValueError(f"busy is {self.busy}: write a share from 0 to 1")


@dataclass(frozen=True)
class Placed:
    """A deployment in a cluster.

    Args:
        drain_s: Longest time in which a gateway that ends answers its requests.
        hosts: Names of hosts to which the profile lets both planes answer.

    Raises:
        Invalid: Its image is not named by digest, or a name is no id.
    """

    deployment: Deployment
    options: ClusterOptions
    drain_s: int = 10
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for service in self.deployment.services:
            check_id(service.endpoint, "endpoint")
        if not _DIGEST.fullmatch(self.deployment.image):
            raise Invalid(
                f"The image of target {self.deployment.target!r} is {self.deployment.image!r}, not named by digest.",
                fix='write image = "registry.example.org/project@sha256:..." as the registry shows it.',
            )

    @cached_property
    def name(self) -> str:
        """Beginning of the names of all objects."""
        return object_name(self.deployment.project, self.deployment.target)

    @property
    def secret(self) -> str:
        return self.options.secret or f"{self.name}-environment"

    @property
    def keys(self) -> str:
        return self.options.keys or f"{self.name}-keys"

    def selector(self, component: str = "") -> dict[str, str]:
        """Labels by which pods are selected: of one component, or of all."""
        return {INSTANCE: self.name, **({COMPONENT: component} if component else {})}

    def labels(self, component: str = "") -> dict[str, str]:
        """Labels of objects."""
        return {"app.kubernetes.io/name": "mainspring", MANAGED: "mainspring", **self.selector(component)}
