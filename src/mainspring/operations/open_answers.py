"""Opening of answer chains: their versions over the project's collections, language models and log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from msgspec.structs import replace

from mainspring.core.ids import new_id
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.recording import AnswerLog
from mainspring.llm.answers.retrieving import CollectionRetrieving
from mainspring.llm.answers.serving import OpenAnswers
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.model import Call
from mainspring.llm.ports import Answering, Upstream
from mainspring.operations.answer_versions import declaration, declared_name, route_of
from mainspring.operations.collections import opened, words_of
from mainspring.project import Project
from mainspring.project.guards import guarded
from mainspring.project.language_models import build_upstream
from mainspring.project.retrieval import quoting, reranking
from mainspring.registry.processes import local_user
from mainspring.security.model import Principal
from mainspring.serving.plane.lane import monotonic_us
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build, Mode
from mainspring.vectors.ports import Encoder, TextIndex, VectorIndex

T = TypeVar("T")
Models = Callable[[LanguageModel], Answering]  # returns what answers for a language model


def open_answers(project: Project, name: str, models: Models) -> OpenAnswers:
    """Return a chain that is asked as its champion and its rollout decide, and whose answers are recorded.

    Args:
        models: Called once for each version.

    Raises:
        NotFound: The chain is not declared.
    """
    declared = project.definitions.answer_chain(name)

    def version(number: str) -> AnswerChain:
        chosen = declaration(project, name, number)
        return open_chain(project, chosen, models, number or declared_name(project, declared), recorded=True)

    return OpenAnswers(declared, lambda: route_of(project, name), version, project.prediction_log, project.clock)


def open_chain(
    project: Project, declared: Answers, models: Models, version: str = "", *, recorded: bool = False
) -> AnswerChain:
    """Return one version of a chain.

    Args:
        declared: As `declaration` returns it.
        recorded: Whether its answers are in the prediction log.

    Raises:
        NotFound: Its collection was never built.
    """
    collection, mode = declared.retriever.collection, declared.retriever.searches
    searched(project, collection, mode)  # fails before an upstream is opened
    return AnswerChain(
        declared,
        CollectionRetrieving(collection, lambda: searched(project, collection, mode), mode),
        _quoting(project, collection) if declared.model is None else models(declared.model),
        project.clock,
        AnswerLog(project.prediction_log, declared, version) if recorded else None,
        reranking(project, declared.retriever),
        version,
    )


def searched(
    project: Project, collection: Collection, mode: Mode
) -> tuple[Build, VectorIndex, Encoder, TextIndex | None]:
    """Return the build that searches use, its index, its encoder, and its index of words if the mode needs one.

    Raises:
        NotFound: The collection was never built.
    """
    build, index = opened(project, collection)
    words = words_of(project, collection, build, mode)
    return build, index, project.encoder(collection.encoder, build.encoder, for_queries=True), words


def run(project: Project, act: Callable[[Models], Awaitable[T]]) -> T:
    """Return what an act with language models returns, on an event loop of its own, with their upstreams open."""

    async def running() -> T:
        async with AsyncExitStack() as stack:
            upstreams: dict[str, Upstream] = {}
            for server in project.settings.upstreams.values():
                if server.url:
                    upstreams[server.name] = build_upstream(server)
                    stack.push_async_callback(upstreams[server.name].close)
            assemble = guarded(project)

            def answering(model: LanguageModel) -> Answering:
                wanted = {each.upstream for each in model.upstreams}
                return assemble(model, {name: each for name, each in upstreams.items() if name in wanted})

            return await act(answering)

    return asyncio.run(running())


def local_call(declared: Answers) -> Call:
    """Return the call of a question that the user of this process asks."""
    user = local_user()
    call = Call(id=new_id(), caller=Principal(user, user, frozenset()), begun=monotonic_us())
    return call if declared.model is None else replace(call, deadlines=declared.model.deadlines)


def _quoting(project: Project, collection: Collection) -> Answering:
    return quoting(lambda: project.encoder(collection.encoder, opened(project, collection)[0].encoder))
