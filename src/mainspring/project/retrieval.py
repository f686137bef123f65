"""Chains of answers and collections that a gateway serves, from what `apply` stored and the builds that it knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.errors import MainspringError, NotReady
from mainspring.llm.adapters.quoting import QuotingModel
from mainspring.llm.answering import Served
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.answers.ports import Reranker
from mainspring.llm.answers.recording import AnswerLog
from mainspring.llm.answers.reranking import ModelReranker, WordReranker
from mainspring.llm.answers.served import ServedChain, ServedRetrieving
from mainspring.llm.answers.serving import OpenAnswers
from mainspring.llm.answers.stored import feedback_of, stored_chain, stored_collection
from mainspring.llm.answers.versions import restored
from mainspring.llm.ports import Answering, Upstream
from mainspring.llm.usage import Usages, Watched
from mainspring.project.served_definitions import (
    ANSWERS,
    COLLECTION,
    ChainVersions,
    ServedDefinitions,
)
from mainspring.serving.model import Route
from mainspring.serving.plane.lane import monotonic_us
from mainspring.vectors.declaring import Collection
from mainspring.vectors.declaring import Reranker as DeclaredReranker
from mainspring.vectors.model import Build
from mainspring.vectors.ports import Encoder
from mainspring.vectors.served import Opened, SearchThreads, ServedCollection

if TYPE_CHECKING:
    from mainspring.project.composition import Project

_LOOK_S = 2.0  # for the newest builds, where an index is gone
_log = logging.getLogger(__name__)


def quoting(encoder: Callable[[], Encoder]) -> Upstream:
    """Return what answers for a chain of answers without a language model: it quotes.

    Args:
        encoder: Returns the encoder by which it chooses sentences.
    """
    return QuotingModel("quotes", encoder)


def reranking(project: Project, declared: Retriever) -> Reranker | None:
    """Return what orders the passages of a retriever anew; `None` if nothing does."""
    rerank = declared.rerank
    if isinstance(rerank, DeclaredReranker):
        return ModelReranker(lambda: project.reranker(rerank), rerank.within_s)
    return None if rerank is None else WordReranker()


class Retrieval:
    """Chains and collections of a gateway. `take` is called on its event loop, searches run in threads.

    Args:
        look: Waits until the catalog was looked at again, or for so many seconds, and returns the text of
            `ServedDefinitions`; `None` if the catalog did not respond.
        usages: Usage of language models, that of chains included.

    Attributes:
        chains, collections: Those that are served now, by name.
    """

    def __init__(self, project: Project, look: Callable[[float], str | None], usages: Usages) -> None:
        self._project, self._look, self._usages = project, look, usages
        self.chains: Mapping[str, ServedChain] = {}
        self.collections: Mapping[str, ServedCollection] = {}
        self._builds: Mapping[str, Build] = {}
        self._threads: dict[str, SearchThreads] = {}
        self._made_of: dict[str, object] = {}  # chain -> all that it is made of

    def take(self, told: ServedDefinitions, models: Mapping[str, Served]) -> None:
        """Serve definitions from now on. Those that cannot be read are not served."""
        self._builds = told.builds
        collections, chains = {}, {}
        for name, content in told.of(COLLECTION).items():
            try:
                collections[name] = self._collection(stored_collection(content), name in told.watched)
            except MainspringError as error:
                _log.error("The collection %r is not served: %s", name, error)
        for name, content in told.of(ANSWERS).items():
            versions = told.versions.get(name, ChainVersions())
            made_of = (content, told.of(COLLECTION), versions, {**models})
            if name in self.chains and self._made_of.get(name) == made_of:  # its route and its failures go on
                chains[name] = self.chains[name]
                continue
            try:
                chains[name] = self._chain(content, collections, models, versions)
                self._made_of[name] = made_of
            except MainspringError as error:
                _log.error("The answers %r are not served: %s", name, error)
        before = [each for name, each in self.chains.items() if chains.get(name) is not each]
        self.collections, self.chains = collections, chains
        for each in before:
            each.open.flush()

    def close(self) -> None:
        """End the threads of searches, and write what waits."""
        for each in self._threads.values():
            each.close()
        for chain in self.chains.values():
            chain.open.flush()

    def _collection(self, declared: Collection, watched: bool) -> ServedCollection:
        threads = self._threads.setdefault(declared.name, SearchThreads(declared.name))
        return ServedCollection(declared, lambda: self._builds, self._refreshed, self._open, threads, watched)

    def _chain(
        self,
        content: str,
        collections: Mapping[str, ServedCollection],
        models: Mapping[str, Served],
        versions: ChainVersions,
    ) -> ServedChain:
        known = {name: each.declared for name, each in collections.items()}
        named = {name: served.model for name, served in models.items()}
        declared = stored_chain(content, known, named)

        def route() -> Route | None:
            if versions.route is None and versions.gated:
                raise NotReady(
                    f"The answers {declared.name!r} have gates, and no version has passed them.",
                    fix=f"run `mainspring answers promote {declared.name}`.",
                )
            return versions.route

        def version(number: str) -> AnswerChain:
            if number and number not in versions.recipes:
                raise NotReady(f"Version {number} of the answers {declared.name!r} cannot be read.")
            chosen = restored(versions.recipes[number], declared, known, named) if number else declared
            number = number or versions.numbers.get(declared.digest, declared.digest[:12])
            return self._version(chosen, number, collections, models)

        opened = OpenAnswers(declared, route, version, self._project.prediction_log, self._project.clock)
        return ServedChain(opened, collections[declared.retriever.collection.name], feedback_of(content))

    def _version(
        self,
        declared: Answers,
        version: str,
        collections: Mapping[str, ServedCollection],
        models: Mapping[str, Served],
    ) -> AnswerChain:
        collection = collections[declared.retriever.collection.name]
        answering: Answering
        if declared.model is None:
            answering = quoting(lambda: self._encoder(collection.declared))
        else:
            answering = models[declared.model.name].answering
            answering = Watched(answering, declared.model.name, self._usages, monotonic_us)
        return AnswerChain(
            declared,
            ServedRetrieving(collection, declared.retriever.searches),
            answering,
            self._project.clock,
            AnswerLog(self._project.prediction_log, declared, version),
            reranking(self._project, declared.retriever),
            version,
            collection.threads.run,
        )

    def _refreshed(self) -> bool:
        """Bring the builds up to date with the catalog. Called in a thread."""
        text = self._look(_LOOK_S)
        if text is None:
            return False
        self._builds = msgspec.json.decode(text or "{}", type=ServedDefinitions).builds
        return True

    def _encoder(self, declared: Collection) -> Encoder:
        build = self._builds.get(declared.name)
        return self._project.encoder(declared.encoder, None if build is None else build.encoder, for_queries=True)

    def _open(self, collection: Collection, build: Build, *, restoring: bool) -> Opened:
        indexes = self._project.open_indexes
        if restoring:
            indexes.forget(collection)
            if indexes.of(collection, build).count() < build.chunks:  # a build does it
                indexes.forget(collection)
                raise NotReady(f"Collection {collection.name!r} is being built anew.", fix="ask again.")
        return Opened(
            build,
            indexes.of(collection, build, restoring=restoring),
            self._project.encoder(collection.encoder, build.encoder, for_queries=True),
            lambda: indexes.words_of(collection, build),
        )
