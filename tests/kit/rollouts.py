"""A project whose endpoint has three versions, registered without MLflow: for rollouts whose processes are killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

import mainspring as ms
from kit.console.flights import declared
from kit.serving import bundle, model
from mainspring.core.time import SystemClock
from mainspring.delivery.rollout.model import RolloutState
from mainspring.delivery.routing import CHAMPION
from mainspring.operations.promote import publish_routes
from mainspring.operations.rollout import interventions
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.adapters.catalog import AliasMoves
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.bundles import seal
from mainspring.registry.model import AliasMove, ModelVersion, UnknownVersion
from mainspring.registry.ports import Check
from mainspring.serving.model import Arm, Endpoint

ENDPOINT, MODEL = "late-arrival", "late"
BIASES = {"1": 0.0, "2": 1e-9, "3": -5.0}  # version 2 answers as the champion, version 3 does not
STEPS = tuple(step / 10 for step in range(1, 9))
GOOD = ms.Rollout(ENDPOINT, steps=STEPS, hold="0s", least_requests=5, guards=[ms.guards.errors(at_most=0.9)])
BAD = ms.Rollout(ENDPOINT, steps=(0.5,), hold="0s", least_requests=10_000, guards=[ms.guards.score()])


class CatalogVersions(MemoryVersions):
    """Versions that are known beforehand; their aliases are in the catalog, as those of every project."""

    def __init__(self, engine: sa.Engine, arms: dict[str, Arm]) -> None:
        super().__init__()
        self._stored = AliasMoves(engine)
        for arm in arms.values():
            self.register(MODEL, arm.digest, "", {}, 0)

    def get(self, model: str, reference: str) -> ModelVersion:
        number = reference if reference.isdigit() else self._stored.current(model).get((model, reference))
        if number is None:
            raise UnknownVersion(model, reference)
        return super().get(model, number)

    def set_alias(self, move: AliasMove, check: Check = lambda _: None) -> None:
        with self._stored.exclusively() as connection:
            check(connection)
            self._stored.append(move, connection)

    def moves(self, model: str, alias: str | None = None) -> list[AliasMove]:
        return self._stored.moves(model, alias)


def sealed(project: Project) -> dict[str, Arm]:
    """Return the three versions, whose bundles the project has afterwards."""
    arms = {}
    for version, bias in BIASES.items():
        made = bundle(bias, model_onnx=model(bias))
        of_project = seal(made.manifest, made.files, project.signing_key)
        project.bundles.save(of_project)
        arms[version] = Arm(version, of_project.digest)
    return arms


def made(root: Path) -> Project:
    """Make the project, unless its folder has a `mainspring.toml`; version 1 is champion and served."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "mainspring.toml").exists():
        (root / "mainspring.toml").write_text('name = "fleet"\n')
    project = open_project(load_settings(root, environment={}))
    arms = sealed(project)
    (root / "digests").write_text(" ".join(arm.digest for arm in arms.values()))
    project.close()
    project = opened(root)
    now = project.wall.now()
    project.versions.set_alias(AliasMove(MODEL, CHAMPION, None, "1", "ana", "promote", now))
    publish_routes(project)
    return project


def opened(root: Path, plan: ms.Rollout = GOOD, **parts: Any) -> Project:
    """Return the project as another process sees it. `parts` replace those of the project."""
    endpoint = Endpoint(ENDPOINT, model=f"{MODEL}@{CHAMPION}", deadline="10s", log=ms.Log(sync=True))
    definitions = declared(endpoints={ENDPOINT: endpoint}, rollouts={ENDPOINT: plan})
    project = open_project(load_settings(root, environment={}))
    digests = (root / "digests").read_text().split()
    arms = {str(number): Arm(str(number), digest) for number, digest in enumerate(digests, 1)}
    parts = {"engine": project.engine, "versions": CatalogVersions(project.engine, arms), **parts}
    return Project(project.settings, definitions=definitions, **parts)


def begun(project: Project, candidate: str) -> RolloutState:
    state = interventions.start(project, ENDPOINT, candidate)
    assert isinstance(state, RolloutState)
    return state


def shares(project: Project) -> dict[str, float]:
    """Return the shares of the versions in the routing table."""
    return {arm.version: arm.weight for arm in project.routes.current()[ENDPOINT].arms if arm.weight}


class Skewed:
    """The machine's clock, off by what a file says (µs)."""

    def __init__(self, file: Path) -> None:
        self._file, self._clock = file, SystemClock()

    def now(self) -> int:
        return self._clock.now() + (int(self._file.read_text()) if self._file.exists() else 0)

    def set(self, now: int) -> None:
        self._file.write_text(str(now - self._clock.now()))
