"""The trace of an answer: question, search, prompt, model and citations, step by step, with tokens and cost."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller
from mainspring.console.render import page
from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id
from mainspring.ledger.model import Prediction
from mainspring.llm.answers.recording import RecordedAnswer
from mainspring.operations.answers import revealed_answer
from mainspring.project import Project

Reveal = Annotated[bool, Query()]
INDEX = "answer.index"  # a feature of every recorded answer


def is_answer(prediction: Prediction) -> bool:
    """Return whether a logged prediction is the answer of a chain."""
    return INDEX in prediction.features


def add_answer_page(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the page `/predictions/{prediction_id}/answer`."""

    @router.get("/predictions/{prediction_id}/answer")
    def show_answer(request: Request, prediction_id: str, reveal: Reveal = False) -> Response:
        made = _found(project, check_id(prediction_id, "prediction"))
        told = revealed_answer(project, made.id, caller(request).principal) if reveal else None
        content: dict[str, Any] = {"made": made, "told": told, "texts": _texts(told)}
        return page("answer.html", {**frame(request), "section": "predictions", **content})


def add_answer_api(router: APIRouter, project: Project) -> None:
    """Add the route `/predictions/{prediction_id}/answer`."""

    @router.get("/predictions/{prediction_id}/answer")
    def show_answer(request: Request, prediction_id: str, reveal: Reveal = False) -> Answer:
        """The trace of an answer. Its texts identify a person: with `reveal=true` they are shown to those who may see
        them, with an event in the audit log."""
        made = _found(project, check_id(prediction_id, "prediction"))
        told = revealed_answer(project, made.id, caller(request).principal) if reveal else None
        outputs = dict(made.outputs)
        return Answer({"id": made.id, "answers": made.endpoint, "at": made.at, "outputs": outputs, "texts": told})


def _found(project: Project, prediction_id: str) -> Prediction:
    made = project.predictions.find(prediction_id)
    if not is_answer(made):
        raise NotFound(f"Prediction {prediction_id} is no answer of a chain.", fix="open the prediction itself.")
    return made


def _texts(told: RecordedAnswer | None) -> list[tuple[str, str]]:
    """Return the messages of the prompt: role and text."""
    if told is None or told.request is None:
        return []
    return [(each.role, each.text) for each in told.request.messages]
