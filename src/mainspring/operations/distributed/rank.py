"""A rank of a training: the entry that a runner calls in each process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.environment import rank_variables
from mainspring.core.files import write_atomic
from mainspring.data.without import read
from mainspring.project import open_project
from mainspring.project.scratch import scratch_trainer, with_code
from mainspring.project.settings import load_settings
from mainspring.registry.processes import started_by
from mainspring.training.distributed.ports import BEATS
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import Heart
from mainspring.training.loop.launch import Launch, launching
from mainspring.training.loop.tensors import import_torch
from mainspring.training.loop.world import launched
from mainspring.training.space import Chosen
from mainspring.training.trainer import Begun

REPORT = "report.json"
CHECKPOINTS = "checkpoints"
_ALONE = (
    "Each of the {} processes fitted all rows, as one would: the training function calls none of fit_torch, "
    "fit_xgboost and fit_lightgbm, which share the work."
)


class Asked(msgspec.Struct, frozen=True):
    """Request of a job: the training that each rank does. Instants are UTC epoch microseconds."""

    root: str
    profile: str
    code: str  # another folder than `root`, of a run that is reproduced
    scratch: str  # folder of such a run
    folder: str
    model: str
    begun: Begun
    distributed: Distributed
    since: int | None
    until: int | None
    without: list[str]
    params: Mapping[str, Any] | None  # of the model's search
    by: str
    checkpoints: str = ""  # place that several machines see; by default in the folder
    state: str = ""  # the state folder, where it is not the profile's


def moved(request: str, folder: Path, root: Path) -> str:
    """Return a request for a machine where the project's files lie in another folder.

    The state folder has the path that it has here: bundles are signed with its keys.
    """
    asked, state = msgspec.json.decode(request, type=Asked), str(folder.parents[1])
    return msgspec.json.encode(msgspec.structs.replace(asked, folder=str(folder), root=str(root), state=state)).decode()


def work(request: str, tell: Callable[[str, float], None]) -> None:
    """Train as this process's rank. The first one keeps the report, without a version, in the job's folder."""
    asked = msgspec.json.decode(request, type=Asked)
    world, folder = launched(), Path(asked.folder)
    attempt = int(rank_variables().get("TORCHELASTIC_RESTART_COUNT", "0"))
    place = asked.checkpoints or folder / CHECKPOINTS
    launch = Launch(asked.distributed, place, Heart(folder / BEATS.format(world.rank)), attempt)
    settings = load_settings(Path(asked.root), asked.profile, {"state": asked.state} if asked.state else None)
    with (
        closing(open_project(with_code(settings, Path(asked.code)) if asked.code else settings)) as project,
        started_by(asked.by),
        launching(launch),
    ):
        model = project.definitions.model(asked.model)
        if asked.params is not None:
            model = replace(model, train=Chosen(model.train, asked.params))
        without = [read(each) for each in asked.without]
        trainer = scratch_trainer(project, Path(asked.scratch)) if asked.scratch else project.trainer
        if not world.first:
            trainer.follow(model, asked.begun, since=asked.since, until=asked.until, without=without)
            return
        report = trainer.build(model, asked.begun, since=asked.since, until=asked.until, without=without, progress=tell)
        if not import_torch().distributed.is_initialized():
            report = replace(report, notes=[*report.notes, _ALONE.format(world.size)])
        write_atomic(folder / REPORT, msgspec.json.encode(asdict(report)))
