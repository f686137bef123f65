"""Training of a model in several processes, as its launcher sees it.

The run is opened before the processes start and closed after they have ended, and the version is registered here: a
rank that is replaced goes on in the same run, and no version is registered twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import Clock
from mainspring.data.model import DatasetCommit
from mainspring.data.without import Without
from mainspring.operations.distributed.part import Part, shared_checkpoints
from mainspring.operations.distributed.rank import CHECKPOINTS, REPORT, Asked
from mainspring.project.backends.engines import training_runner
from mainspring.project.scratch import Scratch, scratch_tracking, scratch_trainer
from mainspring.registry.ports import Tracking
from mainspring.registry.processes import current_starter
from mainspring.registry.runs import ERROR, LEFT, PROCESSES, REPLACED, UNWRITTEN, error_text
from mainspring.training.distributed.logs import logged
from mainspring.training.distributed.ports import LOGS, Event, Job, Lost, Runner, Stage, Started, Stepped
from mainspring.training.loop.objects import remove_all
from mainspring.training.loop.signals import signals_noted
from mainspring.training.model import Model, TrainReport
from mainspring.training.space import Chosen
from mainspring.training.trainer import Begun

if TYPE_CHECKING:
    from mainspring.project import Project

ENTRY = "mainspring.operations.distributed.rank"
Progress = Callable[[str, float], None]


def train_in_processes(
    project: Project,
    model: Model,
    *,
    since: int | None,
    until: int | None,
    without: Sequence[Without],
    runner: str = "",
    progress: Progress | None,
    commit: DatasetCommit | None = None,
    scratch: Scratch | None = None,
    part: Part | None = None,
) -> TrainReport:
    """Train a model in the processes that it declares, and register the version.

    Args:
        runner: One of `TRAINING_RUNNERS`; by default the profile's.
        commit: The data to train on, by default every table as it is now.
        scratch: Place of the run and the bundle, in which nothing is registered; by default the project's.
        part: Of this machine, the first, where several train.

    Raises:
        Conflict: Another such training of the model runs.
        MainspringError: See `Runner.run`.
    """
    distributed = model.distributed
    if distributed is None or distributed.size < 2:
        raise Invalid(f"Model {model.name!r} is trained by one process.", fix="declare ms.Distributed(processes=2).")
    began, tell = time.monotonic(), progress or (lambda _stage, _share: None)
    elsewhere = part is not None or (project.settings.checkpoints is not None and scratch is None)
    shared = shared_checkpoints(project, model.name) if elsewhere else None
    if part is None:
        tell("import PyTorch", 0.0)
        training_runner(project.settings, runner, distributed)  # refused before a run is opened
    settings = project.settings
    trainer, tracking, place = project.trainer, project.tracking, settings.state
    if scratch is not None:
        trainer, place = scratch_trainer(project, scratch.folder), scratch.folder
        tracking = scratch_tracking(scratch.folder)
    folder = place / "training" / model.name
    with nullcontext() if scratch else project.own_locks.within("training").hold(model.name, wait_s=0):
        clear(folder)
        tell("pin the data", 0.0)
        run_id, pinned = trainer.begin(model, since=since, until=until, commit=commit, without=without)
        request = Asked(
            root=str((settings.root if scratch is None else scratch.project).resolve()),
            profile=settings.profile,
            code=str(settings.root.resolve()) if scratch else "",
            scratch=str(scratch.folder.resolve()) if scratch else "",
            folder=str(folder.resolve()),
            model=model.name,
            begun=Begun(run_id, pinned.commit.id, pinned.files),
            distributed=distributed,
            since=since,
            until=until,
            without=[*map(str, without)],
            params=model.train.params if isinstance(model.train, Chosen) else None,
            by=current_starter(),
            checkpoints="" if shared is None else str(shared),
        )
        job = Job(run_id, ENTRY, msgspec.json.encode(request).decode(), folder.resolve(), distributed)
        with ExitStack() as stack:
            with _run_closed(tracking, project.wall, run_id, folder), signals_noted() as noted:
                runs, finish = stack.enter_context(_runner(project, model, part, runner, job, pinned.commit))
                shown = _Shown(tell)
                tell("start the processes", 0.02)
                for event in runs.run(job, lambda: noted[0] if noted else 0):
                    shown.show(event)
                    if isinstance(event, Lost):
                        tracking.log(run_id, tags=shown.tags(distributed.size))
                report = msgspec.json.decode((folder / REPORT).read_bytes(), type=TrainReport)
                tracking.log(run_id, tags=shown.tags(distributed.size))
                unwritten = tracking.get(run_id).tags.get(UNWRITTEN)
            notes = [*report.notes, *([unwritten] if unwritten else []), *shown.notes]
            report = replace(report, notes=notes, seconds=time.monotonic() - began)
            report = trainer.register(report, pinned, progress)
            finish(report)
        remove_all(folder / CHECKPOINTS if shared is None else shared)
    return report


def _runner(
    project: Project, model: Model, part: Part | None, runner: str, job: Job, commit: DatasetCommit
) -> AbstractContextManager[tuple[Runner, Callable[[TrainReport], None]]]:
    """Return a context of a runner, and of what tells the version to the other machines."""
    if part is None:
        return nullcontext((training_runner(project.settings, runner), lambda _report: None))
    from mainspring.operations.distributed.machines import hosting

    return hosting(project, model, part, job, commit)


class _Shown:
    """Progress of a training, from its runner's events."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._stage, self._share = "start the processes", 0.02
        self.size = 0
        self.notes: list[str] = []

    def show(self, event: Event) -> None:
        step = ""
        if isinstance(event, Started):
            self.size = event.size
            self._stage = f"start {event.size} processes"
        elif isinstance(event, Stage):
            self._stage, self._share = event.name, event.share
        elif isinstance(event, Stepped):
            step = f", step {event.step}"
        elif isinstance(event, Lost):
            goes_on = (
                f"{event.size} processes went on from the last checkpoint" if event.size else "it was not replaced"
            )
            self.notes.append(f"Rank {event.rank} {event.why.partition(chr(10))[0]}; {goes_on}.")
            self._stage = self.notes[-1]
        self._tell(f"{self._stage}{step}", self._share)

    def tags(self, declared: int) -> dict[str, str]:
        """Return the run's tags on its processes, of which so many were declared."""
        left = {} if self.size == declared else {LEFT: str(self.size)}
        return {PROCESSES: str(declared), REPLACED: str(len(self.notes)), **left}


@contextmanager
def _run_closed(tracking: Tracking, clock: Clock, run_id: str, folder: Path) -> Iterator[None]:
    """Keep the ranks' logs with the run after the block, and close the run if the block fails."""
    try:
        yield
    except BaseException as error:
        with suppress(MainspringError):
            _keep_logs(tracking, run_id, folder)
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with suppress(MainspringError):
            if status == "FAILED":
                tracking.log(run_id, tags={ERROR: error_text(error)})
            tracking.finish(run_id, status, clock.now())
        raise
    _keep_logs(tracking, run_id, folder)


def _keep_logs(tracking: Tracking, run_id: str, folder: Path) -> None:
    for path in sorted(folder.glob(LOGS.format("*"))):
        if content := logged(path):
            tracking.log_artefact(run_id, f"ranks/{path.name}", content)


def clear(folder: Path) -> None:
    """Make the folder of a model's trainings, and remove what the last one left, except its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in folder.iterdir():
        if path.name != CHECKPOINTS:
            path.unlink()
