"""JSON API of endpoints: versions in service, monitor windows, capacity."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from mainspring.console.answers import Answer, answers
from mainspring.console.permissions import seen_endpoints
from mainspring.core.errors import NotFound
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.core.time import DAY
from mainspring.monitoring.model import Window
from mainspring.monitoring.service.burning import ObjectiveReport
from mainspring.monitoring.service.samples import Sample
from mainspring.operations.callers import Caller, callers
from mainspring.operations.column_comparison import ColumnComparison, column_comparison
from mainspring.operations.endpoint_health import endpoints
from mainspring.operations.fairness import Fairness, live_fairness
from mainspring.operations.quality import MeasuredWindow, quality
from mainspring.operations.quotas import QuotaUse, use
from mainspring.operations.scaling import Scaling, scaling
from mainspring.operations.service.objectives import objectives
from mainspring.project import Project
from mainspring.serving.model import Baseline
from mainspring.stats.fairness.reporting import LEAST_ROWS

Id = Annotated[str, Path(pattern=f"^{ID_PATTERN}$")]
Instant = Annotated[int, Query(ge=-(2**63), lt=2**63)]  # UTC epoch microseconds
Maybe = Annotated[int | None, Query(ge=0, lt=2**62)]
Column = Annotated[str, Query(max_length=300)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def add_endpoint_api(router: APIRouter, project: Project) -> None:
    """Add the routes under /api/endpoints."""

    def known(name: str) -> str:
        if check_id(name, "endpoint") not in endpoints(project):
            raise NotFound(f"There is no endpoint {name!r}.", fix="GET /api/endpoints lists them.")
        return name

    @router.get("/endpoints")
    def list_endpoints(request: Request) -> Answer:
        """Every endpoint, declared or routed, with its route; null where it has none."""
        table = project.routes.current()
        names = seen_endpoints(request, project, endpoints(project))
        return Answer({"endpoints": [{"name": name, "route": table.get(name)} for name in names]})

    @router.get("/endpoints/{name}/windows")
    @answers(endpoint=str, windows=list[Window])
    def list_windows(name: Id, since: Instant = 0, until: Instant | None = None) -> Answer:
        """Monitor windows that start in `[since, until)`, oldest first."""
        return Answer({"endpoint": known(name), "windows": project.monitors.windows(name, since, until)})

    @router.get("/endpoints/{name}/quality")
    @answers(endpoint=str, windows=list[MeasuredWindow])
    def list_quality(name: Id, since: Instant = 0, until: Instant | None = None) -> Answer:
        """The same windows with their quality by version and segment, with intervals, and estimates before labels."""
        windows = project.monitors.windows(known(name), since, until)
        return Answer({"endpoint": name, "windows": quality(project, name, windows)})

    @router.get("/endpoints/{name}/fairness")
    @answers(Fairness)
    def show_fairness(
        name: Id,
        since: Maybe = None,
        until: Maybe = None,
        least_rows: Annotated[int, Query(ge=1, le=10**6)] = LEAST_ROWS,
    ) -> Answer:
        """Measures of the declared groups in `[since, until)`, by default 30 days, with the gaps between groups."""
        return Answer(live_fairness(project, known(name), since=since, until=until, least_rows=least_rows))

    @router.get("/endpoints/{name}/distribution")
    @answers(ColumnComparison)
    def show_distribution(name: Id, column: Column, since: Instant = 0, until: Instant = 2**62) -> Answer:
        """One column of the predictions in `[since, until)` beside its training reference, by bins."""
        return Answer(column_comparison(project, known(name), column, since, until))

    @router.get("/endpoints/{name}/callers")
    @answers(endpoint=str, quotas=list[QuotaUse], callers=list[Caller])
    def list_callers(name: Id, since: Maybe = None, until: Maybe = None) -> Answer:
        """Callers in `[since, until)`, by default a day, by their share of the rows, and what quotas have left."""
        end = project.clock.now() + 1 if until is None else until
        begin = end - DAY if since is None else since
        found = callers(project, known(name), begin, end)
        return Answer({"endpoint": name, "quotas": use(project, name), "callers": found})

    @router.get("/endpoints/{name}/objectives")
    @answers(endpoint=str, objectives=list[ObjectiveReport])
    def list_objectives(name: Id) -> Answer:
        """Objectives of the endpoint, with what is left of each error budget and how fast it is used up."""
        declared = known(name) in project.definitions.endpoints
        return Answer({"endpoint": name, "objectives": objectives(project, name) if declared else []})

    @router.get("/endpoints/{name}/service")
    @answers(endpoint=str, samples=list[Sample])
    def list_samples(name: Id, since: Instant, until: Instant) -> Answer:
        """Counts of requests and durations in `[since, until)`, by minute or hour, oldest first."""
        return Answer({"endpoint": known(name), "samples": project.service.samples(since, until, [name])})

    @router.get("/endpoints/{name}/scaling")
    @answers(Scaling)
    def show_scaling(name: Id, since: Maybe = None) -> Answer:
        """Executors, memory and cache of the endpoint now, and the decisions from `since` on, by default a day."""
        begin = project.wall.now() - DAY if since is None else since
        return Answer(scaling(project, begin, known(name)))

    @router.get("/endpoints/{name}/baselines")
    @answers(endpoint=str, baselines=list[Baseline])
    def list_baselines(name: Id, limit: Limit = 10) -> Answer:
        """Measured baselines of the endpoint, newest first."""
        return Answer({"endpoint": known(name), "baselines": project.baselines.newest(name, limit)})
