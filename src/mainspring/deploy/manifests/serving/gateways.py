"""The gateway: its pods, their service, and the budget of those that may be away."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.serving import pods
from mainspring.deploy.manifests.serving.options import KubernetesOptions, Placed
from mainspring.deploy.manifests.serving.pods import probe

GATEWAY = "gateway"
LIVE, READY = "/v2/health/live", "/v2/health/ready"
# A pod that ends is taken out of the service while it still answers; only then it stops to accept connections.
LEAVE_S = 5
_AFTER_S = 30  # beyond the time to drain: the last rows of the prediction log are moved


def gateways(placed: Placed, *, scaled: bool) -> list[Object]:
    """Return the gateway's objects.

    Args:
        scaled: Whether an autoscaler says how many pods there are.
    """
    options = placed.options
    name, space = f"{placed.name}-{GATEWAY}", options.namespace
    labels, selector = placed.labels(GATEWAY), placed.selector(GATEWAY)
    deployment = placed.deployment
    spec = {
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "minReadySeconds": 5,
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 3,
        "template": template(placed, options.hosts if isinstance(options, KubernetesOptions) else []),
        **({} if scaled else {"replicas": deployment.replicas[0]}),
    }
    return [
        made_of("ServiceAccount", name, space, labels, automountServiceAccountToken=False),
        made_of(
            "Service",
            name,
            space,
            labels,
            spec={
                "type": "ClusterIP",
                "selector": selector,
                "ports": [{"name": "http", "port": deployment.port, "targetPort": "http", "protocol": "TCP"}],
            },
        ),
        made_of("Deployment", name, space, labels, spec=spec),
        made_of(
            "PodDisruptionBudget",
            name,
            space,
            labels,
            spec={
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        ),
    ]


def _listening(placed: Placed, outside: Sequence[str]) -> dict[str, str]:
    """Return the variables by which a gateway listens on its pod's address and answers to its service's names."""
    deployment = placed.deployment
    service = f"{placed.name}-{GATEWAY}"
    space = f"{service}.{placed.options.namespace}"
    hosts = ["$(POD_IP)", service, space, f"{space}.svc", f"{space}.svc.cluster.local", *outside, *placed.hosts]
    workers = str(max(1, int(deployment.cpu)))  # a pod without a limit of processors counts those of its node
    return {
        "MAINSPRING_GATEWAY": f"0.0.0.0:{deployment.port}",
        "MAINSPRING_GATEWAY_WORKERS": deployment.env.get("MAINSPRING_GATEWAY_WORKERS", workers),
        "MAINSPRING_ALLOWED_HOSTS": ",".join(dict.fromkeys(hosts)),
    }


def template(placed: Placed, outside: Sequence[str]) -> Object:
    """Return the template of the gateway's pods.

    Args:
        outside: Names of hosts to which it answers beside those of its service.
    """
    deployment = placed.deployment
    return pods.template(
        placed,
        GATEWAY,
        [GATEWAY, "log"],
        env=_listening(placed, outside),
        cpu=deployment.cpu,
        memory=deployment.memory,
        gpus=deployment.gpus,
        grace_s=LEAVE_S + placed.drain_s + _AFTER_S,
        further={
            "ports": [{"name": "http", "containerPort": deployment.port, "protocol": "TCP"}],
            "startupProbe": probe(LIVE, "http", periodSeconds=2, failureThreshold=90),
            "readinessProbe": probe(READY, "http", periodSeconds=2, timeoutSeconds=2, failureThreshold=2),
            "livenessProbe": probe(LIVE, "http", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
            "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", f"import time; time.sleep({LEAVE_S})"]}}},
        },
    )
