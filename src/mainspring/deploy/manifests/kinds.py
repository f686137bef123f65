"""Kinds of objects that are made in a cluster, with their places in its API; and names that objects can have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

_LONGEST = 40  # of a name: others are made of it, and a label has 63 characters
_HASH = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects.

    Attributes:
        group: Of its API; empty for the core.
        plural: Its name in paths and rights.
        comes_with: Product that brings the kind; empty where every cluster has it.
    """

    group: str
    version: str
    plural: str
    comes_with: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def api_path(self) -> str:
        """Path of the API's version, which lists its kinds."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str, name: str = "") -> str:
        """Path of an object, or without a name of all in the namespace."""
        return f"{self.api_path}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


KINDS: Mapping[str, Kind] = {
    "ServiceAccount": Kind("", "v1", "serviceaccounts"),
    "Service": Kind("", "v1", "services"),
    "ConfigMap": Kind("", "v1", "configmaps"),
    "Role": Kind("rbac.authorization.k8s.io", "v1", "roles"),
    "RoleBinding": Kind("rbac.authorization.k8s.io", "v1", "rolebindings"),
    "Deployment": Kind("apps", "v1", "deployments"),
    "PodDisruptionBudget": Kind("policy", "v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": Kind("autoscaling", "v2", "horizontalpodautoscalers"),
    "NetworkPolicy": Kind("networking.k8s.io", "v1", "networkpolicies"),
    "HTTPRoute": Kind("gateway.networking.k8s.io", "v1", "httproutes", "the Gateway API"),
    "ScaledObject": Kind("keda.sh", "v1alpha1", "scaledobjects", "KEDA"),
    "ServiceMonitor": Kind("monitoring.coreos.com", "v1", "servicemonitors", "the Prometheus operator"),
    "PodMonitor": Kind("monitoring.coreos.com", "v1", "podmonitors", "the Prometheus operator"),
    "PrometheusRule": Kind("monitoring.coreos.com", "v1", "prometheusrules", "the Prometheus operator"),
    "ExternalSecret": Kind("external-secrets.io", "v1", "externalsecrets", "the External Secrets operator"),
    "ServingRuntime": Kind("serving.kserve.io", "v1alpha1", "servingruntimes", "KServe"),
    "InferenceService": Kind("serving.kserve.io", "v1beta1", "inferenceservices", "KServe"),
    "RayCluster": Kind("ray.io", "v1", "rayclusters", "KubeRay"),
    "RayJob": Kind("ray.io", "v1", "rayjobs", "KubeRay"),
}


def made_of(kind: str, name: str, namespace: str, labels: Mapping[str, str], **fields: Any) -> Object:
    """Return an object of one of `KINDS`."""
    return {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        **fields,
    }


def object_name(*parts: str) -> str:
    """Return the name of an object for something of the project: small letters, digits and -, at most 40 characters.

    Two names that differ have objects of different names: a name that is not kept as it is gets a part of its hash.
    """
    given = "-".join(parts)
    plain = re.sub("[^a-z0-9]+", "-", given.lower()).strip("-")
    if plain == given and len(plain) <= _LONGEST and plain[:1].isalpha():
        return plain
    begun = plain if plain[:1].isalpha() else f"m-{plain}"
    mark = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH]
    return f"{begun[: _LONGEST - _HASH - 1].rstrip('-')}-{mark}"
