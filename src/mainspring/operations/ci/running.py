"""Run of the model pipeline: stage after stage, until one fails."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.time import format_instant
from mainspring.operations.ci.candidate import candidates, evaluation_checks, training_checks, validation_checks
from mainspring.operations.ci.code import commit_checks, test_checks
from mainspring.operations.ci.model import STAGES, Check, Report, Stage, failed, readable, skipped, stage_of
from mainspring.operations.ci.release import production_checks, staging_checks
from mainspring.project import Project
from mainspring.training.model import Model
from mainspring.training.runs.provenance import code_version

SHARE = 0.2  # of the observations
Told = Callable[[str, float], None]
Ended = Callable[[Stage], None]


def run_ci(
    project: Project,
    names: Sequence[str] = (),
    *,
    share: float = SHARE,
    deploy: bool = False,
    told: Told = lambda _stage, _share: None,
    ended: Ended = lambda _stage: None,
) -> Report:
    """Run the seven stages for models of the project, by default all that it declares.

    Args:
        share: Share of the observations that the candidate is trained on.
        deploy: Whether to go on to staging and production, which register and promote a version.
        told: Called with the name of what is done and the completed share.
        ended: Called with each stage when it has ended.

    Raises:
        NotFound: There is no such model, or the project declares none.
        Invalid: The share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise Invalid(f"A subset of {share} cannot be trained on.", fix="give a share above 0, at most 1.")
    models, broken = _declared(project, names)
    begun = project.wall.now()
    versions: dict[str, str] = {}
    with candidates() as made:
        work: dict[str, Callable[[], Iterable[Check]]] = {
            "commit": lambda: commit_checks(project, broken),
            "tests": lambda: test_checks(project, models),
            "training": lambda: training_checks(project, models, share, made, told),
            "evaluation": lambda: evaluation_checks(project, models, share, made),
            "validation": lambda: validation_checks(project, models, made),
            "staging": lambda: staging_checks(project, models, versions, told),
            "production": lambda: production_checks(project, models, versions),
        }
        stages = _stages(work, deploy=deploy, ended=ended)
    return Report(
        project=project.settings.project,
        commit=code_version(project.settings.root),
        models=tuple(model.name for model in models) or tuple(dict.fromkeys(names)),
        started_at=format_instant(begun),
        stages=tuple(stages),
        passed=not any(stage.state == "failed" for stage in stages),
        share=share,
    )


def _declared(project: Project, names: Sequence[str]) -> tuple[list[Model], MainspringError | None]:
    """Return the models of the run; if the definitions cannot be loaded, the error, which the first stage reports."""
    try:
        declared = project.definitions.models
    except MainspringError as error:
        return [], error
    models = [project.definitions.model(name) for name in dict.fromkeys(names)] or list(declared.values())
    if not models:
        raise NotFound(
            "The project declares no model.", fix="declare one with @ms.model; `mainspring advise` says more."
        )
    return models, None


def _stages(work: dict[str, Callable[[], Iterable[Check]]], *, deploy: bool, ended: Ended) -> list[Stage]:
    stages: list[Stage] = []
    for name in STAGES:
        begun = time.monotonic()
        if any(stage.state == "failed" for stage in stages):
            checks = [skipped(name, "a stage before has failed")]
        elif name in ("staging", "production") and not deploy:
            checks = [skipped(name, "not asked for: `mainspring ci --deploy`")]
        else:
            checks = _checks(name, work[name])
        stages.append(stage_of(name, checks, time.monotonic() - begun))
        ended(stages[-1])
    return stages


def _checks(name: str, work: Callable[[], Iterable[Check]]) -> list[Check]:
    checks: list[Check] = []
    try:
        for check in work():
            checks.append(readable(check))  # noqa: PERF401  (those before an error stay)
    except MainspringError as error:
        checks.append(readable(failed(name, error.what, error.fix or "")))
    except Exception as error:  # the project's own code may raise anything, and the report has to say so
        place = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        checks.append(readable(failed(name, detail, "run its command alone with --debug, such as `mainspring train`")))
    return checks
