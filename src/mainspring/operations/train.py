"""Training of a model of the project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from mainspring.core.environment import set_variable
from mainspring.core.errors import Invalid
from mainspring.cost.budgets.declaring import QUEUE
from mainspring.cost.metering import charge, name_work
from mainspring.cost.usage import JOB, RUN, Subject
from mainspring.data.without import read
from mainspring.features.model import views_of
from mainspring.operations.apply import apply
from mainspring.operations.auditing import begun
from mainspring.operations.budgets.acting import check_hold
from mainspring.operations.cost.teams import charging
from mainspring.operations.features import engines
from mainspring.operations.features.deriving import derive
from mainspring.project import Project
from mainspring.registry.runs import sweep
from mainspring.training.distribution import Distributed
from mainspring.training.inputs import all_groups, features_read
from mainspring.training.model import Model, TrainReport

if TYPE_CHECKING:
    from mainspring.features.warehouse import Job, WarehouseRead
    from mainspring.operations.distributed.part import Part

# OpenMP's threads wait for each other by spinning. On a machine with other load this extends a training from 20 to 70
# seconds (measured: histogram gradient boosting on two cores). Read when the library loads.
set_variable("OMP_WAIT_POLICY", "PASSIVE", default=True)


def train(
    project: Project,
    model: str,
    *,
    since: int | None = None,
    until: int | None = None,
    without: Sequence[str] = (),
    processes: int | Literal["auto"] | None = None,
    runner: str = "",
    machines: int | None = None,
    part: Part | None = None,
    engine: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> TrainReport:
    """Train a model of the project on data known by `until` (by default now, by the domain clock).

    A model that declares a search gets the best parameters of its last search. The declared definitions are applied
    first, and runs whose process died are marked as killed.

    Args:
        without: Rows to leave out, as if they had never been ingested; see `data.without.read`.
        processes: Processes of each machine that train; by default as many as the model declares. "auto": as many, and
            spread so, as the plan of the training finds best on this machine, which the report's notes explain.
        runner: Where several processes are started, "local" or "ray"; by default as the profile says.
        machines: Machines that train; by default as many as the model declares.
        part: Of this machine, if several train.
        engine: Where features are read, one of `features.engines.ENGINES`; by default as the profile says.

    Raises:
        Invalid, InvalidData: What is to be left out is no part of the model's data; the engine cannot give one of its
            features, or leave rows out, or read them for several processes.
        NotFound: There is no such model, it has no data yet, or its parameters were not searched.
        NotConvertible: The estimator cannot become a bundle with equal predictions.
        BudgetExceeded: A budget holds trainings back.
    """
    left_out = [read(each) for each in without]
    with charging(project, RUN, model), project.metering.of(None):
        if part is not None and part.number:
            name_work(Subject(RUN, f"part {part.number} of {model}", model=model))
            return _join(project, project.definitions.model(model), processes, machines, part, progress)
        check_hold(project, QUEUE, f"The training of {model}", model)
        chosen, search_run = prepared(project, model)
        why = ""
        if processes == "auto":
            if runner not in ("", "local") or part is not None:
                there = f"{runner} starts" if runner else "each machine starts"
                raise Invalid("processes='auto' plans for this machine alone.", fix=f"say how many processes {there}.")
            from mainspring.operations.training_plan import chosen_layout

            with project.metering.of(Subject(JOB, f"plan of {model}", model=model)):
                layout, why = chosen_layout(project, chosen, since=since, until=until, progress=progress)
            chosen = replace(chosen, distributed=layout)
        else:
            chosen = _declared(chosen, processes, machines)
        until = project.clock.now() if until is None else until
        stored = _stored(project, chosen, engine, alone=_is_alone(chosen, part, runner), without=without, tell=progress)
        with begun(project, "train", f"model/{model}") as done:
            given = {"since": since, "until": until, "without": left_out, "progress": progress}
            try:
                report = _train(project, chosen, part, runner, stored, **given)
            finally:
                if stored is not None:
                    charge({"scanned": sum(job.scanned_bytes or 0 for job in stored.jobs)})
            if stored is not None:
                report = replace(report, notes=[*report.notes, *engines.done(stored)])
            less = f", without {', '.join(without)}" if without else ""
            done(f"version {report.version}, run {report.run_id}{less}")
        if search_run:
            from mainspring.operations.search.searching import SEARCH_RUN

            project.tracking.log(report.run_id, tags={SEARCH_RUN: search_run})
        if why:
            project.tracking.log(report.run_id, tags={"layout": why})
            report = replace(report, notes=[*report.notes, f"--processes auto: {why}."])
        return report


def _declared(model: Model, processes: int | None, machines: int | None) -> Model:
    if processes is None and machines is None:
        return model
    found = model.distributed or Distributed()
    given = replace(found, processes=processes or found.processes, machines=machines or found.machines)
    return replace(model, distributed=given)


def _join(
    project: Project,
    model: Model,
    processes: int | Literal["auto"] | None,
    machines: int | None,
    part: Part,
    progress: Callable[[str, float], None] | None,
) -> TrainReport:
    """Take part in a training that machine 0 began; the definitions are applied there."""
    from mainspring.operations.distributed.machines import join

    if processes == "auto":
        raise Invalid("processes='auto' plans for this machine alone.", fix="say how many processes each starts.")
    chosen = _declared(model, processes, machines)
    distributed = chosen.distributed or Distributed()
    part.check(distributed)
    return join(project, chosen, distributed, part, progress or (lambda _stage, _share: None))


def _stored(
    project: Project,
    model: Model,
    engine: str | None,
    *,
    alone: bool,
    without: Sequence[str],
    tell: Callable[[str, float], None] | None,
) -> WarehouseRead | None:
    """Return the read of the model's features by the engine, which is checked; `None` for the lake."""

    def told(job: Job) -> None:
        if tell is not None:
            tell(f"read the features in the warehouse: {engines.planned(job)}", 0.05)

    stored = engines.stored_read(project, engine, told=told)
    if stored is None:
        return None
    fix = "read them from the lake: --engine lake."
    if not alone:
        raise Invalid(f"Each process that trains {model.name!r} would read its features in the warehouse.", fix=fix)
    if without:
        raise Invalid(f"The warehouse does not know which of its rows {without[0]!r} are.", fix=fix)
    stored.check(all_groups(model), features_read(model))
    return stored


def _is_alone(model: Model, part: Part | None, runner: str) -> bool:
    return part is None and not runner and (model.distributed is None or model.distributed.size == 1)


def _train(
    project: Project, model: Model, part: Part | None, runner: str, stored: WarehouseRead | None, **given: Any
) -> TrainReport:
    if part is not None:
        part.check(model.distributed or Distributed())
    if not runner and (model.distributed is None or model.distributed.size == 1):
        return project.trainer.train(model, stored=stored, **given)
    from mainspring.operations.distributed.launching import train_in_processes

    return train_in_processes(project, model, part=part, runner=runner, **given)


def prepared(project: Project, model: str) -> tuple[Model, str]:
    """Return a model as it is trained now, and the run of its search; empty if it declares none.

    The declared definitions are applied, and computed features are completed.

    Raises:
        NotFound: There is no such model, or its parameters were not searched.
    """
    chosen, search_run = project.definitions.model(model), ""
    apply(project)
    sweep(project.tracking, project.wall)
    if chosen.search is not None:
        from mainspring.operations.search.searching import with_best

        chosen, search_run = with_best(project, chosen)
    derive(project, views_of(all_groups(chosen)))
    return chosen, search_run
