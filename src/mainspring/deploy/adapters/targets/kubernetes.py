"""Kinds of targets in a Kubernetes cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mainspring.deploy.adapters.targets.cluster import ClusterTarget, Render
from mainspring.deploy.engines.kubernetes_api import Api, configured, in_cluster
from mainspring.deploy.manifests.serving import kserve, ray_clusters
from mainspring.deploy.manifests.serving.kserve import KserveOptions
from mainspring.deploy.manifests.serving.objects import Around, needs, objects
from mainspring.deploy.manifests.serving.options import ClusterOptions, KubernetesOptions
from mainspring.deploy.manifests.serving.ray_clusters import KuberayOptions

_RIGHTS = (
    "let the account get, create, patch and delete what the target makes; `mainspring deploy TARGET --dry-run` lists "
    "what is missing."
)


def serving_target(options: KubernetesOptions, around: Around) -> ClusterTarget:
    """Return the kind `kubernetes`: the gateway and the worker as Deployments."""
    return cluster_target(
        options,
        lambda deployment: [(made, needs(deployment, made, options)) for made in objects(deployment, options, around)],
    )


def kserve_target(options: KserveOptions, around: Around) -> ClusterTarget:
    """Return the kind `kserve`: each endpoint as an inference service."""
    return cluster_target(options, lambda deployment: kserve.objects(deployment, options, around))


def kuberay_target(options: KuberayOptions, around: Around) -> ClusterTarget:
    """Return the kind `kuberay`: a cluster of Ray, or one run on a cluster of its own."""
    return cluster_target(options, lambda deployment: ray_clusters.objects(deployment, options, around))


def cluster_target(options: ClusterOptions, render: Render) -> ClusterTarget:
    """Return a target that makes objects in the namespace of its options."""

    def connect() -> Api:
        return replace(in_cluster() or configured(Path(options.config).expanduser()), rights=_RIGHTS)

    return ClusterTarget(options.namespace, render, connect)
