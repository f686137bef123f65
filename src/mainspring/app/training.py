"""Training by name."""

from __future__ import annotations

import os
from collections.abc import Callable

from mainspring.app.applying import apply
from mainspring.app.project import Project
from mainspring.registry.runs import sweep
from mainspring.training.model import TrainReport

# OpenMP's threads wait for each other by spinning, which on a machine that does something else too makes a training of
# 20 seconds one of 70 (measured: histogram gradient boosting on two cores under load). Read when the library loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def train(
    project: Project,
    model: str,
    *,
    since: int | None = None,
    until: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> TrainReport:
    """Train a model of the project on what was known by `until` (by default the clock's now).

    What the modules declare is applied first, and runs whose process died are marked as killed.

    Raises:
        NotFound: There is no such model, or its data has not landed.
        NotConvertible: The estimator cannot become a bundle that answers as it does.
    """
    chosen = project.definitions.model(model)
    apply(project)
    sweep(project.tracking, project.wall)
    return project.trainer.train(
        chosen, since=since, until=project.clock.now() if until is None else until, progress=progress
    )
