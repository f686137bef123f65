"""Manifests of a model's training, for a cluster that has JobSet or Kubeflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from mainspring.core.errors import Invalid
from mainspring.core.time import to_datetime
from mainspring.deploy.manifests.pods import Pod
from mainspring.deploy.manifests.training import KINDS, Training, check_name, name_of
from mainspring.deploy.sagemaker.training import Job, training_job
from mainspring.operations.distributed.part import shared_checkpoints
from mainspring.training.distribution import Distributed

if TYPE_CHECKING:
    from mainspring.project import Project

PLAN = "plan"
_STEP = 64 << 20  # bytes
_SHARED = ("catalog", "lake", "tracking", "blobs")  # that every machine of a training reads or writes
_ON_A_DISK = ("file", "sqlite", "memory", "lmdb")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything of a manifest that the project does not say; what is empty is as the profile's Kubernetes settings.

    Args:
        gpu: Give each process a GPU.
        memory: A quantity of Kubernetes, or `PLAN`: what the network's plan says, with its rows and libraries.
        claims: Path at which a claim is mounted, by its name.
    """

    name: str = ""
    image: str = ""
    processes: int | None = None
    machines: int | None = None
    cpu: str = ""
    memory: str = ""
    gpu: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""


def training_manifest(
    project: Project,
    model: str,
    kind: str,
    wanted: Wanted,
    progress: Callable[[str, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Return the objects that train a model: one of `KINDS`.

    Args:
        progress: Called where the memory is planned.

    Raises:
        NotFound: There is no such model, or no data by which its memory could be planned.
        Invalid: Pods could not train it: no image is named, stores or checkpoints lie on a disk that they do not share,
            or a secret would stand in the manifest; or its memory cannot be planned.
    """
    settings, engines = project.settings, project.settings.engines
    declared = project.definitions.model(model).distributed or Distributed()
    distributed = replace(
        declared,
        processes=wanted.processes or declared.processes,
        machines=wanted.machines or declared.machines,
    )
    _check_stores(project, wanted.claims)
    if distributed.machines > 1:
        shared_checkpoints(project, model)
    memory = wanted.memory or engines.kubernetes_memory
    if memory == PLAN:
        memory = _planned(project, model, distributed, wanted, progress)
    pod = Pod(
        container="",
        image=wanted.image or engines.kubernetes_image,
        command=[],
        folder=engines.kubernetes_folder,
        env=wanted.env,
        secret=engines.kubernetes_secret,
        memory=memory,
        cpu=wanted.cpu or _times(engines.kubernetes_cpu, distributed.processes),
        gpus=distributed.processes if wanted.gpu else 0,
        claims=wanted.claims,
    )
    arguments = [model, "--processes", str(distributed.processes), "--machines", str(distributed.machines)]
    arguments += ["--project", engines.kubernetes_folder, "--profile", settings.profile]
    training = Training(
        name=check_name(wanted.name) if wanted.name else name_of(model),
        namespace=engines.kubernetes_namespace,
        arguments=arguments,
        machines=distributed.machines,
        restarts=max(1, distributed.restarts),
        pod=pod,
        queue=wanted.queue,
    )
    return KINDS[kind](training)


def sagemaker_job(project: Project, model: str, job: Job, processes: int | None = None) -> dict[str, Any]:
    """Return the request for a training job of SageMaker, on one machine.

    Args:
        processes: Of the training; by default as the model declares.

    Raises:
        NotFound: There is no such model.
        Invalid: The model is declared for several machines, or as `training_manifest` and `training_job` say.
    """
    settings = project.settings
    declared = project.definitions.model(model).distributed or Distributed()
    if declared.machines > 1:
        raise Invalid(
            f"Model {model!r} is declared for {declared.machines} machines, and a training job has one.",
            fix="export it to jobset, or declare machines=1 and more processes.",
        )
    _check_stores(project, {})
    if job.spot:
        shared_checkpoints(project, model)
    arguments = [model, "--processes", str(processes or declared.processes)]
    arguments += ["--project", settings.engines.kubernetes_folder, "--profile", settings.profile]
    # An account takes each name once.
    name = job.name or f"{model}-{to_datetime(project.wall.now()):%Y%m%dT%H%M%SZ}"
    return training_job(model, arguments, replace(job, name=name, restarts=max(1, declared.restarts)))


def _planned(
    project: Project,
    model: str,
    distributed: Distributed,
    wanted: Wanted,
    progress: Callable[[str, float], None] | None,
) -> str:
    """Return the memory of a pod as a quantity."""
    if wanted.gpu:
        raise Invalid(
            "The plan says the memory of GPUs, not the main memory beside them.", fix="give --memory, such as 64Gi."
        )
    from mainspring.operations.training_plan import memory_of_processes

    found = memory_of_processes(project, model, distributed, progress=progress)
    return f"{-(-found // _STEP) * _STEP >> 20}Mi"


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """Return objects as the documents of one file."""
    text: str = yaml.safe_dump_all(objects, sort_keys=False, width=120)
    return text


def _check_stores(project: Project, claims: Mapping[str, str]) -> None:
    """Raise if a store is a file that ends with the pod."""
    for name in _SHARED:
        url = getattr(project.settings, name)
        mounted = any(url.path.is_relative_to(path) for path in claims.values())
        if url.scheme in _ON_A_DISK and not mounted:
            raise Invalid(
                f"Profile {project.settings.profile!r} has its {name} at {url.shown}, which ends with a pod.",
                fix="use a profile with servers (--profile NAME), or mount a volume there: --claim CLAIM:PATH.",
            )


def _times(cpu: str, count: int) -> str:
    """Return a quantity of processors, for each of so many processes."""
    return f"{int(cpu[:-1]) * count}m" if cpu.endswith("m") else f"{float(cpu) * count:g}"
