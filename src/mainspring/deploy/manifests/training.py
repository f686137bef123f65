"""Objects of Kubernetes that train a model, on one machine or several: each pod runs `mainspring train`.

A pod is a machine of the training, of the number that its controller gives it. One that is lost is made again and comes
back to the others, which wait for it; a restart within a pod is the training's own. Sources of names and addresses:
https://jobset.sigs.k8s.io/docs/concepts/, https://www.kubeflow.org/docs/components/trainer/ and its predecessor's
https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.manifests.pods import Pod

LABEL = "mainspring-training"
PORT = 29400
_QUEUE = "kueue.x-k8s.io/queue-name"
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 40  # of a name: a pod's has a suffix, and 63 characters
_FINAL = [*range(1, 10), 11, 12]  # exit codes after which another try would end alike
_STOPPED = 130  # exit code after a signal: a checkpoint is written
_KEPT_S = 86_400  # finished objects, with their logs
_NODE = "node"  # name of the pods' job, as Kubeflow's own runtimes have it

Objects = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Training:
    """A training to render.

    Args:
        name: Of all its objects; by `name_of` a model's.
        arguments: Of `mainspring train`, with the model's name; those of its machines are added.
        machines: Pods.
        restarts: Times that each pod may fail.
        pod: Everything of a pod but its command and its labels.
        queue: Local queue of Kueue; empty for none.
    """

    name: str
    namespace: str
    arguments: Sequence[str]
    machines: int
    restarts: int
    pod: Pod
    queue: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/managed-by": "mainspring", LABEL: self.name}

    def metadata(self, *, queued: bool = False) -> dict[str, Any]:
        queue = {_QUEUE: self.queue} if queued and self.queue else {}
        return {"name": self.name, "namespace": self.namespace, "labels": {**self.labels, **queue}}

    def template(self, container: str, number: str, meet: str) -> dict[str, Any]:
        """Return the template of a pod.

        Args:
            number: Number of the machine, as text in which Kubernetes replaces variables.
            meet: Host name of the first pod.
        """
        several = ["--machine", number, "--meet", f"{meet}:{PORT}", "--wait", "1h"] if self.machines > 1 else []
        command = ["python", "-m", "mainspring", "train", *self.arguments, *several]
        pod = replace(self.pod, container=container, command=command, spread={LABEL: self.name})
        return {"metadata": {"labels": self.labels}, "spec": pod.spec()}


def name_of(model: str) -> str:
    """Return the name of a model's objects; raises as `check_name` does."""
    return check_name(re.sub("[^a-z0-9]+", "-", model.lower()).strip("-"))


def check_name(name: str) -> str:
    """Return a name, if objects of Kubernetes and their hosts can have it.

    Raises:
        Invalid: They cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise Invalid(
            f"{name!r} cannot name objects of Kubernetes.",
            fix=f"give --name: small letters, digits and -, beginning with a letter, at most {_LONGEST} characters.",
        )
    return name


def jobset(training: Training) -> Objects:
    """Return a JobSet (jobset.x-k8s.io/v1alpha2) with an indexed Job."""
    job = _job(training)
    job["spec"] |= {"completions": training.machines, "parallelism": training.machines}
    return [_network(training), _jobset(training, job)]


def trainjob(training: Training) -> Objects:
    """Return a TrainJob (trainer.kubeflow.org/v1alpha1), and the TrainingRuntime that says what its pods are."""
    job = _job(training)
    job["metadata"] = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": training.metadata(),
        "spec": {"mlPolicy": {"numNodes": training.machines}, "template": {"spec": _spec(job)}},
    }
    train = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": training.metadata(queued=True),
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": training.name},
            "trainer": {"numNodes": training.machines},
        },
    }
    return [_network(training), runtime, train]


def pytorchjob(training: Training) -> Objects:
    """Return a PyTorchJob (kubeflow.org/v1) whose master is machine 0."""
    meet = f"{training.name}-master-0"
    master = training.template("pytorch", "0", meet)
    replicas = {"Master": {"replicas": 1, "restartPolicy": "ExitCode", "template": master}}
    if training.machines > 1:
        worker = training.template("pytorch", "$(RANK)", meet)
        replicas["Worker"] = {"replicas": training.machines - 1, "restartPolicy": "ExitCode", "template": worker}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": training.metadata(queued=True),
        "spec": {
            "runPolicy": {
                "backoffLimit": training.restarts * training.machines,
                "cleanPodPolicy": "None",
                "ttlSecondsAfterFinished": _KEPT_S,
            },
            "pytorchReplicaSpecs": replicas,
        },
    }
    return [_network(training), job]


KINDS: Mapping[str, Callable[[Training], Objects]] = {"jobset": jobset, "trainjob": trainjob, "pytorchjob": pytorchjob}


def _job(training: Training) -> dict[str, Any]:
    """Return the template of an indexed Job, without the number of its pods."""
    template = training.template(_NODE, "$(JOB_COMPLETION_INDEX)", f"{training.name}-{_NODE}-0-0.{training.name}")
    template["spec"]["restartPolicy"] = "Never"
    return {
        "spec": {
            "completionMode": "Indexed",
            "backoffLimit": training.restarts * training.machines,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": _NODE, "operator": "In", "values": _FINAL},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "Ignore",
                        "onExitCodes": {"containerName": _NODE, "operator": "In", "values": [_STOPPED]},
                    },
                ]
            },
            "template": template,
        }
    }


def _spec(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": 0},  # pods are made again by the Job, one by one
        "replicatedJobs": [{"name": _NODE, "replicas": 1, "template": job}],
    }


def _jobset(training: Training, job: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": training.metadata(queued=True),
        "spec": {**_spec(job), "ttlSecondsAfterFinished": _KEPT_S},
    }


def _network(training: Training) -> dict[str, Any]:
    """Return the policy by which the pods are reached by each other alone: gloo and NCCL protect nothing."""
    selected = {"matchLabels": {LABEL: training.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": training.metadata(),
        "spec": {
            "podSelector": selected,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": selected}]}],
        },
    }
