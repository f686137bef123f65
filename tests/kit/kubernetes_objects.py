"""Schemas of the objects of Kubernetes that trainings are rendered as: the fields that they may have, and no other.

Parts of batch/v1, core/v1 and networking.k8s.io/v1, jobset.x-k8s.io/v1alpha2, trainer.kubeflow.org/v1alpha1 and
kubeflow.org/v1, with what their definitions demand of values.
"""

from __future__ import annotations

from typing import Any

_NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_TEXT: dict[str, Any] = {"type": "string"}
_TRUTH = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}


def _object(needed: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": needed.split(), "additionalProperties": False}


def _list(each: Any, least: int = 1) -> dict[str, Any]:
    return {"type": "array", "items": each, "minItems": least}


def _map(value: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": value}


_LABEL = {"type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"}
_METADATA = _object("name namespace", name=_NAME, namespace=_NAME, labels=_map(_LABEL))
_SELECTOR = _object(matchLabels=_map(_LABEL))
_AMOUNTS = _object("memory", cpu=_QUANTITY, memory=_QUANTITY, **{"nvidia.com/gpu": _QUANTITY})
_CONTAINER = _object(
    "name image",
    name=_NAME,
    image=_TEXT,
    command=_list(_TEXT),
    workingDir=_TEXT,
    env=_list(_object("name", name={"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}, value=_TEXT)),
    envFrom=_list(_object(secretRef=_object("name", name=_TEXT))),
    resources=_object(requests=_AMOUNTS, limits=_AMOUNTS),
    securityContext=_object(
        allowPrivilegeEscalation=_TRUTH, readOnlyRootFilesystem=_TRUTH, capabilities=_object(drop=_list(_TEXT))
    ),
    volumeMounts=_list(_object("name mountPath", name=_NAME, mountPath=_TEXT)),
)
_VOLUME = _object(
    "name",
    name=_NAME,
    emptyDir=_object(medium={"enum": ["", "Memory"]}, sizeLimit=_QUANTITY),
    persistentVolumeClaim=_object("claimName", claimName=_TEXT),
)
_POD = _object(
    "containers",
    restartPolicy={"enum": ["Never", "OnFailure"]},
    automountServiceAccountToken=_TRUTH,
    enableServiceLinks=_TRUTH,
    terminationGracePeriodSeconds=_COUNT,
    securityContext=_object(runAsNonRoot=_TRUTH, seccompProfile=_object("type", type={"enum": ["RuntimeDefault"]})),
    containers=_list(_CONTAINER),
    volumes=_list(_VOLUME),
    topologySpreadConstraints=_list(
        _object(
            "maxSkew topologyKey whenUnsatisfiable",
            maxSkew={"type": "integer", "minimum": 1},
            topologyKey=_TEXT,
            whenUnsatisfiable={"enum": ["DoNotSchedule", "ScheduleAnyway"]},
            labelSelector=_SELECTOR,
        )
    ),
)
_POD_TEMPLATE = _object("spec", metadata=_object(labels=_map(_LABEL)), spec=_POD)
_ON_EXIT = _object(
    "operator values",
    containerName=_NAME,
    operator={"enum": ["In", "NotIn"]},
    values={"type": "array", "items": {"type": "integer", "minimum": 1}, "uniqueItems": True, "maxItems": 255},
)
_RULE = _object(
    "action",
    action={"enum": ["FailIndex", "FailJob", "Ignore", "Count"]},
    onExitCodes=_ON_EXIT,
    onPodConditions=_list(_object("type", type=_TEXT, status={"enum": ["True", "False", "Unknown"]})),
)
_JOB = _object(
    "spec",
    metadata=_object(labels=_map(_LABEL)),
    spec=_object(
        "template",
        completionMode={"enum": ["Indexed", "NonIndexed"]},
        completions=_COUNT,
        parallelism=_COUNT,
        backoffLimit=_COUNT,
        podFailurePolicy=_object("rules", rules=_list(_RULE)),
        template=_POD_TEMPLATE,
    ),
)
_JOBSET = _object(
    "replicatedJobs",
    network=_object(enableDNSHostnames=_TRUTH, publishNotReadyAddresses=_TRUTH, subdomain=_TEXT),
    failurePolicy=_object(maxRestarts=_COUNT),
    ttlSecondsAfterFinished=_COUNT,
    replicatedJobs=_list(_object("name template", name=_NAME, replicas=_COUNT, template=_JOB)),
)
_REPLICA = _object(
    replicas=_COUNT, restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]}, template=_POD_TEMPLATE
)
_SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "NetworkPolicy": (
        "networking.k8s.io/v1",
        _object(
            "podSelector",
            podSelector=_SELECTOR,
            policyTypes=_list({"enum": ["Ingress", "Egress"]}),
            ingress=_list(_object(**{"from": _list(_object(podSelector=_SELECTOR))})),
        ),
    ),
    "JobSet": ("jobset.x-k8s.io/v1alpha2", _JOBSET),
    "TrainingRuntime": (
        "trainer.kubeflow.org/v1alpha1",
        _object(mlPolicy=_object(numNodes=_COUNT), template=_object("spec", spec=_JOBSET)),
    ),
    "TrainJob": (
        "trainer.kubeflow.org/v1alpha1",
        _object(
            "runtimeRef",
            runtimeRef=_object("name", name=_NAME, apiGroup=_TEXT, kind={"enum": ["TrainingRuntime"]}),
            trainer=_object(numNodes=_COUNT),
        ),
    ),
    "PyTorchJob": (
        "kubeflow.org/v1",
        _object(
            "pytorchReplicaSpecs",
            runPolicy=_object(
                backoffLimit=_COUNT,
                cleanPodPolicy={"enum": ["", "All", "Running", "None"]},
                ttlSecondsAfterFinished=_COUNT,
            ),
            pytorchReplicaSpecs=_object("Master", Master=_REPLICA, Worker=_REPLICA),
        ),
    ),
}


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON schema of objects of a kind."""
    version, spec = _SPECS[kind]
    return _object("apiVersion kind metadata spec", apiVersion={"const": version}, kind={"const": kind},
                   metadata=_METADATA, spec=spec)  # fmt: skip
