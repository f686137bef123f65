"""The pages of predictions: the list by conditions, one prediction with its provenance, and on request its replay and
its explanation."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import LATER, Answer, Json
from mainspring.console.background_cache import Looking
from mainspring.console.downloads import csv_file
from mainspring.console.endpoints.api import Id
from mainspring.console.features.pages import Frame
from mainspring.console.features.values import entity_address
from mainspring.console.guard import caller
from mainspring.console.permissions import seen_endpoints
from mainspring.console.predictions import explanation
from mainspring.console.predictions.evidence import evidence
from mainspring.console.render import page
from mainspring.core.errors import MainspringError
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.operations.endpoint_health import endpoints
from mainspring.operations.predictions import (
    LIMIT,
    STATUSES,
    Conditions,
    Listing,
    document,
    list_predictions,
    listed_document,
    table,
)
from mainspring.operations.replay.replaying import replay
from mainspring.project import Project

Word = Annotated[str, Query(max_length=400)]
MaybeId = Annotated[str, Query(pattern=f"^({ID_PATTERN})?$")]
Limit = Annotated[int, Query(ge=1, le=1000)]
_MOST_ROWS = 10_000  # of a file


def _conditions(
    endpoint: MaybeId = "",
    version: Word = "",
    key: Word = "",
    score_from: Word = "",
    score_to: Word = "",
    label: Word = "",
    status: Word = "",
    since: Word = "",
    until: Word = "",
) -> Conditions:
    return Conditions(
        endpoint=endpoint.strip(),
        version=version.strip(),
        key=key.strip(),
        score_from=score_from.strip(),
        score_to=score_to.strip(),
        label=label.strip(),
        status=status.strip(),
        since=since.strip(),
        until=until.strip(),
    )


Asked = Annotated[Conditions, Depends(_conditions)]


def _explanation(
    explained: Annotated[Literal["", "exact", "sampled"], Query()] = "",
    wanted: Word = "",
    mutable: Annotated[str, Query(max_length=2000)] = "",
    changes: Annotated[int, Query(ge=1, le=5)] = 3,
) -> explanation.Asked:
    return explanation.Asked(explained, wanted.strip(), mutable.strip(), changes)


AskedWhy = Annotated[explanation.Asked, Depends(_explanation)]


def add_prediction_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add the routes under `/predictions`."""

    @router.get("/predictions")
    def show_predictions(
        request: Request, asked: Asked, labels: Annotated[bool, Query()] = False, before: Word = ""
    ) -> Response:
        refused: MainspringError | None = None
        found = Listing(rows=(), next="", searched=None, labels=labels)
        try:
            found = list_predictions(project, asked, before=before, labels=labels)
        except MainspringError as error:
            refused = error
        given = {**asked.given, **({"labels": "true"} if labels else {})}
        content: dict[str, Any] = {
            "asked": asked,
            "found": found,
            "before": before,
            "labels": labels,
            "refused": refused,
            "kept": urlencode(given),
            "endpoints": seen_endpoints(request, project, endpoints(project)),
            "statuses": STATUSES,
            "moments": _moments(project),
        }
        status = 400 if refused is not None else 200
        return page("predictions.html", {**frame(request), "section": "predictions", **content}, status=status)

    @router.get("/predictions.csv")
    def download_predictions(asked: Asked, labels: Annotated[bool, Query()] = False) -> Response:
        found = list_predictions(project, asked, limit=_MOST_ROWS, labels=labels)
        return csv_file("predictions.csv", *table(found))

    @router.get("/predictions/{prediction_id}")
    def show_prediction(
        request: Request,
        prediction_id: str,
        why: AskedWhy,
        replayed: Annotated[bool, Query()] = False,
        reveal: Annotated[bool, Query()] = False,
    ) -> Response:
        reveal_to = caller(request).principal if reveal else None
        view = evidence(project, check_id(prediction_id, "prediction"), reveal_to=reveal_to)
        content = {
            "view": view,
            "asker": _name_of(project, view.prediction.principal),
            "declared": project.definitions.views,
            "states": {
                name: entity_address(each, view.prediction.keys) for name, each in project.definitions.views.items()
            },
            "again": replay(project, prediction_id) if replayed else None,
            "why": why,
            "explained": explanation.seen(project, looking, prediction_id, why) if why.way else None,
            "steps": explanation.steps,
        }
        return page("prediction.html", {**frame(request), "section": "predictions", **content})


def add_prediction_api(router: APIRouter, project: Project, looking: Looking) -> None:
    """Add `/api/predictions` and what is below it."""

    @router.get("/predictions")
    def find_predictions(
        asked: Asked, limit: Limit = LIMIT, before: Word = "", labels: Annotated[bool, Query()] = False
    ) -> Answer:
        """The newest predictions that fulfil every given condition, newest first.

        `key` is `name=value` of an entity key, or the value of any; `label` is `known`, `unknown` or a value; `status`
        is of at least one stored feature; times are ISO 8601. `next` is the `before` of the next page. `searched` is
        the instant down to which was looked, where very many did not match; null otherwise.
        """
        found = list_predictions(project, asked, limit=limit, before=before, labels=labels)
        return Answer(
            {
                "predictions": [listed_document(each) for each in found.rows],
                "next": found.next or None,
                "searched": found.searched,
            }
        )

    @router.get("/predictions/{prediction_id}")
    def find_prediction(request: Request, prediction_id: Id, reveal: Annotated[bool, Query()] = False) -> Answer:
        """One prediction with its provenance and its label; for several labels, `labels` has each. With `reveal=true`
        also personal values, for callers who may see them.
        """
        reveal_to = caller(request).principal if reveal else None
        view = evidence(project, check_id(prediction_id, "prediction"), reveal_to=reveal_to)
        return Answer(
            {
                "prediction": document(view.prediction),
                "label": view.label,
                **({"labels": view.labels} if len(view.labels) > 1 else {}),
                "version": view.version,
                "manifest": view.manifest,
                "run": view.run,
                "dataset_commit": view.commit,
                "missing": view.missing,
            }
        )

    @router.get("/predictions/{prediction_id}/replay")
    def replay_prediction(prediction_id: Id) -> Answer:
        """The prediction answered again by the bundle that made it, and its features read again as of its instant."""
        return Answer(replay(project, check_id(prediction_id, "prediction")))

    @router.get("/predictions/{prediction_id}/explanation", responses=LATER)
    def explain_prediction(prediction_id: Id, why: AskedWhy) -> Json:
        """How much each input moved the answer, and with `wanted` the changes that would give another one; 202 while it
        is being computed.

        `explained` is `exact`, the default, or `sampled`, an estimate for any model of columns.
        """
        found = explanation.explained(project, looking, check_id(prediction_id, "prediction"), why)
        if found is None:
            return Json({"ready": False}, 202, headers={"retry-after": "2"})
        return Answer(found)


def _moments(project: Project) -> dict[str, frozenset[str]]:
    """Return model -> its keys and request fields that are instants."""
    from mainspring.core.schema import DType

    return {
        name: frozenset(
            column for column, dtype in model.observations.source.columns.items() if dtype is DType.Timestamp
        )
        for name, model in project.definitions.models.items()
    }


def _name_of(project: Project, principal_id: str) -> str:
    key = project.key_store.find(principal_id)
    return key.name if key else principal_id
