"""Search of a model's training data for wrong labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mainspring.features.model import views_of
from mainspring.operations.apply import apply
from mainspring.operations.auditing import audit
from mainspring.operations.features.deriving import derive
from mainspring.operations.ingest import WITHHELD
from mainspring.project import Project
from mainspring.registry.runs import sweep
from mainspring.training.inputs import all_groups
from mainspring.training.label_issues import Suspects, personal_keys


def label_issues(
    project: Project,
    model: str,
    *,
    since: int | None = None,
    until: int | None = None,
    folds: int = 5,
    reveal: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[str, Suspects]:
    """Return the run in which it is recorded, and the rows whose labels are probably wrong; see `Trainer.suspects`.

    A model that declares a search is fitted with the best parameters of its last search.

    Args:
        reveal: Whether keys that identify a person are shown too; the audit log records it.
    """
    chosen = project.definitions.model(model)
    apply(project)
    sweep(project.tracking, project.wall)
    if chosen.search is not None:
        from mainspring.operations.search.searching import with_best

        chosen, _ = with_best(project, chosen)
    until = project.clock.now() if until is None else until
    derive(project, views_of(all_groups(chosen)))
    run, found = project.trainer.suspects(chosen, since=since, until=until, folds=folds, progress=progress)
    hidden = personal_keys(chosen)
    if reveal and hidden:
        audit(project, "labels.reveal", f"model/{model}", f"run {run}")
    elif hidden:
        shown = [
            replace(each, keys={name: WITHHELD if name in hidden else value for name, value in each.keys.items()})
            for each in found.suspects
        ]
        found = replace(found, suspects=tuple(shown))
    return run, found
