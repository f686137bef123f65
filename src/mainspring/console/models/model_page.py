"""View model of one model: its versions, the decisions on them, the endpoints that serve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.console.charts import Chart
from mainspring.console.models.decision_history import History, history
from mainspring.console.models.figures import Figures, columns, figures_of, over_versions, record_of, runs_of
from mainspring.console.models.listing import Choose, Serving, serving, shares, state_of
from mainspring.core.errors import NotFound
from mainspring.delivery.approving import counted
from mainspring.delivery.routing import CHAMPION
from mainspring.operations.models.curating import people
from mainspring.operations.search.searching import SEARCH
from mainspring.project import Project
from mainspring.registry.lineage import authors_of
from mainspring.registry.model import Approval, Deletion, ModelVersion
from mainspring.registry.searching import Column, Condition, Kind, RunQuery, RunRow

PAGE, DRAWN, TOLD, SEARCHES = 20, 60, 8, 5


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version in the table. `approvers` are the people whose approval counts; see `delivery.approving.counted`."""

    version: ModelVersion
    authors: tuple[str, ...]
    figures: Figures
    approvers: tuple[str, ...]
    mark: Deletion | None
    serves: Mapping[str, float]  # endpoint -> share
    run: bool  # whether the run is in this installation's store

    @property
    def state(self) -> str:
        """A key of `listing.STATES`."""
        return state_of(self.version, self.mark, self.serves)


@dataclass(frozen=True, slots=True)
class ModelPage:
    """One model. `rows` are the versions below `before`, newest first, or the newest."""

    name: str
    declared: bool
    description: str
    owner: str
    task: str
    features: tuple[str, ...]
    gates: tuple[str, ...]
    aliases: Mapping[str, str]
    marked: int
    serving: tuple[Serving, ...]
    versions: int
    rows: tuple[VersionRow, ...]
    before: int | None
    next: int | None  # the `before` of the next page
    metrics: tuple[str, ...]
    chart: Chart | None
    history: History
    searches: tuple[RunRow, ...]


def known_versions(project: Project, model: str) -> list[ModelVersion]:
    """Return a model's versions by number, newest first.

    Raises:
        NotFound: It is neither declared nor registered.
    """
    versions = project.versions.all(model)
    if not versions and model not in project.definitions.models and not project.versions.moves(model):
        raise NotFound(f"There is no model {model!r}.", fix="GET /api/models lists them.")
    return sorted(versions, key=lambda version: -int(version.version))


def model_page(
    project: Project, model: str, seen: Choose = list, *, before: int | None = None, limit: int = PAGE
) -> ModelPage:
    """Return the page of a model.

    Args:
        seen: Returns those of some endpoints that the caller may see.
        before: Only versions with a smaller number.

    Raises:
        NotFound: It is neither declared nor registered.
    """
    versions = known_versions(project, model)
    wanted = [version for version in versions if before is None or int(version.version) < before]
    shown, drawn = wanted[:limit], versions[:DRAWN]
    runs = runs_of(project, [*shown, *drawn])
    figures = {run_id: figures_of(run) for run_id, run in runs.items()}
    declared, served = project.definitions.models.get(model), serving(project, seen).get(model, ())
    aliases = {alias: version.version for version in reversed(versions) for alias in version.aliases}
    metrics = columns(project, model, list(figures.values()))
    champion, own = aliases.get(CHAMPION), declared.metrics if declared else ()
    marks = {mark.version: mark for mark in project.deletions.all() if mark.model == model}
    return ModelPage(
        name=model,
        declared=declared is not None,
        description=declared.description if declared else "",
        owner=declared.owner if declared else "",
        task=str(declared.task) if declared else "",
        features=tuple(declared.inputs) if declared else (),
        gates=tuple(map(str, project.definitions.gates_of(model))),
        aliases=aliases,
        marked=len(marks),
        serving=served,
        versions=len(versions),
        rows=_rows(project, shown, runs, figures, marks, served),
        before=before,
        next=int(shown[-1].version) if len(wanted) > len(shown) else None,
        metrics=metrics,
        chart=over_versions(metrics[0], drawn, figures, champion, own) if metrics else None,
        history=history(project, model, limit=TOLD),
        searches=searches(project, model),
    )


def _rows(
    project: Project,
    shown: Sequence[ModelVersion],
    runs: Mapping[str, RunRow],
    figures: Mapping[str, Figures],
    marks: Mapping[str, Deletion],
    served: tuple[Serving, ...],
) -> tuple[VersionRow, ...]:
    approvals: dict[str, list[Approval]] = {}
    for each in project.approvals.of(shown[0].model) if shown else ():
        approvals.setdefault(each.version, []).append(each)
    rows, known = [], people(project)
    for version in shown:
        run = runs.get(version.run_id)
        authors = authors_of(version, record_of(run))
        rows.append(
            VersionRow(
                version=version,
                authors=authors,
                figures=figures.get(version.run_id, Figures({}, {})),
                approvers=counted(version, authors, approvals.get(version.version, ()), known),
                mark=marks.get(version.version),
                serves=shares(served, version.version),
                run=run is not None,
            )
        )
    return tuple(rows)


def searches(project: Project, model: str) -> tuple[RunRow, ...]:
    """Return a model's newest hyperparameter searches."""
    conditions = (
        Condition(Column(Kind.ATTRIBUTE, "model"), "=", model),
        Condition(Column(Kind.TAG, SEARCH), "is not null"),
    )
    return project.run_search.search(RunQuery(conditions, limit=SEARCHES)).runs
