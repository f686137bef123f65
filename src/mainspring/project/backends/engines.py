"""Engines beside this process: Ray, Spark and Beam."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, MissingExtra
from mainspring.core.settings import TRAINING_RUNNERS, Engines, Settings
from mainspring.project.backends.base import lazily
from mainspring.project.setting_values import count, duration, whole

if TYPE_CHECKING:
    from mainspring.deploy.adapters.announced_machines import AnnouncedMachines
    from mainspring.deploy.engines.ports import ChunkEngine
    from mainspring.deploy.meeting.host import Host
    from mainspring.jobs.pipelines.ports import StepRunner
    from mainspring.project import Project
    from mainspring.training.distributed.ports import Runner
    from mainspring.training.distribution import Distributed


def step_runner(engine: str, settings: Settings) -> StepRunner:
    """Return the runner of steps on an engine other than Spark, whose driver is the step's own process."""
    found: StepRunner = lazily(f"deploy.adapters.{engine}", f"{engine.title()}Runner", extra=engine)(settings)
    return found


def spark_session(settings: Settings, name: str) -> AbstractContextManager[Any]:
    """Start a Spark application; the block gets its session."""
    session: AbstractContextManager[Any] = lazily("deploy.adapters.spark", "spark_session", extra="spark")(
        settings.engines.spark, name
    )
    return session


def chunk_engine(engine: str, settings: Settings) -> ChunkEngine | None:
    """Return one of `CHUNK_ENGINES` for batch runs; `None` for an empty name: this process."""
    if not engine:
        return None
    at: tuple[str, ...] = (getattr(settings.engines, engine),)
    if engine == "spark":
        at = (*at, settings.project)
    make = lazily(f"deploy.adapters.{engine}_chunks", f"{engine.title()}Chunks", extra=engine)
    found: ChunkEngine = make(*at)
    return found


def training_runner(settings: Settings, name: str = "", distributed: Distributed | None = None) -> Runner:
    """Return one of `TRAINING_RUNNERS` for a training in several processes, by default the profile's.

    Args:
        distributed: The processes that it shall start.

    Raises:
        Invalid: There is none of this name, a setting of it is wrong, or it never starts these processes.
        MissingExtra: PyTorch or Ray is not installed.
    """
    chosen = name or settings.engines.training_runner
    if chosen not in TRAINING_RUNNERS:
        raise Invalid(f"The runner of trainings is {chosen!r}.", fix=f"use one of {', '.join(TRAINING_RUNNERS)}.")
    lazily("training.loop.tensors", "import_torch", extra="torch")()
    runner: Runner
    if chosen == "local":
        local = lazily("deploy.adapters.torchrun", "LocalRunner", extra="torch")()
        if distributed is not None:
            local.check(distributed)
        runner = local
    else:
        if find_spec("ray") is None:  # imported by a process of its own
            raise MissingExtra("RayRanks (ray)", "ray")
        runner = lazily("deploy.adapters.ray_ranks", "RayRanks", extra="ray")(
            settings.engines.ray,
            code=(settings.root, settings.state) if settings.checkpoints is not None else None,
            **_of_ray(settings.engines),
        )
    return runner


def _of_ray(engines: Engines) -> dict[str, Any]:
    values = asdict(engines)
    return {
        "cpus": whole(values, "ray_cpus"),
        "gpus": count(values, "ray_gpus") if engines.ray_gpus else None,
        "wait_s": duration(values, "ray_wait") / 1e6,
    }


def machines_runner(host: Host, wait_s: float) -> Runner:
    """Return the runner of a training on several machines, which come to this one."""
    runner: Runner = lazily("deploy.adapters.machines", "MachinesRunner", extra="torch")(host, wait_s=wait_s)
    return runner


def announced_machines(project: Project, model: str) -> AnnouncedMachines:
    """Return the machines that the catalog knows to take part in trainings of a model."""
    make = lazily("deploy.adapters.announced_machines", "AnnouncedMachines", extra="gateway")
    found: AnnouncedMachines = make(project.engine, model)
    return found
