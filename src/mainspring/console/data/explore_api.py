"""JSON API of feature views, tables and dataset commits: the content of their pages."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from mainspring.console.answers import LATER, Answer, Json
from mainspring.console.background_cache import Looking
from mainspring.console.data.commits import commit_list, commit_page, differences
from mainspring.console.data.tables import find_source, profiled, source_page, source_rows, table_list
from mainspring.console.features.values import (
    Seen,
    entity_keys,
    feature_list,
    find_view,
    looked_up,
    only,
    over_time,
    project_lineage,
    view_page,
)
from mainspring.console.guard import caller
from mainspring.console.permissions import seen
from mainspring.core.errors import NotFound
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.project import Project
from mainspring.security.model import Action

Id = Annotated[str, Path(pattern=f"^{ID_PATTERN}$")]
MaybeId = Annotated[str | None, Query(pattern=f"^{ID_PATTERN}$")]
Of = Annotated[str, Query(pattern="^(landed|quarantine)$")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Words = Annotated[str, Query(max_length=200)]
Reveal = Annotated[bool, Query()]


def add_explore_api(router: APIRouter, project: Project, looking: Looking) -> None:
    """Add the routes under `/api/features`, `/api/lineage` and `/api/data`."""

    @router.get("/features")
    def list_features(request: Request, q: Words = "", owner: Words = "") -> Answer:
        """Feature views, with how fresh they are and the models that use them; those found, with `q` and `owner`."""
        known = seen(request, project, Action.FEATURES_READ, "feature-view", project.definitions.views)
        return Answer(only(project, feature_list(project, q, owner or None), known))

    @router.get("/features/{view}")
    def show_view(view: Id) -> Answer:
        """One feature view: its definition, freshness and lineage."""
        return Answer(view_page(project, find_view(project, check_id(view, "feature view"))))

    @router.get("/features/{view}/distributions", responses=LATER)
    def show_distributions(view: Id, feature: Words = "") -> Json:
        """Distributions of the view's features over time, from a sample; 202 while they are computed."""
        found = find_view(project, check_id(view, "feature view"))
        if feature and feature not in found.names:
            raise NotFound(f"View {view!r} has no feature {feature!r}.", fix=f"it has {', '.join(found.names)}.")
        seen = over_time(project, looking, found)
        if seen.found is None or not feature:
            return _seen(seen)
        return Answer(seen.found.features[feature])

    @router.get("/features/{view}/online")
    def show_online(request: Request, view: Id, reveal: Reveal = False) -> Answer:
        """One entity's values now, online and offline. Its keys are parameters: `?key.origin=EWR`. With `reveal=true`
        also those of personal columns that the caller may see.
        """
        found = find_view(project, check_id(view, "feature view"))
        keys = entity_keys(found, dict(request.query_params))
        return Answer(looked_up(project, found, keys, reveal_to=caller(request).principal if reveal else None))

    @router.get("/lineage")
    def show_lineage() -> Answer:
        """The whole project's lineage: nodes, and edges from one `kind:name` to another."""
        found, problem = project_lineage(project)
        return Answer({"nodes": found.nodes, "edges": found.edges, "problem": problem})

    @router.get("/data")
    def list_tables(request: Request) -> Answer:
        """Every source with its table: rows, size, newest event, quarantine; and the other tables."""
        return Answer(table_list(project, partial(seen, request, project, Action.TABLE_READ, "table")))

    @router.get("/data/commits")
    def list_commits() -> Answer:
        """Dataset commits with their tags, newest first."""
        return Answer({"commits": commit_list(project)})

    @router.get("/data/commits/{commit}")
    def show_commit(commit: Id, to: MaybeId = None) -> Answer:
        """One dataset commit beside its parent, or beside the commit or tag `to`."""
        other = check_id(to, "commit") if to else None
        view = commit_page(project, check_id(commit, "commit"), other)
        trained = {"runs": view.runs, "versions": view.versions}
        return Answer({"commit": view.commit, "tags": view.tags, "other": view.other, "tables": view.tables, **trained})

    @router.get("/data/commits/{commit}/difference", responses=LATER)
    def show_difference(commit: Id, to: MaybeId = None) -> Json:
        """Difference of its rows and columns from its parent's, or from those of `to`; 202 while they are compared."""
        other = check_id(to, "commit") if to else None
        return _seen(differences(project, looking, commit_page(project, check_id(commit, "commit"), other)))

    @router.get("/data/tables/{source}")
    def show_source(source: Id) -> Answer:
        """One source: its schema, checks, what failed them, the commits that changed it, its lineage."""
        return Answer(source_page(project, find_source(project, check_id(source, "source"))))

    @router.get("/data/tables/{source}/rows")
    def show_rows(request: Request, source: Id, of: Of = "landed", limit: Limit = 20, reveal: Reveal = False) -> Answer:
        """Rows as ingested, or with `of=quarantine` those that failed, with the reason; the last ingested first. Values
        that identify a person are withheld, or pseudonyms where the caller may see these; with `reveal=true` they are
        as they are where the caller may see them.
        """
        chosen, principal = find_source(project, check_id(source, "source")), caller(request).principal
        found = source_rows(project, principal, chosen, of, limit, reveal=reveal)
        return Answer({"source": source, "of": of, "rows": found})

    @router.get("/data/tables/{source}/profile", responses=LATER)
    def show_profile(source: Id) -> Json:
        """Profile of the source's columns; 202 while it is computed."""
        return _seen(profiled(project, looking, find_source(project, check_id(source, "source"))))


def _seen(seen: Seen[Any]) -> Json:
    seen.raise_failure()
    if not seen.ready:
        response = Json({"ready": False}, 202)
        response.headers["retry-after"] = "2"
        return response
    return Answer(seen.found)
