"""`mainspring search`: trials of a model's hyperparameters; `mainspring train` uses the best."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, MainspringError, MissingExtra, NotFound
from mainspring.core.files import write_atomic
from mainspring.cost.budgets.declaring import STOP_SEARCHES
from mainspring.cost.usage import RUN, Subject
from mainspring.features.model import views_of
from mainspring.operations.apply import apply
from mainspring.operations.auditing import begun
from mainspring.operations.budgets.acting import check_hold
from mainspring.operations.cost.teams import charging
from mainspring.operations.features.deriving import derive
from mainspring.operations.runs import find_runs
from mainspring.operations.search.study import STUDY, opened_study
from mainspring.project import Project
from mainspring.registry.runs import process_tags, sweep
from mainspring.training.inputs import all_groups
from mainspring.training.loop.signals import interrupts_kept
from mainspring.training.space import Chosen, Search, check_trials

if TYPE_CHECKING:
    from mainspring.training.model import Model
    from mainspring.training.runs.run import Run
    from mainspring.training.search.study import Study, Trial
    from mainspring.training.sets.training_set import TrainingSet

SEARCH = "mainspring.search"  # tag of a search's run: digest of metric and space
SEARCH_RUN = "mainspring.search_run"  # tag of a training run: the search that chose its parameters
RESULT = "search.json"  # a file of the run
_BEGUN = "begun.json"
_LOOK_S = 2.0  # between two looks at budgets
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SearchReport:
    """Result of a search. `importance` is each parameter's share in explaining the differences between trials."""

    model: str
    run_id: str
    metric: str
    direction: str
    best: dict[str, Any]  # a trial
    trials: list[dict[str, Any]]
    importance: dict[str, float]
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class _Begun:
    """An unfinished search, as recorded in its folder."""

    run_id: str
    search: str  # digest of metric and space
    files: str  # digest of the project's files
    features: str
    commit: str
    since: int | None
    until: int | None
    store: str = ""  # address of its runs and trials

    def same(self, other: _Begun) -> bool:
        """Return whether trials of both searches are comparable."""
        mine, theirs = (
            (begun.search, begun.files, begun.features, begun.since, begun.store) for begun in (self, other)
        )
        return mine == theirs and other.until in (None, self.until)


def search(
    project: Project,
    model: str,
    *,
    trials: int | None = None,
    workers: int = 1,
    since: int | None = None,
    until: int | None = None,
    progress: Progress | None = None,
) -> SearchReport:
    """Search for the best parameters of a model's training function, and return the result.

    A killed search resumes with the data that it began with, unless code, space, metric or time range differ. The
    held-out rows are never read.

    Raises:
        NotFound: There is no such model.
        Invalid: It declares no search, or `trials` or `workers` is not positive.
        Conflict: A search of the model is running.
        MissingExtra: Optuna is not installed.
        BudgetExceeded: A budget stops searches. A search that it stops is resumed by the next one.
        MainspringError: Every trial failed; the message names the first reason.
    """
    chosen = project.definitions.model(model)
    wanted = _search_of(chosen)
    count = wanted.trials if trials is None else trials
    check_trials(count)
    if workers < 1:
        raise Invalid(f"A search with {workers} processes runs no trial.", fix="use at least 1.")
    if find_spec("optuna") is None:
        raise MissingExtra("A hyperparameter search", "search")
    apply(project)
    with charging(project, RUN, model):
        return _charged(project, chosen, count, workers, (since, until), progress)


def _charged(
    project: Project,
    chosen: Model,
    count: int,
    workers: int,
    span: tuple[int | None, int | None],
    progress: Progress | None,
) -> SearchReport:
    model = chosen.name
    check_hold(project, STOP_SEARCHES, f"The search of {model}", model)
    with project.locks.hold(f"search-{model}"[:120], wait_s=1.0), interrupts_kept() as interrupts:
        tell = progress or (lambda _stage, _share: None)

        looked = monotonic()

        def heard(stage: str, share: float) -> None:
            nonlocal looked
            if interrupts:
                raise KeyboardInterrupt
            if monotonic() - looked > _LOOK_S:
                looked = monotonic()
                check_hold(project, STOP_SEARCHES, f"The search of {model}", model)
            tell(stage, share)

        sweep(project.tracking, project.wall)
        subject = Subject(RUN, f"search of {model}", model=model)
        with begun(project, "search", f"model/{model}") as done, project.metering.of(subject):
            report = _search(project, chosen, count, workers, span, heard, interrupts)
            done(f"run {report.run_id}")
        return report


def _search(
    project: Project,
    model: Model,
    count: int,
    workers: int,
    span: tuple[int | None, int | None],
    tell: Progress,
    interrupts: Sequence[int],
) -> SearchReport:
    from mainspring.operations.search.workers import Trials
    from mainspring.training.inputs import personal_sources
    from mainspring.training.runs.provenance import pinned_scan
    from mainspring.training.runs.run import Run
    from mainspring.training.search.study import study_errors
    from mainspring.training.search.trials import read_rows, write_rows

    declared = _search_of(model)
    tell("pin the data", 0.0)
    begun, folder, resumed = _begin(project, model, span)
    run = Run(project.tracking, begun.run_id, project.wall, seed=model.seed)
    run.withheld = personal_sources(model)
    with run:
        tell("read the features", 0.02)
        commit = project.snapshots.get(begun.commit)
        write_rows(model, partial(pinned_scan, project.lake, commit), folder, since=begun.since, until=begun.until)
        _refuse_leaks(model, read_rows(model, folder))

        def told(trial: Trial, ended: Any) -> None:
            ended_trials, best = study.trials(), study.best()
            if ended.value is not None:
                run.log_metric(f"trial.{declared.metric}", ended.value, trial.number)
            if best is not None and best.value is not None:
                # Trials of several processes end in another order than that of their numbers.
                run.log_metric(f"best.{declared.metric}", best.value, len(ended_trials) - 1)
            summary = "none completed yet" if best is None else f"best {declared.metric} {best.value:.4f}"
            tell(f"{len(ended_trials)} of {count} trials, {summary}", 0.05 + 0.9 * min(1.0, len(ended_trials) / count))

        name = f"{model.name}/{begun.run_id}"
        with (
            study_errors(),
            opened_study(project, declared, folder, name, seed=model.seed, workers=workers) as study,
        ):
            trials = Trials(project, model, study, begun.run_id, folder, wanted=count, told=told, interrupts=interrupts)
            trials.settle()
            trials.run(workers)
            if study.best() is None:
                (folder / _BEGUN).unlink()  # a search that failed completely starts over and is not resumed
            report = _report(study, model, begun.run_id, resumed)
            study.copy_to(folder / STUDY)
        _keep(run, report, folder)
    project.tracking.finish(begun.run_id, "FINISHED", project.wall.now())
    shutil.rmtree(folder, ignore_errors=True)
    tell("done", 1.0)
    return report


def _refuse_leaks(model: Model, data: TrainingSet) -> None:
    """Raise for leaks that training would reject, as far as they show without the held-out rows, for which the last
    other rows substitute.
    """
    from mainspring.training.sets.leakage import refuse_leaks

    half = len(data.validation) // 2
    if half:
        first, last = data.validation.rows(slice(0, half)), data.validation.rows(slice(half, None))
        refuse_leaks(model.name, replace(data, validation=first, holdout=last), model.accept_findings)


def _begin(project: Project, model: Model, span: tuple[int | None, int | None]) -> tuple[_Begun, Path, bool]:
    """Return the unfinished search if it is the same, else a new one; its folder; and whether it is resumed."""
    from mainspring.features import definitions
    from mainspring.registry.bundles import sha256
    from mainspring.training.runs.provenance import files_digest, pin

    searches = project.settings.state / "searches" / model.name
    root, digest = project.settings.root, _search_of(model).digest
    features = sha256(definitions.dump(model.features, model.observations))
    store = project.settings.tracking.shown
    wanted = _Begun("", digest, files_digest(root), features, "", *span, store=store)
    for path in sorted(searches.glob(f"*/{_BEGUN}")):
        unfinished = _Begun(**json.loads(path.read_bytes()))
        if unfinished.same(wanted):
            project.tracking.log(unfinished.run_id, tags=process_tags())
            project.tracking.finish(unfinished.run_id, "RUNNING", project.wall.now())  # again
            return unfinished, path.parent, True
    shutil.rmtree(searches, ignore_errors=True)  # an unfinished search that will not be resumed
    derive(project, views_of(all_groups(model)))
    pinned = pin(model, project.lake, project.snapshots, project.clock, root)
    tags = {**process_tags(), **pinned.tags, "seed": str(model.seed), SEARCH: digest}
    run_id = project.tracking.start(model.name, tags, project.wall.now())
    for name, content in pinned.files_of_run.items():
        project.tracking.log_artefact(run_id, name, content)
    until = project.clock.now() if span[1] is None else span[1]
    begun = replace(wanted, run_id=run_id, commit=pinned.commit.id, until=until)
    folder = searches / run_id
    folder.mkdir(parents=True, mode=0o700)
    write_atomic(folder / _BEGUN, json.dumps(asdict(begun)).encode())
    return begun, folder, False


def _report(study: Study, model: Model, run_id: str, resumed: bool) -> SearchReport:
    wanted, trials, best = _search_of(model), study.trials(), study.best()
    if best is None:
        first = next((trial for trial in trials if trial.reason), None)
        why = f": trial {first.number} with {first.params}: {first.reason}" if first else "."
        raise MainspringError(
            f"None of {len(trials)} trials of {model.name!r} completed{why}",
            fix=f"read the errors of its trials on the page of run {run_id}; then search again.",
        )
    return SearchReport(
        model.name,
        run_id,
        wanted.metric,
        "maximize" if wanted.maximize else "minimize",
        asdict(best),
        [asdict(trial) for trial in trials],
        study.importance(),
        resumed,
    )


def _keep(run: Run, report: SearchReport, folder: Path) -> None:
    run.log_params(report.best["params"])
    run.log_metrics({f"importance.{name}": share for name, share in report.importance.items()})
    run.log_text(RESULT, json.dumps(asdict(report), indent=1))
    run.log_artefact(STUDY, folder / STUDY)


def last_search(project: Project, model: str) -> SearchReport:
    """Return the result of a model's newest finished search, over any space.

    Raises:
        NotFound: There is no finished search.
    """
    return _kept(project, model, f'tags."{SEARCH}" is not null and status = "FINISHED"')


def with_best(project: Project, model: Model) -> tuple[Model, str]:
    """Return a model whose training function has the best parameters of its last search, and that search's run.

    Raises:
        NotFound: No search with its current metric and space has finished.
    """
    found = _kept(project, model.name, f'tags."{SEARCH}" = "{_search_of(model).digest}" and status = "FINISHED"')
    return replace(model, train=Chosen(model.train, found.best["params"])), found.run_id


def _kept(project: Project, model: str, filter_: str) -> SearchReport:
    runs = find_runs(project, model, filter_=filter_, limit=1)
    if not runs:
        raise NotFound(
            f"No finished search matches the declared search space of {model!r}.",
            fix=f"run `mainspring search {model}`.",
        )
    return SearchReport(**json.loads(project.tracking.artefact(runs[0].id, RESULT)))


def _search_of(model: Model) -> Search:
    if model.search is None:
        raise Invalid(
            f"Model {model.name!r} declares no search.",
            fix='add search=ms.Search("auc", space=ms.search.space(...)) to it; docs/howto/search.md shows how.',
        )
    return model.search
