"""The worker and the console: one pod, and the rights that its steps need."""

from __future__ import annotations

from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.serving.options import KubernetesOptions, Placed
from mainspring.deploy.manifests.serving.pods import probe, template

WORKER = "worker"
CONTROL_PORT = 8081
_GRACE_S = 90
# The requests of `deploy/adapters/kubernetes.py` to the API, and nothing else.
_RULES = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "delete", "get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]


def workers(placed: Placed, options: KubernetesOptions) -> list[Object]:
    """Return the worker's objects: never two pods at once, so that each duty has one place."""
    name, space, labels = f"{placed.name}-{WORKER}", options.namespace, placed.labels(WORKER)
    selector = placed.selector(WORKER)
    pod = template(
        placed,
        WORKER,
        ["control", WORKER],
        env=_listening(placed, options),
        cpu=options.worker_cpu,
        memory=options.worker_memory_mib << 20,
        grace_s=_GRACE_S,
        claim=options.claim,
        token=options.steps,
        further={
            "ports": [{"name": "control", "containerPort": CONTROL_PORT, "protocol": "TCP"}],
            "startupProbe": probe("/health/live", "control", periodSeconds=2, failureThreshold=90),
            "readinessProbe": probe("/health/live", "control", periodSeconds=5, timeoutSeconds=3),
            "livenessProbe": probe("/health/live", "control", periodSeconds=20, timeoutSeconds=10, failureThreshold=3),
        },
    )
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 3,
        "template": pod,
    }
    ports = [{"name": "control", "port": CONTROL_PORT, "targetPort": "control", "protocol": "TCP"}]
    service = {"type": "ClusterIP", "selector": selector, "ports": ports}
    return [
        made_of("ServiceAccount", name, space, labels, automountServiceAccountToken=False),
        *(_rights(name, space, labels) if options.steps else []),
        made_of("Service", name, space, labels, spec=service),
        made_of("Deployment", name, space, labels, spec=spec),
    ]


def _rights(name: str, space: str, labels: dict[str, str]) -> list[Object]:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": space}
    return [
        made_of("Role", name, space, labels, rules=_RULES),
        made_of("RoleBinding", name, space, labels, roleRef=role, subjects=[subject]),
    ]


def _listening(placed: Placed, options: KubernetesOptions) -> dict[str, str]:
    service = f"{placed.name}-{WORKER}.{options.namespace}"
    hosts = ["$(POD_IP)", f"{placed.name}-{WORKER}", service, f"{service}.svc", f"{service}.svc.cluster.local"]
    return {
        "MAINSPRING_CONTROL": f"0.0.0.0:{CONTROL_PORT}",
        "MAINSPRING_ALLOWED_HOSTS": ",".join(dict.fromkeys([*hosts, *placed.hosts])),
    }
