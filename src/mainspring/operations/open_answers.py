"""Opening of answer chains: their versions over the project's collections, language models and log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cache, partial
from typing import TypeVar

from msgspec.structs import replace

from mainspring.core.errors import MainspringError
from mainspring.core.ids import new_id
from mainspring.llm.answering import assemble
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.recording import AnswerLog
from mainspring.llm.answers.retrieving import CollectionRetrieving
from mainspring.llm.answers.serving import OpenAnswers
from mainspring.llm.budgets import Budgets, counted
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.llm.model import Call
from mainspring.llm.ports import Answering
from mainspring.llm.usage import FOLDER as USAGE
from mainspring.llm.usage import Usages, Watched
from mainspring.operations.answer_versions import declaration, declared_name, route_of
from mainspring.operations.collections import opened, words_of
from mainspring.project import Project
from mainspring.project.guards import guarded
from mainspring.project.language_models import OpenUpstreams, shared_budgets, shared_parts
from mainspring.project.retrieval import quoting, reranking
from mainspring.registry.processes import local_user
from mainspring.security.model import Principal
from mainspring.security.quota import Quota
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.slots import folder
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build, Mode
from mainspring.vectors.ports import Encoder, TextIndex, VectorIndex

_log = logging.getLogger(__name__)
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


def run(project: Project, act: Callable[[Models], Awaitable[T]], asked: Answers | None = None) -> T:
    """Return what an act with language models returns, on an event loop of its own.

    Their calls are held to the same budgets as those of the gateway, and counted in the same table of usage. An
    upstream is opened once a model needs it.

    Args:
        asked: A chain of which the act is one question, for its own quotas.
    """

    async def running() -> T:
        async with AsyncExitStack() as stack:
            upstreams = OpenUpstreams(project.settings.upstreams)
            stack.push_async_callback(upstreams.close)
            usages = Usages(project.settings.state / USAGE, project.wall)
            stack.push_async_callback(_written, usages)
            budgets = cache(lambda: _budgets(project, stack))
            put_together = cache(lambda: guarded(project, partial(assemble, shared=shared_parts(project, budgets()))))

            def opened_for(quotas: Sequence[Quota]) -> Budgets:
                if quotas and isinstance(machine := budgets(), MachineBudgets):
                    machine.open()
                return budgets()

            def answering(model: LanguageModel) -> Answering:
                opened_for(model.quotas)
                return Watched(put_together()(model, upstreams.of(model)), model.name, usages, monotonic_us)

            if asked is not None and asked.quotas:
                caller, name = local_caller(), asked.name
                await stack.enter_async_context(counted(opened_for(asked.quotas), asked.quotas, caller, name))
            return await act(answering)

    return asyncio.run(running())


def _budgets(project: Project, stack: AsyncExitStack) -> Budgets:
    """Return the budgets that the gateways of this machine count in."""
    budgets = shared_budgets(project) or MachineBudgets.within(folder(project.settings.state), project.wall)
    stack.push_async_callback(budgets.close)
    return budgets


async def _written(usages: Usages) -> None:
    try:
        await usages.flush()
    except MainspringError as error:  # an answer that was paid for is not lost for that
        _log.error("The usage of language models cannot be written: %s", error)
    finally:
        usages.close()


def local_caller() -> Principal:
    """Return the user of this process as a caller of language models."""
    user = local_user()
    return Principal(user, user, frozenset())


def local_call(declared: Answers) -> Call:
    """Return the call of a question that the user of this process asks."""
    call = Call(id=new_id(), caller=local_caller(), begun=monotonic_us())
    return call if declared.model is None else replace(call, deadlines=declared.model.deadlines)


def _quoting(project: Project, collection: Collection) -> Answering:
    return quoting(lambda: project.encoder(collection.encoder, opened(project, collection)[0].encoder))
