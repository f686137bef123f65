"""The trace of an answer: question, search, prompt, model and citations, step by step, with tokens and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer
from mainspring.console.chains.figures import PROMPT, is_answer
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller
from mainspring.console.render import page
from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id
from mainspring.ledger.model import Prediction
from mainspring.llm.answers.recording import RecordedAnswer
from mainspring.llm.prompts import PromptVersion
from mainspring.operations.answers import revealed_answer
from mainspring.project import Project

Reveal = Annotated[bool, Query()]
_STEPS = (("Query", "query_us"), ("Search", "search_us"), ("Reply", "reply_us"))


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an answer: its name, its time (microseconds), and where it lies in the whole as shares of it.

    Attributes:
        about: Tokens, or how much was found.
    """

    name: str
    took_us: int
    begin: float
    width: float
    about: str = ""


def steps_of(made: Prediction) -> list[Step]:
    """Return the steps of an answer in order; none of one from before they were timed."""
    of, found, at = made.outputs, list[Step](), 0
    whole = max(1, made.latency_us)
    about = {
        "Search": _of(_count(of, "passages"), "passage"),
        "Reply": f"{_count(of, 'prompt_tokens') + _count(of, 'completion_tokens'):,} tokens",
    }
    if not any(name in of for _, name in _STEPS):
        return []
    for title, name in _STEPS:
        took = _count(of, name)
        found.append(Step(title, took, at / whole, min(took / whole, 1 - at / whole), about.get(title, "")))
        at = min(whole, at + took)
    rest = max(0, made.latency_us - at)
    return [*found, Step("Check and record", rest, at / whole, rest / whole, _of(_count(of, "citations"), "citation"))]


def _of(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _count(outputs: Mapping[str, Any], name: str) -> int:
    value = outputs.get(name)
    return value if isinstance(value, int) else 0


def add_answer_page(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the page `/predictions/{prediction_id}/answer`."""

    @router.get("/predictions/{prediction_id}/answer")
    def show_answer(request: Request, prediction_id: str, reveal: Reveal = False) -> Response:
        made = _found(project, check_id(prediction_id, "prediction"))
        told = revealed_answer(project, made.id, caller(request).principal) if reveal else None
        content: dict[str, Any] = {
            "made": made,
            "told": told,
            "texts": _texts(told),
            "times": steps_of(made),
            "prompt": _prompt(project, made),
        }
        return page("answer.html", {**frame(request), "section": "language models", **content})


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


def _prompt(project: Project, made: Prediction) -> PromptVersion | None:
    """Return the recorded version of an answer's prompt."""
    digest = made.features.get(PROMPT)
    every = (version for each in project.prompts.newest() for version in project.prompts.all(each.name))
    return next((each for each in every if each.digest == digest), None)


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
