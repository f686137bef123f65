"""A gateway for language models on a free port, before servers of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kit.serving import Kit
from kit.waiting import free_port
from mainspring.core.settings import Address, UpstreamServer
from mainspring.llm.answering import Assemble, Served, assemble
from mainspring.llm.answers.served import ServedChain
from mainspring.llm.declaring import LanguageModel, UpstreamModel
from mainspring.llm.ports import Upstream
from mainspring.llm.surface import LanguageSurface, ModelsSource
from mainspring.project.language_models import build_upstream
from mainspring.security.model import KeyScope
from mainspring.security.policy import CedarAuthoriser
from mainspring.serving.http.server import serve
from mainspring.vectors.served import ServedCollection


class FixedModels:
    """Language models that stay."""

    def __init__(
        self, models: tuple[LanguageModel, ...], servers: Mapping[str, UpstreamServer], put_together: Assemble
    ) -> None:
        self._models, self._servers, self._assemble = models, servers, put_together
        self._served: dict[str, Served] = {}
        self.upstreams: dict[str, Upstream] = {}

    def current(self) -> Mapping[str, Served]:
        return self._served

    def start(self) -> None:
        self.upstreams = {name: build_upstream(server) for name, server in self._servers.items()}
        self._served = {
            model.name: Served(model, self._assemble(model, self.upstreams), self.upstreams) for model in self._models
        }

    def chains(self) -> Mapping[str, ServedChain]:
        return {}

    def collections(self) -> Mapping[str, ServedCollection]:
        return {}

    async def stop(self) -> None:
        for each in self.upstreams.values():
            await each.close()


@dataclass
class LanguageGateway:
    """A gateway that serves. `url` has `/v1`; `key` may predict and scrape."""

    url: str
    key: str
    kit: Kit
    stop: asyncio.Event = field(default_factory=asyncio.Event)


def language_model(name: str = "assistant", upstream: str = "local", **more: object) -> LanguageModel:
    """Return a declared language model over one upstream's model `tiny`."""
    return LanguageModel(name, upstreams=[UpstreamModel(upstream, "tiny")], **more)  # type: ignore[arg-type]


@asynccontextmanager
async def language_gateway(
    servers: Mapping[str, UpstreamServer],
    *models: LanguageModel,
    put_together: Assemble = assemble,
    kit: Kit | None = None,
    source: ModelsSource | None = None,
    authoriser: CedarAuthoriser | None = None,
) -> AsyncIterator[LanguageGateway]:
    """Serve models, by default `assistant` and `embedder` over the upstream `local`; or those of a source."""
    kit = kit or Kit()
    served = models or (language_model(), language_model("embedder", embeds=True))
    source = source or FixedModels(served, servers, put_together)
    kit.surface = LanguageSurface(source, authoriser or CedarAuthoriser())
    port, started = free_port(), asyncio.Event()
    token = kit.key(KeyScope.PREDICT).removeprefix("Bearer ")
    running = LanguageGateway(f"http://127.0.0.1:{port}/v1", token, kit)
    serving = asyncio.create_task(
        serve(kit.gateway(), Address("127.0.0.1", port), limits=kit.limits, stop=running.stop, started=started.set)
    )
    try:
        await asyncio.wait((serving, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
        yield running
    finally:
        running.stop.set()
        await serving
