"""Adapters for work that leaves no trace in the project: verification and reproduction."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.core.settings import PROJECT_FILE

if TYPE_CHECKING:
    from mainspring.core.settings import Settings
    from mainspring.features.ports import OnlineStore
    from mainspring.project import Project
    from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
    from mainspring.registry.bundles import Bundles
    from mainspring.registry.ports import ModelVersions
    from mainspring.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Scratch:
    """Place of a training that leaves no trace: the folder of its run and bundle, and the project with its data."""

    folder: Path
    project: Path


def with_code(settings: Settings, code: Path) -> Settings:
    """Return settings of a project whose code is that in another folder, which names its own modules."""
    recorded = tomllib.loads((code / PROJECT_FILE).read_text(encoding="utf-8"))
    return replace(settings, root=code.resolve(), modules=tuple(recorded.get("modules", settings.modules)))


def scratch_online() -> OnlineStore:
    """Return an empty online store in memory."""
    from mainspring.features.adapters.memory import MemoryOnlineStore

    return MemoryOnlineStore()


def scratch_tracking(folder: Path) -> MlflowTracking:
    """Return a tracking store in `folder`."""
    from mainspring.registry.adapters.mlflow_tracking import MlflowTracking

    return MlflowTracking(f"sqlite:///{folder / 'tracking.db'}", folder / "runs")


def scratch_versions() -> ModelVersions:
    """Return a model registry in memory."""
    from mainspring.registry.adapters.memory import MemoryVersions

    return MemoryVersions()


def scratch_bundles(folder: Path, project: Project) -> Bundles:
    """Return bundles in `folder`, signed by the project's key."""
    from mainspring.registry.adapters.folder import FolderBlobs
    from mainspring.registry.bundles import Bundles

    return Bundles(FolderBlobs(folder / "bundles"), project.signing_key.public)


def scratch_trainer(project: Project, folder: Path) -> Trainer:
    """Return a trainer on the project's data whose runs and bundles are in `folder`, and which registers nothing."""
    from mainspring.training.trainer import Trainer

    return Trainer(
        lake=project.lake,
        snapshots=project.snapshots,
        tracking=scratch_tracking(folder),
        versions=scratch_versions(),
        bundles=scratch_bundles(folder, project),
        signing_key=project.signing_key,
        clock=project.wall,
        root=project.settings.root,
    )
