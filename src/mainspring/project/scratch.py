"""Adapters for work that leaves no trace in the project: verification and reproduction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainspring.features.ports import OnlineStore
    from mainspring.project import Project
    from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
    from mainspring.registry.bundles import Bundles
    from mainspring.registry.ports import ModelVersions


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
