"""The pages of prompts and their JSON API, read-only: `apply` records versions, a command moves aliases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer, answers
from mainspring.console.features.pages import Frame
from mainspring.console.paging import Begin
from mainspring.console.permissions import seen
from mainspring.console.prompts.listing import prompt_page, prompt_rows
from mainspring.console.render import page
from mainspring.core.ids import check_id
from mainspring.llm.prompts import PromptAlias, PromptVersion
from mainspring.operations.prompts import PromptDifference, prompt_difference, prompt_version
from mainspring.project import Project
from mainspring.security.model import Action

Number = Annotated[int | None, Query(ge=1, le=10**9)]


def add_prompt_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/prompts`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "language models", **content}

    @router.get("/prompts")
    def show_prompts(request: Request, begin: Begin = 0) -> Response:
        return page("prompts.html", framed(request, of=prompt_rows(project, begin)))

    @router.get("/prompts/{name}")
    def show_prompt(
        request: Request, name: str, before: Number = None, after: Number = None, begin: Begin = 0
    ) -> Response:
        chains = seen(request, project, Action.PREDICTION_READ, "endpoint", project.definitions.answers)
        view = prompt_page(project, check_id(name, "prompt"), before, after, chains, begin)
        return page("prompt.html", framed(request, view=view, before=before, after=after))


def add_prompt_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/prompts`."""

    @router.get("/prompts")
    @answers(prompts=list[PromptVersion])
    def list_prompts() -> Answer:
        """The newest version of each prompt."""
        return Answer({"prompts": project.prompts.newest()})

    @router.get("/prompts/{name}")
    @answers(versions=list[PromptVersion], aliases=list[PromptAlias])
    def show_prompt(name: str) -> Answer:
        """The versions of a prompt, the newest first, and its aliases."""
        prompt_version(project, check_id(name, "prompt"))
        return Answer({"versions": project.prompts.all(name), "aliases": project.prompts.aliases(name)})

    @router.get("/prompts/{name}/difference")
    @answers(PromptDifference)
    def show_difference(name: str, before: Number = None, after: Number = None) -> Answer:
        """The changes between two versions of a prompt, by default the last two, line by line."""
        return Answer(prompt_difference(project, check_id(name, "prompt"), before, after))
