"""Engines beside this process: Spark and Ray."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mainspring.core.settings import Settings
from mainspring.project.backends.base import lazily

if TYPE_CHECKING:
    from mainspring.deploy.engines.ports import ChunkEngine
    from mainspring.jobs.pipelines.ports import StepRunner
    from mainspring.training.distributed.ports import Runner


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
    at: tuple[str, ...] = (settings.engines.ray,) if engine == "ray" else (settings.engines.spark, settings.project)
    make = lazily(f"deploy.adapters.{engine}_chunks", f"{engine.title()}Chunks", extra=engine)
    found: ChunkEngine = make(*at)
    return found


def training_runner() -> Runner:
    """Return the runner of a training in several processes of this machine.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    lazily("training.loop.tensors", "import_torch", extra="torch")()
    runner: Runner = lazily("deploy.adapters.torchrun", "LocalRunner", extra="torch")()
    return runner
