"""Autoscalers of the gateway: by processors, or by the time that models compute and requests wait."""

from __future__ import annotations

from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.serving.gateways import GATEWAY
from mainspring.deploy.manifests.serving.options import KubernetesOptions, Placed

BUSY = "mainspring_busy_processors"  # name of the metric that prometheus-adapter has to offer
_STEADY_S = 300  # before there are fewer gateways
_QUEUE_SHARE = 0.25  # of the shortest deadline, spent waiting
_NEVER = 1_000_000_000  # threshold of a trigger that only starts the first gateway
_BEHAVIOUR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 30}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": _STEADY_S,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    },
}


def scaled(placed: Placed, options: KubernetesOptions) -> bool:
    """Return whether an autoscaler says how many gateways there are.

    Raises:
        Invalid: It would have to start the first one, and has nothing to know when.
    """
    least, most = placed.deployment.replicas
    if least == 0 and not options.wake:
        raise Invalid(
            f"Target {placed.deployment.target!r} has no gateway while nobody calls, and then nothing of ours measures "
            "that somebody does.",
            fix='write replicas = [1, N]; or autoscaling = "keda" and as wake a query for the requests that reach '
            'the cluster\'s own gateway; or kind = "kserve" with mode = "Serverless".',
        )
    return least != most and options.autoscaling != "none"


def autoscalers(placed: Placed, options: KubernetesOptions) -> list[Object]:
    """Return the autoscaler, if the target has one."""
    if not scaled(placed, options):
        return []
    kind = "ScaledObject" if options.autoscaling == "keda" else "HorizontalPodAutoscaler"
    spec = _keda(placed, options) if kind == "ScaledObject" else _horizontal(placed, options)
    return [made_of(kind, f"{placed.name}-{GATEWAY}", options.namespace, placed.labels(GATEWAY), spec=spec)]


def _horizontal(placed: Placed, options: KubernetesOptions) -> Object:
    least, most = placed.deployment.replicas
    metric: dict[str, Any] = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": round(100 * options.busy)}},
    }
    if options.autoscaling == "prometheus":
        target = {"type": "AverageValue", "averageValue": f"{round(1000 * options.busy * placed.deployment.cpu)}m"}
        metric = {"type": "Pods", "pods": {"metric": {"name": BUSY}, "target": target}}
    return {
        "scaleTargetRef": _scaled(placed),
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": [metric],
        "behavior": _BEHAVIOUR,
    }


def _keda(placed: Placed, options: KubernetesOptions) -> Object:
    least, most = placed.deployment.replicas
    deadline_ms = min(each.deadline_ms for each in placed.deployment.services)
    chosen = f'namespace="{options.namespace}",service="{placed.name}-{GATEWAY}"'
    queue = f'{{stage="queue",{chosen}}}[1m]'
    waited = (
        f"1000 * sum(rate(mainspring_stage_seconds_sum{queue})) / "
        f"clamp_min(sum(rate(mainspring_stage_seconds_count{queue})), 0.001)"
    )
    computed = f'sum(rate(mainspring_stage_seconds_sum{{stage="compute",{chosen}}}[1m]))'
    return {
        "scaleTargetRef": _scaled(placed),
        "minReplicaCount": least,
        "maxReplicaCount": most,
        "pollingInterval": 15,
        "cooldownPeriod": _STEADY_S,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _BEHAVIOUR}},
        "triggers": [
            _trigger("busy", options, computed, options.busy * placed.deployment.cpu, "AverageValue"),
            _trigger("queue-delay", options, waited, _QUEUE_SHARE * deadline_ms, "Value"),
            *([_trigger("wake", options, options.wake, _NEVER, "AverageValue")] if options.wake else []),
        ],
    }


def _trigger(name: str, options: KubernetesOptions, query: str, threshold: float, kind: str) -> Object:
    """Return a trigger: above 0 it keeps one gateway up, above `threshold` there are more."""
    given = {
        "serverAddress": options.prometheus,
        "query": query,
        "threshold": f"{threshold:.12g}",
        "activationThreshold": "0",
    }
    return {"type": "prometheus", "name": name, "metricType": kind, "metadata": given}


def _scaled(placed: Placed) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{placed.name}-{GATEWAY}"}
