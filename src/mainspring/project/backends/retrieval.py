"""Adapters of vectors, texts, encoders and language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.settings import Settings
from mainspring.project.backends.base import Build, Context, by_catalog, lazily
from mainspring.project.ledger_folder import lake_digest
from mainspring.project.receivers import variable
from mainspring.project.tenancy import vectors_schema
from mainspring.project.upstreams import key_of

if TYPE_CHECKING:
    from mainspring.core.settings import UpstreamServer
    from mainspring.llm.ports import HeldCalls
    from mainspring.registry.model import Bundle
    from mainspring.security.ports import Keys
    from mainspring.vectors.declaring import Encoder as DeclaredEncoder
    from mainspring.vectors.declaring import Reranker as DeclaredReranker
    from mainspring.vectors.ports import CrossEncoder, Encoder, TextStore

# Budgets of language models, by the online store: with others they are counts of each machine.
BUDGETS: Mapping[str, Build] = dict.fromkeys(
    ("redis", "rediss", "valkey", "valkeys"),
    lambda at: lazily("llm.adapters.redis_budgets", "RedisBudgets", extra="redis")(
        at.url, at.project.settings.scope, at.project.wall
    ),
)


def _vectors_on_postgres(at: Context) -> Any:
    store = lazily("vectors.adapters.pgvector", "PgVectorStore", extra="postgres")
    return store(at.url, schema=vectors_schema(at.project.settings))


def _vectors_on_milvus(at: Context) -> Any:
    store = lazily("vectors.adapters.milvus", "MilvusVectorStore", extra="milvus")
    return store(at.url, schema=vectors_schema(at.project.settings))


VECTOR_STORES: Mapping[str, Build] = {
    "file": lambda at: lazily("vectors.adapters.embedded", "EmbeddedVectorStore", extra="gateway")(at.url.path),
    "memory": lambda _: lazily("vectors.adapters.memory", "MemoryVectorStore", extra="gateway")(),
    **dict.fromkeys(("postgresql", "postgres"), _vectors_on_postgres),
    **dict.fromkeys(("milvus", "milvuss"), _vectors_on_milvus),
}
PROMPT_VERSIONS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("llm.adapters.prompt_versions", "CatalogPromptVersions", extra="gateway")(at.project.engine)
)
HELD_CALLS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("llm.adapters.held_calls", "CatalogHeldCalls", extra="gateway")(at.project.engine)
)


def sealed_calls(calls: HeldCalls, keys: Keys) -> HeldCalls:
    """Return held calls whose arguments are encrypted; see `llm.adapters.sealed_calls`."""
    from mainspring.llm.adapters.sealed_calls import SealedHeldCalls

    return SealedHeldCalls(calls, keys)


def text_store(settings: Settings) -> TextStore:
    """Return the store of texts: in memory where the vectors are, else in the state folder."""
    made: TextStore
    if settings.vectors.scheme == "memory":
        made = lazily("vectors.adapters.memory_text", "MemoryTextStore", extra="gateway")()
    else:
        made = lazily("vectors.adapters.tantivy", "TantivyTextStore", extra="text")(settings.state / "words")
    return made


BUILDS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("vectors.adapters.builds", "CatalogBuilds", extra="gateway")(
        at.project.engine, lake_digest(at.project.settings)
    )
)


def service_encoder(settings: Settings, declared: DeclaredEncoder, *, for_queries: bool = False) -> Encoder:
    """Return the encoder behind an upstream of the profile.

    Args:
        for_queries: Whether callers wait for it.

    Raises:
        NotFound: The profile has no such upstream.
        Invalid: It speaks another protocol, or the file with its key cannot be read.
    """
    server, key = _service(settings, declared.service, f"encoder {declared.name!r}")
    encoder = lazily("vectors.adapters.encoder_service", "ServiceEncoder", extra="gateway")
    made: Encoder = encoder(
        server, key, declared.reference, declared.dimension,
        most_tokens=declared.most_tokens, within_s=declared.within_s if for_queries else None,
    )  # fmt: skip
    return made


def service_cross_encoder(settings: Settings, declared: DeclaredReranker) -> CrossEncoder:
    """Return the cross-encoder behind an upstream of the profile, as `service_encoder` does."""
    server, key = _service(settings, declared.service, f"reranker {declared.name!r}")
    encoder = lazily("vectors.adapters.cross_service", "ServiceCrossEncoder", extra="gateway")
    made: CrossEncoder = encoder(server, key, declared.reference)
    return made


def _service(settings: Settings, service: str, owner: str) -> tuple[UpstreamServer, Callable[[], str]]:
    """Return an upstream of the profile that speaks OpenAI's protocol, and what tells its key."""
    server = settings.upstreams.get(variable(service))
    if server is None:
        raise NotFound(
            f"Profile {settings.profile!r} has no upstream {service!r}, of {owner}.",
            fix=f"write [profiles.{settings.profile}.llm.upstreams.{service}], then its url.",
        )
    if server.protocol != "openai":
        raise Invalid(
            f"The upstream {service!r} of {owner} speaks {server.protocol!r}.", fix="name one with OpenAI's protocol."
        )
    return server, key_of(server)


def registered_cross_encoder(bundle: Bundle, name: str) -> CrossEncoder:
    """Return the cross-encoder in a registered bundle.

    Raises:
        Corrupt: It is none of a cross-encoder.
    """
    model, tokenizer, most = _text_model(bundle, f"reranker {name!r}", pairs=True)
    encoder = lazily("vectors.adapters.cross_onnx", "OnnxCrossEncoder", extra="embeddings")
    made: CrossEncoder = encoder(model, tokenizer, bundle.digest, most_tokens=most, name=name)
    return made


def _text_model(bundle: Bundle, owner: str, *, pairs: bool) -> tuple[bytes, bytes, int | None]:
    """Return the graph of a registered model of texts, its tokeniser, and how many tokens count."""
    from mainspring.registry.bundles import MODEL, TOKENIZER

    if not {MODEL, TOKENIZER} <= set(bundle.files):
        raise Corrupt(f"The model of {owner} has no tokeniser.", fix="register it with `mainspring encoders add`.")
    extra = bundle.manifest.extra
    if bool(extra.get("pairs")) != pairs:
        fix = "name a model that gives one score for a pair of texts." if pairs else "name one that gives a vector."
        raise Corrupt(f"The model of {owner} is {'no' if pairs else 'a'} cross-encoder.", fix=fix)
    most = extra.get("most_tokens")
    return bundle.files[MODEL], bundle.files[TOKENIZER], int(most) if most else None


def registered_encoder(bundle: Bundle, name: str) -> Encoder:
    """Return the encoder in a registered bundle.

    Raises:
        Corrupt: It is none of an encoder.
    """
    model, tokenizer, most = _text_model(bundle, f"encoder {name!r}", pairs=False)
    encoder = lazily("vectors.adapters.encoder_onnx", "OnnxEncoder", extra="embeddings")
    made: Encoder = encoder(model, tokenizer, bundle.digest, most_tokens=most, name=name)
    return made
