"""The language models that a gateway serves: their definitions as `apply` stored them, on the profile's upstreams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from mainspring.client.certificates import Certificates
from mainspring.core.errors import Invalid, MainspringError, NotReady, Unavailable
from mainspring.core.settings import UpstreamServer
from mainspring.llm.adapters.anthropic import AnthropicUpstream
from mainspring.llm.adapters.openai import OpenAIUpstream
from mainspring.llm.answering import Assemble, Served, Shared, assemble
from mainspring.llm.answers.served import ServedChain
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events
from mainspring.llm.ports import Upstream
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.retrieval import BUDGETS
from mainspring.project.erasure_mark import ErasureMark
from mainspring.project.receivers import variable
from mainspring.project.retrieval import Retrieval
from mainspring.project.served_definitions import MODEL, ServedDefinitions
from mainspring.project.upstreams import key_of
from mainspring.vectors.declaring import Encoder
from mainspring.vectors.served import ServedCollection

if TYPE_CHECKING:
    from mainspring.llm.budgets import Budgets
    from mainspring.project.composition import Project
    from mainspring.project.definitions.applied import Applied

_POLL_S = 0.5
_UPSTREAMS: Mapping[str, Callable[..., Upstream]] = {"anthropic": AnthropicUpstream, "openai": OpenAIUpstream}

_log = logging.getLogger(__name__)


def shared_budgets(project: Project) -> Budgets | None:
    """Return the budgets of all machines, where the online store is on a server that can have them. For one event loop.

    Raises:
        Invalid: Its extra is not installed.
    """
    url = project.settings.online
    if url.scheme not in BUDGETS:
        return None
    built: Budgets = build("budgets", BUDGETS, Context(url, project))
    return built


def build_upstream(server: UpstreamServer) -> Upstream:
    """Return the adapter of an upstream.

    Raises:
        Invalid: A file of its settings cannot be read.
    """
    key = key_of(server)
    tls = Certificates(server.ca, server.cert, server.cert_key).context() if server.url.startswith("https:") else None
    return _UPSTREAMS[server.protocol](server.name, server.url, key, tls=tls)


class OpenUpstreams:
    """The profile's upstreams, each opened when a language model first needs it. Belongs to one event loop.

    Args:
        servers: Upstreams by `receivers.variable` of their names.
    """

    def __init__(self, servers: Mapping[str, UpstreamServer]) -> None:
        self._servers = servers
        self._open: dict[str, Upstream] = {}
        self._unopened: dict[str, str] = {}  # name -> why, as it was logged

    def of(self, model: LanguageModel) -> dict[str, Upstream]:
        """Return the upstreams of a language model that the profile has, by the names that it gives them.

        Raises:
            NotReady: Files of all of them cannot be read.
        """
        names = [each.upstream for each in model.upstreams]
        for name in names:
            self._try(variable(name))
        known = {name: self._open[variable(name)] for name in names if variable(name) in self._open}
        unopened = [name for name in names if variable(name) in self._unopened]
        if unopened and not known:
            raise NotReady(
                f"A key or a certificate of the upstream {unopened[0]!r} of the language model {model.name!r} "
                "cannot be read.",
                fix="`mainspring doctor` says why; it is used as soon as that is corrected.",
            )
        return known

    def mended(self) -> set[str]:
        """Open those of which a file could not be read, and return the names of the ones that are open now."""
        return {name for name in tuple(self._unopened) if self._try(name)}

    async def close(self) -> None:
        """Close those that are open."""
        for each in self._open.values():
            await each.close()

    def _try(self, name: str) -> bool:
        server = self._servers.get(name)
        if name in self._open or server is None or not server.url:
            return name in self._open
        try:
            self._open[name] = build_upstream(server)
        except Invalid as error:  # the others are used
            if self._unopened.get(name) != str(error):
                _log.error("The upstream %r is not used: %s", server.name, error)
            self._unopened[name] = str(error)
            return False
        self._unopened.pop(name, None)
        return True


def shared_parts(project: Project, budgets: Budgets, workers: int = 1, erasures: Callable[[], str] = str) -> Shared:
    """Return the parts that all language models of a process of the project share."""
    return Shared(budgets, workers, lambda name: project.encoder(Encoder(name), for_queries=True), erasures=erasures)


def declared_models(applied: Applied) -> dict[str, LanguageModel]:
    """Return the applied language models by name, without those of another version of the package."""
    found = {}
    for (kind, name), content in applied.current().items():
        if kind == MODEL:
            with suppress(msgspec.DecodeError, Invalid):
                found[name] = msgspec.json.decode(content, type=LanguageModel)
    return found


class AppliedModels:
    """The language models, chains of answers and collections of the gateway's copy of the catalog, made again after
    each `apply` and build. What was read last stays while the catalog is away.

    Args:
        read: Returns the text of `served_definitions.ServedDefinitions`; called in a thread.
        servers: The profile's upstreams, by `receivers.variable` of their names.
        retrieval: Makes chains and collections; without it there are none.
        erasures: Mark of erasures that is kept up to date meanwhile.
    """

    def __init__(
        self,
        read: Callable[[], str],
        servers: Mapping[str, UpstreamServer],
        put_together: Assemble = assemble,
        retrieval: Retrieval | None = None,
        erasures: ErasureMark | None = None,
    ) -> None:
        self._erasures = erasures
        self._read = read
        self._assemble = put_together
        self._retrieval = retrieval
        self._upstreams = OpenUpstreams(servers)
        self._served: Mapping[str, Served] | None = None
        self._text = ""
        self._contents: dict[str, str] = {}
        self._following: list[asyncio.Task[None]] = []

    def current(self) -> Mapping[str, Served]:
        if self._served is None:
            raise Unavailable("The language models are not known yet: the catalog does not respond.")
        return self._served

    def chains(self) -> Mapping[str, ServedChain]:
        self.current()
        return {} if self._retrieval is None else self._retrieval.chains

    def collections(self) -> Mapping[str, ServedCollection]:
        self.current()
        return {} if self._retrieval is None else self._retrieval.collections

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._following = [loop.create_task(self._follow())]
        if self._erasures is not None:
            self._following.append(loop.create_task(self._erasures.follow()))

    async def stop(self) -> None:
        for task in self._following:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._upstreams.close()
        if self._retrieval is not None:
            self._retrieval.close()

    async def _follow(self) -> None:
        away = False
        while True:
            try:
                await self._look()
                away = False
            except MainspringError as error:
                if not away:
                    _log.error("The language models cannot be read; those of before are served: %s", error)
                away = True
            await asyncio.sleep(_POLL_S)

    async def _look(self) -> None:
        text = await asyncio.to_thread(self._read)
        mended = await asyncio.to_thread(self._upstreams.mended)
        if text is self._text and self._served is not None and not mended:
            return
        told = await asyncio.to_thread(msgspec.json.decode, text or "{}", type=ServedDefinitions)
        before, served = self._served or {}, {}
        for name, content in told.of(MODEL).items():
            same = self._contents.get(name) == content and name in before
            if same and mended.isdisjoint(variable(each.upstream) for each in before[name].model.upstreams):
                served[name] = before[name]  # its queues and health go on
                continue
            try:
                model = msgspec.json.decode(content, type=LanguageModel)
            except (msgspec.DecodeError, Invalid) as error:  # of another version of the package
                _log.error("The language model %r cannot be read, and is not served: %s", name, error)
                continue
            served[name] = self._serve(model)
            self._contents[name] = content
        if self._retrieval is not None:
            self._retrieval.take(told, served)
        self._served, self._text = served, text

    def _serve(self, model: LanguageModel) -> Served:
        try:
            known = self._upstreams.of(model)
            return Served(model, self._assemble(model, known), known)
        except MainspringError as error:
            _log.error("%s", error)
            return Served(model, _Failing(error))


class _Failing:
    """Answers with an error."""

    def __init__(self, error: MainspringError) -> None:
        self._error = error

    async def chat(self, _request: ChatRequest, _call: Call) -> ChatReply:
        raise self._error

    async def stream(self, _request: ChatRequest, _call: Call) -> AsyncGenerator[Events, None]:
        nothing: tuple[Events, ...] = ()
        for each in nothing:
            yield each
        raise self._error

    async def embed(self, _request: EmbeddingsRequest, _call: Call) -> EmbeddingsReply:
        raise self._error
