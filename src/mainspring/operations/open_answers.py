"""Opening of answer chains: their versions over the project's collections, language models and log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cached_property, partial
from typing import TypeVar

from msgspec.structs import replace

from mainspring.core.errors import MainspringError
from mainspring.core.ids import new_id
from mainspring.llm.answering import assemble, local_budgets
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
            models = _LocalModels(project, stack)
            if asked is not None and asked.quotas:
                budgets = models.budgets_of(asked.quotas)
                await stack.enter_async_context(counted(budgets, asked.quotas, local_caller(), asked.name))
            return await act(models.answering)

    return asyncio.run(running())


class _LocalModels:
    """The language models of one act, each with what it needs, which is opened with the first.

    Args:
        stack: Closes what was opened.
    """

    def __init__(self, project: Project, stack: AsyncExitStack) -> None:
        self._project, self._stack = project, stack

    def answering(self, model: LanguageModel) -> Answering:
        """Return what answers for a model."""
        shared = shared_parts(self._project, self.budgets_of(model.quotas))
        put_together = guarded(self._project, partial(assemble, shared=shared))
        return Watched(put_together(model, self._upstreams.of(model)), model.name, self._usages, monotonic_us)

    def budgets_of(self, quotas: Sequence[Quota]) -> Budgets:
        """Return the budgets, which can count these quotas now."""
        if not quotas:
            return local_budgets()
        if isinstance(self._budgets, MachineBudgets):
            self._budgets.open()
        return self._budgets

    @cached_property
    def _budgets(self) -> Budgets:
        """Those that the gateways of this machine count in."""
        project = self._project
        budgets = shared_budgets(project) or MachineBudgets.within(folder(project.settings.state), project.wall)
        self._stack.push_async_callback(budgets.close)
        return budgets

    @cached_property
    def _upstreams(self) -> OpenUpstreams:
        upstreams = OpenUpstreams(self._project.settings.upstreams)
        self._stack.push_async_callback(upstreams.close)
        return upstreams

    @cached_property
    def _usages(self) -> Usages:
        usages = Usages(self._project.settings.state / USAGE, self._project.wall)
        self._stack.push_async_callback(_written, usages)
        return usages


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
