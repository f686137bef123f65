"""Vectors, words, encoders and prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mainspring.core.errors import NotFound
from mainspring.project.backends import retrieval as backends
from mainspring.project.backends.base import lazily
from mainspring.project.parts.cached import cached_property
from mainspring.project.parts.data import DataParts

if TYPE_CHECKING:
    from mainspring.features.functions.deriving import Deriver
    from mainspring.features.functions.running import FunctionRunner
    from mainspring.llm.ports import HeldCalls, PromptVersions
    from mainspring.registry.model import ModelVersion
    from mainspring.vectors.declaring import Encoder as DeclaredEncoder
    from mainspring.vectors.declaring import Reranker as DeclaredReranker
    from mainspring.vectors.open_indexes import OpenIndexes
    from mainspring.vectors.ports import Builds, CrossEncoder, Encoder, TextStore, VectorStore

T = TypeVar("T")


class RetrievalParts(DataParts):
    """Vectors, words, encoders and prompts."""

    @cached_property
    def vectors(self) -> VectorStore:
        """Indexes of vectors."""
        built: VectorStore = self._build("vectors", backends.VECTOR_STORES, self.settings.vectors)
        return built

    @cached_property
    def open_indexes(self) -> OpenIndexes:
        """Indexes of collections that this process searches."""
        from mainspring.vectors.open_indexes import OpenIndexes

        return OpenIndexes(lambda: self.lake, self.vectors, lambda: self.locks, lambda: self.texts)

    @cached_property
    def texts(self) -> TextStore:
        """Indexes of texts by their words, on this machine: each is made again from an index of vectors."""
        built: TextStore = backends.text_store(self.settings)
        return built

    @cached_property
    def builds(self) -> Builds:
        """Builds of collections."""
        built: Builds = self._build("builds", backends.BUILDS, self.settings.catalog)
        return built

    @cached_property
    def held_calls(self) -> HeldCalls:
        """Calls of tools that wait for a person."""
        built: HeldCalls = self._build("held_calls", backends.HELD_CALLS, self.settings.catalog)
        return backends.sealed_calls(built, self.data_keys)

    @cached_property
    def prompts(self) -> PromptVersions:
        """Recorded versions of prompts."""
        built: PromptVersions = self._build("prompts", backends.PROMPT_VERSIONS, self.settings.catalog)
        return built

    @cached_property
    def encoders(self) -> dict[tuple[str, str | None], Encoder]:
        """Encoders that are open, by their names and digests; `None` for one as it is now, whatever that is."""
        return {}

    @cached_property
    def _services(self) -> dict[object, Any]:
        """Encoders and cross-encoders of services, by all that they are made of."""
        return {}

    def encoder(self, declared: DeclaredEncoder, digest: str | None = None, *, for_queries: bool = False) -> Encoder:
        """Return an encoder.

        Args:
            digest: Digest of the encoder as it was; by default it is as it is now.
            for_queries: Whether callers wait for it: a service that is away is not waited for as in a build.

        Raises:
            NotFound: It is not registered, or the profile has no such service.
            Corrupt: Its bundle is damaged, or is none of an encoder.
        """
        given = self.encoders.get((declared.name, None))
        if given is not None:
            return given
        if declared.service:
            asked = (*_asked(declared), declared.dimension, declared.most_tokens, for_queries)
            return self._service(
                asked, lambda: backends.service_encoder(self.settings, declared, for_queries=for_queries)
            )
        if digest is None:
            digest = self.encoder_version(declared).digest
        known = self.encoders.get((declared.name, digest))
        if known is None:
            known = backends.registered_encoder(self.bundles.load(digest), declared.name)
            self.encoders[declared.name, digest] = known
        return known

    @cached_property
    def rerankers(self) -> dict[tuple[str, str], CrossEncoder]:
        """Cross-encoders that are open, by their names and digests."""
        return {}

    def reranker(self, declared: DeclaredReranker) -> CrossEncoder:
        """Return a cross-encoder, as it is now.

        Raises:
            NotFound: It is not registered, or the profile has no such service.
            Corrupt: Its bundle is damaged, or is none of a cross-encoder.
        """
        if declared.service:
            return self._service(_asked(declared), lambda: backends.service_cross_encoder(self.settings, declared))
        digest = self.encoder_version(declared).digest
        known = self.rerankers.get((declared.name, digest))
        if known is None:
            known = backends.registered_cross_encoder(self.bundles.load(digest), declared.name)
            self.rerankers[declared.name, digest] = known
        return known

    def _service(self, asked: object, make: Callable[[], T]) -> T:
        """Return what is open for a declaration, with its health, or open it."""
        if asked not in self._services:
            self._services.setdefault(asked, make())
        found: T = self._services[asked]
        return found

    def encoder_version(self, declared: DeclaredEncoder | DeclaredReranker) -> ModelVersion:
        """Return the registered version that an encoder or a reranker names now: by its number or an alias, else the
        newest, those apart that `optimize` made.

        Raises:
            NotFound: There is none.
        """
        name, separator, reference = declared.reference.replace("@", ":").partition(":")
        if separator:
            found = [self.versions.get(name, reference)]
        else:
            from mainspring.registry.lineage import VARIANT

            found = [each for each in self.versions.all(name) if VARIANT not in each.tags][:1]
        if not found:
            kind = type(declared).__name__
            fix = f"run `mainspring encoders add {name}{'' if kind == 'Encoder' else ' FOLDER'}`."
            raise NotFound(f"{kind} {declared.name!r} is not registered.", fix=fix)
        return found[0]

    # Features that take an encoder

    @cached_property
    def deriver(self) -> Deriver:
        """Computes the tables of feature functions."""
        from mainspring.features.functions.deriving import Deriver

        def on_ray() -> FunctionRunner:
            runner = lazily("features.functions.on_ray", "RayRunner", extra="ray")
            made: FunctionRunner = runner(self.settings.engines.ray)
            return made

        def by_encoder() -> FunctionRunner:
            from mainspring.features.functions.encoding import EncoderRunner

            return EncoderRunner(self.encoder)

        return Deriver(self.lake, self.ingestor, self.locks, engines={"ray": on_ray, "encoder": by_encoder})


def _asked(declared: DeclaredEncoder | DeclaredReranker) -> tuple[object, ...]:
    return type(declared), declared.name, declared.service, declared.reference, declared.within_s
