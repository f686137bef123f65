"""The pages of predictions: the list by conditions, one prediction with its provenance, and its replay on request."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer
from mainspring.console.downloads import csv_file
from mainspring.console.endpoints.api import Id
from mainspring.console.features.pages import Frame
from mainspring.console.predictions.evidence import evidence
from mainspring.console.render import page
from mainspring.core.errors import MainspringError
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.operations.endpoint_health import endpoints
from mainspring.operations.predictions import (
    LIMIT,
    STATUSES,
    Conditions,
    Listed,
    Listing,
    as_command,
    as_python,
    document,
    list_predictions,
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


def add_prediction_pages(router: APIRouter, project: Project, frame: Frame) -> None:
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
            "endpoints": endpoints(project),
            "statuses": STATUSES,
            "command": as_command(asked),
            "python": as_python(asked),
            "moments": _moments(project),
        }
        status = 400 if refused is not None else 200
        return page("predictions.html", {**frame(request), "section": "predictions", **content}, status=status)

    @router.get("/predictions.csv")
    def download_predictions(asked: Asked, labels: Annotated[bool, Query()] = False) -> Response:
        found = list_predictions(project, asked, limit=_MOST_ROWS, labels=labels)
        return csv_file("predictions.csv", *table(found))

    @router.get("/predictions/{prediction_id}")
    def show_prediction(request: Request, prediction_id: str, replayed: Annotated[bool, Query()] = False) -> Response:
        view = evidence(project, check_id(prediction_id, "prediction"))
        content = {
            "view": view,
            "asker": _name_of(project, view.prediction.principal),
            "declared": project.definitions.views,
            "again": replay(project, prediction_id) if replayed else None,
        }
        return page("prediction.html", {**frame(request), "section": "predictions", **content})


def add_prediction_api(router: APIRouter, project: Project) -> None:
    """Add `/api/predictions` and what is below it."""

    @router.get("/predictions")
    def find_predictions(
        asked: Asked, limit: Limit = LIMIT, before: Word = "", labels: Annotated[bool, Query()] = False
    ) -> Response:
        """The newest predictions that fulfil every given condition, newest first.

        `key` is `name=value` of an entity key, or the value of any; `label` is `known`, `unknown` or a value; `status`
        is of at least one stored feature; times are ISO 8601. `next` is the `before` of the next page. `searched` is
        the instant down to which was looked, where very many did not match; null otherwise.
        """
        found = list_predictions(project, asked, limit=limit, before=before, labels=labels)
        return Answer(
            {
                "predictions": [document(each, labels=found.labels) for each in found.rows],
                "next": found.next or None,
                "searched": found.searched,
            }
        )

    @router.get("/predictions/{prediction_id}")
    def find_prediction(prediction_id: Id) -> Response:
        """One prediction with its provenance and its label; for several labels, `labels` has each."""
        view = evidence(project, check_id(prediction_id, "prediction"))
        return Answer(
            {
                "prediction": document(Listed(prediction=view.prediction), labels=False),
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
    def replay_prediction(prediction_id: Id) -> Response:
        """The prediction answered again by the bundle that made it, and its features read again as of its instant."""
        return Answer(replay(project, check_id(prediction_id, "prediction")))


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
