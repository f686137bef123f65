"""The pages of chains of answers and their JSON API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer, answers
from mainspring.console.chains.figures import AnswerFigures
from mainspring.console.chains.listing import SHOWN, chain_page, chain_rows, cost_of
from mainspring.console.features.pages import Frame
from mainspring.console.paging import Begin, paged
from mainspring.console.permissions import seen
from mainspring.console.render import page
from mainspring.core.ids import check_id
from mainspring.operations.answers import AnswersReport, answer_chains
from mainspring.project import Project
from mainspring.security.model import Action


def add_chain_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/answers`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "language models", "cost_of": cost_of, **content}

    @router.get("/answers")
    def show_chains(request: Request, begin: Begin = 0) -> Response:
        known = seen(request, project, Action.PREDICTION_READ, "endpoint", project.definitions.answers)
        of = paged(sorted(known), begin)
        return page("chains.html", framed(request, of=of, rows=chain_rows(project, of.rows)))

    @router.get("/answers/{name}")
    def show_chain(request: Request, name: str) -> Response:
        return page("chain.html", framed(request, view=chain_page(project, check_id(name, "chain of answers"))))


def add_chain_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/answers`."""

    @router.get("/answers")
    @answers(answers=list[AnswersReport])
    def list_chains(request: Request) -> Answer:
        """All chains of answers."""
        known = seen(
            request, project, Action.PREDICTION_READ, "endpoint", answer_chains(project), lambda each: each.name
        )
        return Answer({"answers": known})

    @router.get("/answers/{name}")
    @answers(name=str, version=str, figures=AnswerFigures | None, answers=list[dict[str, Any]])
    def show_chain(name: str) -> Answer:
        """A chain of answers with figures of its newest answers, and these without their texts."""
        view = chain_page(project, check_id(name, "chain of answers"))
        newest = [{"id": each.id, "at": each.at, "outputs": dict(each.outputs)} for each in view.answers[:SHOWN]]
        return Answer({"name": name, "version": view.version, "figures": view.figures, "answers": newest})
