"""Objects of KubeRay: a cluster of Ray for batch runs, trainings and steps, or one run with a cluster of its own.

Sources of names: https://docs.ray.io/en/latest/cluster/kubernetes/references.html and the API group ray.io/v1. There
is no RayService: no endpoint is served by Ray Serve.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import Any

from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.pods import NOT_PRIVILEGED, Pod
from mainspring.deploy.manifests.quantities import cores, mebibytes
from mainspring.deploy.manifests.serving.networks import closed, egress
from mainspring.deploy.manifests.serving.objects import Around
from mainspring.deploy.manifests.serving.options import COMPONENT, ClusterOptions, Placed
from mainspring.deploy.manifests.serving.pods import add_keys, devices, secrets, where
from mainspring.deploy.manifests.serving.watching import monitor, rule
from mainspring.deploy.targets.model import Deployment, Needs

RAY = "ray"
_QUEUE = "kueue.x-k8s.io/queue-name"
_HEAD_CPU, _HEAD_MEMORY = 1.0, 4 << 30
_KEPT_S = 3600  # a finished run, with its cluster
_LEAST_GRACE_S = 60


class KuberayOptions(ClusterOptions, frozen=True, kw_only=True):
    """Options of the kind `kuberay`. The target's replicas, processors, memory and GPUs are those of Ray's workers.

    Attributes:
        ray_version: Version of Ray in the image.
        run: Arguments of `mainspring` for one run, such as `["batch", "run", "nightly"]`; empty: a cluster that stays.
        queue: Local queue of Kueue, which admits the run or the cluster; empty for none.
        clients: Namespaces beside the own one from which pods may use the cluster.
    """

    ray_version: str = "2.40.0"
    run: list[str] = []
    queue: str = ""
    clients: list[str] = []


def objects(deployment: Deployment, options: KuberayOptions, around: Around) -> list[tuple[Object, Needs | None]]:
    """Return the objects, with the resources of those that have pods.

    Raises:
        Invalid: A cluster cannot have the deployment.
    """
    placed = Placed(deployment, options, around.drain_s, around.hosts)
    space, labels = options.namespace, placed.labels(RAY)
    least, most = deployment.replicas
    name = f"{placed.name}-{RAY}"
    account = made_of("ServiceAccount", name, space, labels, automountServiceAccountToken=False)
    spaces = [*options.clients, *([options.monitoring] if options.monitoring else [])]
    policies = closed(placed, RAY, spaces, egress([*around.addresses, *options.egress]), among=True)
    scaled = least != most
    cluster = _cluster(placed, options, scaled=scaled)
    queue = {_QUEUE: options.queue} if options.queue else {}
    workers = Needs(count=least, most=most, cpu=deployment.cpu, memory=deployment.memory, gpus=deployment.gpus)
    if options.run:
        spec = _run(placed, options, cluster)
        # The spec of a run cannot be changed: another run has another name.
        mark = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]
        made = made_of("RayJob", f"{name}-{mark}", space, {**labels, **queue}, spec=spec)
    else:
        made = made_of("RayCluster", name, space, {**labels, **queue}, spec=cluster)
    return [*((each, None) for each in [account, *policies, *_watched(placed)]), (made, workers)]


def _watched(placed: Placed) -> list[Object]:
    """Return what the Prometheus operator reads: Ray's own metrics, and rules of them. No gateway is here."""
    if not placed.options.monitoring:
        return []
    of = f'{{namespace="{placed.options.namespace}"}}'
    alerts = [
        {
            "alert": f"MainspringRay{name}",
            "expr": expression,
            "for": "5m",
            "labels": {"severity": "ticket"},
            "annotations": {"summary": summary},
        }
        for name, expression, summary in (
            ("NodeFailed", f"ray_cluster_failed_nodes{of} > 0", "A pod of Ray failed and did not come back"),
            (
                "Memory",
                f"ray_node_mem_used{of} / ray_node_mem_total{of} > 0.95",
                "A pod of Ray has little memory left: its runs will be ended",
            ),
        )
    ]
    metrics = {"port": "metrics", "interval": "15s"}  # a port that KubeRay adds
    return [monitor(placed, "PodMonitor", [metrics]), rule(placed, [{"name": "mainspring_ray", "rules": alerts}])]


def _run(placed: Placed, options: KuberayOptions, cluster: Object) -> Object:
    words = ["python3", "-m", "mainspring", *options.run, *where(placed)]
    return {
        "entrypoint": shlex.join(words),
        "rayClusterSpec": cluster,
        "submissionMode": "HTTPMode",  # without a pod that only submits
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _KEPT_S,
        "backoffLimit": 0,
    }


def _cluster(placed: Placed, options: KuberayOptions, *, scaled: bool) -> Object:
    deployment = placed.deployment
    least, most = deployment.replicas
    found: Object = {
        "rayVersion": options.ray_version,
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # noqa: S104  (in the pod's network)
            "template": _template(placed, "head", _HEAD_CPU, _HEAD_MEMORY, token=scaled),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": least,
                "minReplicas": least,
                "maxReplicas": most,
                "rayStartParams": {},
                "template": _template(placed, "worker", deployment.cpu, deployment.memory, gpus=deployment.gpus),
            }
        ],
    }
    if scaled:
        del found["workerGroupSpecs"][0]["replicas"]  # the autoscaler's
        limits = {"cpu": "500m", "memory": "512Mi"}
        found["enableInTreeAutoscaling"] = True
        found["autoscalerOptions"] = {
            "upscalingMode": "Default",
            "idleTimeoutSeconds": 60,
            "resources": {"requests": limits, "limits": limits},
            "securityContext": {**NOT_PRIVILEGED, "readOnlyRootFilesystem": True, "runAsNonRoot": True},
        }
    return found


def _template(placed: Placed, part: str, cpu: float, memory: int, *, gpus: int = 0, token: bool = False) -> Object:
    """Return the template of a pod, whose command is KubeRay's.

    Args:
        token: Whether it asks the cluster's API, as the autoscaler beside the head does, under an account of KubeRay's.
    """
    options = placed.options
    account: dict[str, Any] = {} if token else {"serviceAccountName": f"{placed.name}-{RAY}"}
    spec = Pod(
        container=f"ray-{part}",
        image=placed.deployment.image,
        command=[],
        folder=options.project_folder,
        env=placed.deployment.env,
        memory=mebibytes(memory),
        cpu=cores(cpu),
        gpus=gpus,
        gpu_resource=options.gpu_resource,
        grace_s=_LEAST_GRACE_S,
        spread=placed.selector(RAY),
        variables=secrets(placed),
        around={**account, "automountServiceAccountToken": token, **devices(options, gpus)},
    ).spec()
    del spec["containers"][0]["command"]
    add_keys(spec, placed)
    return {"metadata": {"labels": {**placed.labels(RAY), COMPONENT: RAY}}, "spec": spec}
