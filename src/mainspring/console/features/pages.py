"""The pages of feature views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from mainspring.console.background_cache import Looking
from mainspring.console.features.charts import charts, median_spark
from mainspring.console.features.drift import view_drift
from mainspring.console.features.values import (
    KEY,
    Seen,
    ViewPage,
    entity_keys,
    feature_list,
    find_view,
    looked_up,
    only,
    over_time,
    page_of,
    source_address,
    view_page,
)
from mainspring.console.guard import caller
from mainspring.console.lineage_picture import picture
from mainspring.console.permissions import seen
from mainspring.console.render import page
from mainspring.core.error_codes import codes_of
from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.ids import check_id
from mainspring.core.time import format_instant, from_datetime
from mainspring.features.describe.distributions import Distributions
from mainspring.features.model import FeatureView
from mainspring.operations.data.lineage import VIEW
from mainspring.operations.features.entity_values import EntityValues
from mainspring.project import Project
from mainspring.security.model import Action, Principal

Frame = Callable[[Request], dict[str, Any]]
_LONGEST_SEARCH = 200


def add_feature_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the routes `/features` and `/features/{view}`."""

    @router.get("/features")
    def show_features(request: Request, q: str = "", owner: str = "") -> Response:
        words = q.strip()[:_LONGEST_SEARCH]
        known = seen(request, project, Action.FEATURES_READ, "feature-view", project.definitions.views)
        found = only(project, feature_list(project, words, owner or None), known)
        content = {
            "found": found,
            "words": words,
            "owner": owner,
            "section": "features",
            "source_address": source_address,
        }
        return page("features.html", {**frame(request), **content})

    @router.get("/features/{name}")
    def show_view(
        request: Request, name: str, feature: str | None = None, reveal: Annotated[bool, Query()] = False
    ) -> Response:
        if check_id(name, "feature view") in project.definitions.request_features:
            return RedirectResponse(f"/features#{name}", status_code=303)
        view = find_view(project, name)
        if feature is not None and feature not in view.names:
            raise NotFound(f"View {name!r} has no feature {feature!r}.", fix=f"it has {', '.join(view.names)}.")
        reveal_to = caller(request).principal if reveal else None
        content, status = _content(project, looking, view, feature, dict(request.query_params), reveal_to)
        return page("view.html", {**frame(request), **content}, status=status)


def _content(
    project: Project,
    looking: Looking,
    view: FeatureView,
    feature: str | None,
    query: dict[str, str],
    reveal_to: Principal | None,
) -> tuple[dict[str, Any], int]:
    shown = view_page(project, view)
    seen = over_time(project, looking, view)
    texts = entity_keys(view, query)
    values: EntityValues | None = None
    refused, status = None, 200
    if texts:
        try:
            values = looked_up(project, view, texts, reveal_to=reveal_to)
        except MainspringError as error:
            refused, status = error, 422 if codes_of(error).http == 400 else codes_of(error).http
    chosen = feature or view.names[0]
    return {
        "view": shown,
        "drift": view_drift(project, view.name),
        "section": "features",
        "picture": _picture(shown),
        "seen": seen,
        "chosen": chosen,
        "charts": charts(seen.found.features[chosen]) if seen.found else (),
        "hidden": seen.found is not None and seen.found.features[chosen].kind == "hidden",
        "sparks": {name: median_spark(each) for name, each in seen.found.features.items()} if seen.found else {},
        "texts": texts,
        "revealing": urlencode({**{f"{KEY}{name}": text for name, text in texts.items()}, "reveal": "true"}),
        "key_prefix": KEY,
        "values": values,
        "refused": refused,
        "examples": _examples(seen),
        "source_address": source_address,
    }, status


def _picture(shown: ViewPage) -> Any:
    return picture(shown.lineage, f"{VIEW}:{shown.name}", page_of)


def _examples(seen: Seen[Distributions]) -> list[dict[str, str]]:
    """Return keys in the form in which a user types them."""
    return [{name: _typed(value) for name, value in key.items()} for key in (seen.found.examples if seen.found else ())]


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_instant(from_datetime(value)) if hasattr(value, "tzinfo") else str(value)
