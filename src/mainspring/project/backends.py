"""Adapters by URL scheme. A new backend adds one line; plug-ins add an entry point.

An entry point in the group `mainspring.<port>` named after its scheme is called with the `Context`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mainspring.core.errors import Corrupt, Invalid, MissingExtra, NotFound
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Receiver, Settings, Url
from mainspring.core.time import Clock
from mainspring.jobs.bell import ring
from mainspring.project.ledger_folder import lake_digest, ledger_folder
from mainspring.project.receivers import variable
from mainspring.project.tenancy import topics_prefix, vectors_schema
from mainspring.security.secrets import read_private

if TYPE_CHECKING:
    from mainspring.core.settings import UpstreamServer
    from mainspring.data.ports import LakeTables
    from mainspring.deploy.engines.ports import ChunkEngine
    from mainspring.features.ports import OnlineStore
    from mainspring.jobs.pipelines.ports import StepRunner
    from mainspring.llm.ports import HeldCalls
    from mainspring.monitoring.adapters.notify_http import SignedPosts
    from mainspring.monitoring.notify.ports import Notifier
    from mainspring.project import Project
    from mainspring.registry.model import Bundle
    from mainspring.registry.ports import Blobs
    from mainspring.security.ports import Credentials, Keys
    from mainspring.serving.streaming.state import StateStore
    from mainspring.vectors.declaring import Encoder as DeclaredEncoder
    from mainspring.vectors.declaring import Reranker as DeclaredReranker
    from mainspring.vectors.ports import CrossEncoder, Encoder, TextStore

Build = Callable[["Context"], Any]


@dataclass(frozen=True, slots=True)
class Context:
    """Context from which an adapter is built: its URL, and the project for its dependencies."""

    url: Url
    project: Project

    @property
    def state(self) -> Path:
        return self.project.settings.state


def lazily(module: str, name: str, *, extra: str) -> Any:
    """Import `module` and return its `name`.

    Raises:
        MissingExtra: The module's own dependencies are not installed.
    """
    try:
        return getattr(import_module(f"mainspring.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("mainspring"):
            raise
        raise MissingExtra(f"{name} ({error.name})", extra) from error


def _by_database(build: Build) -> dict[str, Build]:
    """Return the adapter for each kind of database that SQLAlchemy opens."""
    return dict.fromkeys(("sqlite", "postgresql", "postgres"), build)


def _by_catalog(build: Build) -> dict[str, Build]:
    """Return the adapter for each kind of catalog; one in memory is a SQLite database too."""
    return {**_by_database(build), "memory": build}


def _in_catalog(package: str, name: str, extra: str) -> dict[str, Build]:
    return _by_catalog(lambda at: lazily(f"{package}.adapters.catalog", name, extra=extra)(at.project.engine))


def _on_the_server(at: Context) -> Any:
    from mainspring.project.catalog import schema_of

    locks = lazily("core.database_locks", "DatabaseLocks", extra="postgres")
    return locks(at.url, schema_of(at.project.settings.scope))


def _beside(catalog: Path) -> FileLocks:
    """Return the locks of a catalog that is a file; they lie beside it, independent of the profile's state folder."""
    real = catalog.resolve()
    return FileLocks(real.parent / "locks" / ("" if real.name == "catalog.db" else f"of-{real.name}"))


LOCKS: Mapping[str, Build] = {
    "sqlite": lambda at: _beside(at.url.path),
    "memory": lambda at: at.project.own_locks,
    **dict.fromkeys(("postgresql", "postgres"), _on_the_server),
}


def _in_bucket(at: Context) -> Any:
    lake = lazily("data.adapters.deltaobjects", "open_object_lake", extra="objects")
    return lake(at.url, at.state / "cache" / "lake", at.project.locks)


def credentials(settings: Settings) -> Credentials:
    """Return the place of the command line's sign-in: a usable keyring of the package `keyring`, or a file."""
    from mainspring.security.adapters.credentials import FileCredentials, KeyringCredentials

    keyring = import_module("keyring") if find_spec("keyring") is not None else None
    if keyring is not None and keyring.get_keyring().priority > 0:
        return KeyringCredentials(keyring, f"{settings.scope} {settings.profile} {settings.root}")
    return FileCredentials(settings.state / "keys" / f"sign-in-{quote(settings.profile, safe='')}")


LAKES: Mapping[str, Build] = {
    "file": lambda at: lazily("data.adapters.delta", "DeltaLake", extra="local")(at.url.path),
    "s3": _in_bucket,
    "memory": lambda _: lazily("data.adapters.memory", "MemoryLake", extra="local")(),
}
SNAPSHOTS: Mapping[str, Build] = _in_catalog("data", "CatalogSnapshots", "local")


def _stream_store(at: Context) -> Any:
    from mainspring.registry.processes import has_ended

    store = lazily("data.adapters.streams_catalog", "CatalogStreams", extra="local")
    return store(at.project.engine, lake_digest(at.project.settings), has_ended)


STREAM_STORES: Mapping[str, Build] = _by_catalog(_stream_store)


def _stream_files(at: Context) -> Callable[[str], Any]:
    from mainspring.serving.streaming.state_file import StateFiles

    return lambda endpoint: StateFiles(at.state / "streams" / endpoint)


def _stream_rows(at: Context) -> Callable[[str], Any]:
    states = lazily("serving.adapters.stream_states", "CatalogStates", extra="postgres")
    return lambda endpoint: states(at.project.engine, lake_digest(at.project.settings), endpoint)


STREAM_STATES: Mapping[str, Build] = {
    "sqlite": _stream_files,
    "memory": _stream_files,
    **dict.fromkeys(("postgresql", "postgres"), _stream_rows),
}
ACCOUNTS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.accounts", "CatalogAccounts", extra="gateway")(at.project.engine)
)
DIRECTORIES: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.directory", "CatalogDirectory", extra="gateway")(at.project.engine)
)
KEY_STORES: Mapping[str, Build] = _in_catalog("security", "CatalogKeyStore", "gateway")
USER_SESSIONS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.sign_ins", "CatalogUserSessions", extra="gateway")(at.project.engine)
)
ENDED_SESSIONS: Mapping[str, Build] = _in_catalog("security", "CatalogEndedSessions", "gateway")


def _audit_log(at: Context) -> Any:
    log = lazily("security.adapters.audit", "CatalogAuditLog", extra="gateway")
    return log(at.project.engine, lambda: at.project.signing_key)


AUDIT_LOGS: Mapping[str, Build] = _by_catalog(_audit_log)
DATA_KEYS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.data_keys", "CatalogDataKeys", extra="gateway")(at.project.engine)
)

SUBJECT_KEYS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.data_keys", "CatalogSubjectKeys", extra="gateway")(at.project.engine)
)


RECEIVED_HEADS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.heads", "CatalogReceivedHeads", extra="gateway")(at.project.engine)
)
ANCHOR_STATES: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.heads", "CatalogAnchorStates", extra="gateway")(at.project.engine)
)
ERASURES: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.erasures", "CatalogErasures", extra="gateway")(at.project.engine)
)
PRIVACY_BUDGETS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("security.adapters.privacy_budgets", "CatalogPrivacyBudgets", extra="gateway")(
        at.project.engine, at.state / "keys" / "spent"
    )
)


def _key_files(at: Context) -> Any:
    files = lazily("security.adapters.key_file", "FileKeys", extra="gateway")
    return files(at.state / "keys" / "master" if at.url.path == Path("/") else at.url.path)


def _key_keyring(at: Context) -> Any:
    keys = lazily("security.adapters.key_keyring", "KeyringKeys", extra="keyring")
    try:
        keyring = import_module("keyring")
    except ModuleNotFoundError as error:
        raise MissingExtra("KeyringKeys (keyring)", "keyring") from error
    name = at.url.path.name or at.project.settings.scope
    locks = FileLocks(Path.home() / ".cache" / "mainspring")  # the user's: other projects may name the same entry
    return keys(keyring, name, lambda: locks.hold("keyring"))


KEY_SERVICES: Mapping[str, Build] = {
    "file": _key_files,
    "keyring": _key_keyring,
    "pkcs11": lambda at: lazily("security.adapters.key_pkcs11", "Pkcs11Keys", extra="pkcs11")(at.url),
    "vault": lambda at: lazily("security.adapters.key_vault", "VaultKeys", extra="gateway")(at.url),
    "awskms": lambda at: lazily("security.adapters.key_awskms", "AwsKmsKeys", extra="awskms")(at.url),
}
ANCHORS: Mapping[str, Build] = {
    "file": lambda at: lazily("security.adapters.anchors_file", "FileAnchors", extra="gateway")(at.url.path),
    **dict.fromkeys(
        ("http", "https"),
        lambda at: lazily("security.adapters.anchors_installation", "InstallationAnchors", extra="gateway")(
            at.url, at.project.signing_key.public
        ),
    ),
    "s3": lambda at: lazily("security.adapters.anchors_s3", "LockedAnchors", extra="objectlock")(
        at.url, at.project.wall, at.project.signing_key.public
    ),
}


def _redis(at: Context) -> Any:
    store = lazily("features.adapters.redis", "RedisOnlineStore", extra="redis")
    return store(at.url, at.project.settings.scope)


def _postgres(at: Context) -> Any:
    from mainspring.project.catalog import schema_of

    store = lazily("features.adapters.postgres", "PostgresOnlineStore", extra="postgres")
    settings = at.project.settings
    return store(at.url, settings.scope, **({"schema": schema_of(settings.scope)} if settings.tenant else {}))


_SERVER_LOGS = {"kafka": "KafkaLog", "kinesis": "KinesisLog", "nats": "NatsLog"}


def server_log(url: Url) -> Any:
    """Return the event log of a server with the topics of every tenant that its user sees."""
    kind = "nats" if url.scheme == "tls" else url.scheme
    return lazily(f"data.adapters.log_{kind}", _SERVER_LOGS[kind], extra=kind)(url)


def _on_server(at: Context) -> Any:
    log, prefix = server_log(at.url), topics_prefix(at.project.settings)
    if not prefix:
        return log
    also = "Splitting" if hasattr(log, "parents") else "Erasing" if hasattr(log, "erase") else ""
    return lazily("data.adapters.log_prefixed", f"Prefixed{also}Log", extra="local")(log, prefix)


EVENT_LOGS: Mapping[str, Build] = {
    "sqlite": lambda at: lazily("data.adapters.log_sqlite", "SqliteLog", extra="local")(at.url.path, at.project.wall),
    "memory": lambda at: lazily("data.adapters.log_memory", "MemoryLog", extra="local")(at.project.wall),
    **dict.fromkeys((*_SERVER_LOGS, "tls"), _on_server),
}
ONLINE_STORES: Mapping[str, Build] = {
    "sqlite": lambda at: lazily("features.adapters.sqlite", "SqliteOnlineStore", extra="gateway")(at.url.path),
    "lmdb": lambda at: lazily("features.adapters.lmdb", "LmdbOnlineStore", extra="lmdb")(at.url.path),
    "memory": lambda _: lazily("features.adapters.memory", "MemoryOnlineStore", extra="gateway")(),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), _redis),
    **dict.fromkeys(("postgresql", "postgres"), _postgres),
}
# Budgets of language models, by the online store: with others they are counts of each machine.
BUDGETS: Mapping[str, Build] = dict.fromkeys(
    ("redis", "rediss", "valkey", "valkeys"),
    lambda at: lazily("llm.adapters.redis_budgets", "RedisBudgets", extra="redis")(
        at.url, at.project.settings.scope, at.project.wall
    ),
)
BLOBS: Mapping[str, Build] = {
    "file": lambda at: lazily("registry.adapters.folder", "FolderBlobs", extra="gateway")(at.url.path),
    "memory": lambda _: lazily("registry.adapters.memory", "MemoryBlobs", extra="gateway")(),
    **dict.fromkeys(
        ("s3", "gs", "az"), lambda at: lazily("registry.adapters.objects", "open_objects", extra="objects")(at.url)
    ),
}


def sealed_lake(lake: LakeTables, keys: Keys, columns: Callable[[str, Sequence[str]], Collection[str]]) -> LakeTables:
    """Return a lake in which some columns are encrypted; see `data.sealed`."""
    from mainspring.data.sealed import SealedLake

    return SealedLake(lake, keys, columns)


def sealed_online(store: OnlineStore, keys: Keys) -> OnlineStore:
    """Return an online store whose states are encrypted."""
    from mainspring.features.adapters.sealed import SealedOnlineStore

    return SealedOnlineStore(store, keys)


def sealed_states(stored: Callable[[str], StateStore], keys: Keys, *, encrypt: bool) -> Callable[[str], StateStore]:
    """Return states of stream endpoints that are encrypted from now on if `encrypt`; encrypted ones are decrypted."""
    from mainspring.serving.adapters.sealed_states import SealedStates

    return lambda endpoint: SealedStates(stored(endpoint), keys, endpoint, encrypt=encrypt)


def sealed_blobs(blobs: Blobs, keys: Keys, *, encrypt: bool) -> Blobs:
    """Return a blob store whose new files are encrypted if `encrypt`, and whose encrypted files are decrypted."""
    from mainspring.registry.adapters.sealed import SealedBlobs

    return SealedBlobs(blobs, keys, encrypt=encrypt)


def kept_blobs(blobs: Blobs, folder: Path) -> Blobs:
    """Return a blob store with a local cache folder."""
    from mainspring.registry.adapters.folder import FolderBlobs
    from mainspring.registry.adapters.kept import KeptBlobs

    return KeptBlobs(blobs, FolderBlobs(folder))


TRACKINGS: Mapping[str, Build] = {
    **_by_database(
        lambda at: lazily("registry.adapters.mlflow_tracking", "MlflowTracking", extra="local")(
            at.url.text, at.state / "artefacts"
        )
    ),
    "memory": lambda _: lazily("registry.adapters.memory", "MemoryTracking", extra="local")(),
}
RUN_SEARCHES: Mapping[str, Build] = {
    **_by_database(lambda at: lazily("registry.adapters.mlflow_search", "MlflowRunSearch", extra="local")(at.url.text)),
    "memory": lambda at: lazily("registry.adapters.memory_search", "search_tracked", extra="local")(
        at.project.tracking
    ),
}
VERSIONS: Mapping[str, Build] = {
    **_by_database(
        lambda at: lazily("registry.adapters.mlflow_versions", "MlflowVersions", extra="local")(
            at.url.text, at.project.engine
        )
    ),
    "memory": lambda _: lazily("registry.adapters.memory", "MemoryVersions", extra="local")(),
}
APPROVALS: Mapping[str, Build] = _in_catalog("registry", "CatalogApprovals", "gateway")


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
PROMPT_VERSIONS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("llm.adapters.prompt_versions", "CatalogPromptVersions", extra="gateway")(at.project.engine)
)
HELD_CALLS: Mapping[str, Build] = _by_catalog(
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


BUILDS: Mapping[str, Build] = _by_catalog(
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
        server, key, declared.reference, declared.dimension, most_tokens=declared.most_tokens, for_queries=for_queries
    )
    return made


def service_cross_encoder(settings: Settings, declared: DeclaredReranker) -> CrossEncoder:
    """Return the cross-encoder behind an upstream of the profile, as `service_encoder` does."""
    server, key = _service(settings, declared.service, f"reranker {declared.name!r}")
    encoder = lazily("vectors.adapters.cross_service", "ServiceCrossEncoder", extra="gateway")
    made: CrossEncoder = encoder(server, key, declared.reference)
    return made


def _service(settings: Settings, service: str, owner: str) -> tuple[UpstreamServer, str]:
    """Return an upstream of the profile that speaks OpenAI's protocol, with its key."""
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
    key = server.key
    if server.key_file is not None:
        key = read_private(server.key_file, f"key of the upstream {server.name!r}").decode("latin-1").strip()
    return server, key


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


WAIVERS: Mapping[str, Build] = _in_catalog("registry", "CatalogWaivers", "gateway")
DELETIONS: Mapping[str, Build] = _in_catalog("registry", "CatalogDeletions", "gateway")
TRUSTED_KEYS: Mapping[str, Build] = _in_catalog("registry", "CatalogTrustedKeys", "gateway")
EVALUATIONS: Mapping[str, Build] = _in_catalog("delivery", "CatalogEvaluations", "gateway")
ROLLOUTS: Mapping[str, Build] = _in_catalog("delivery", "CatalogRollouts", "gateway")
BASELINES: Mapping[str, Build] = _in_catalog("serving", "CatalogBaselines", "gateway")
ROUTES: Mapping[str, Build] = _in_catalog("serving", "CatalogRoutes", "gateway")
PREDICTION_LOGS: Mapping[str, Build] = {
    "file": lambda at: lazily("ledger.adapters.segments", "SegmentLog", extra="gateway")(
        ledger_folder(at.project.settings), at.project.sealer
    ),
    "memory": lambda at: at.project.predictions,
}
PREDICTIONS: Mapping[str, Build] = {
    "file": lambda at: lazily("ledger.adapters.lake", "LakePredictions", extra="local")(
        ledger_folder(at.project.settings, claim=not at.project.reads_only),
        at.project.lake,
        at.project.own_locks,
        at.project.opener,
        observer=at.project.sketching,
    ),
    "memory": lambda at: lazily("ledger.adapters.memory", "MemoryLedger", extra="local")(at.project.sketching),
}
SKETCHES: Mapping[str, Build] = {
    "file": lambda at: lazily("monitoring.adapters.lake", "LakeSketches", extra="local")(at.project.lake),
    "memory": lambda _: lazily("monitoring.adapters.memory", "MemorySketches", extra="local")(),
}
MONITORS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("monitoring.adapters.catalog", "CatalogMonitors", extra="local")(
        at.project.engine, lake_digest(at.project.settings)
    )
)
INCIDENTS: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("monitoring.adapters.incidents", "CatalogIncidents", extra="local")(
        at.project.engine, lake_digest(at.project.settings)
    )
)
SERVICE_STORES: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("monitoring.adapters.service", "CatalogService", extra="local")(at.project.engine)
)
FLEET_STORES: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("deploy.adapters.fleet_catalog", "CatalogFleet", extra="gateway")(at.project.engine)
)
BROKERS: Mapping[str, Build] = dict.fromkeys(
    ("mqtt", "mqtts"),
    lambda at: lazily("deploy.adapters.mqtt", "MqttMessages", extra="edge")(at.url, at.project.settings.scope),
)
JOB_STORES: Mapping[str, Build] = _by_catalog(
    lambda at: lazily("jobs.adapters.catalog", "CatalogJobs", extra="gateway")(
        at.project.engine, partial(ring, at.state)
    )
)


def notifier(kind: str, settings: Settings, name: str) -> Notifier:
    """Return the notifier of a declared receiver.

    Raises:
        Invalid: The profile has no settings for it, or not all that its kind needs.
    """
    receiver = _receiver(kind, settings, name)
    module, adapter = {
        "webhook": ("notify_http", "WebhookNotifier"),
        "slack": ("notify_http", "SlackNotifier"),
        "email": ("notify_email", "EmailNotifier"),
        "alertmanager": ("notify_http", "AlertmanagerNotifier"),
        "pagerduty": ("notify_http", "PagerDutyNotifier"),
    }[kind]
    made: Notifier = lazily(f"monitoring.adapters.{module}", adapter, extra="gateway")(receiver)
    return made


def signed_posts(settings: Settings, name: str, clock: Clock) -> SignedPosts:
    """Return what posts outputs to a declared webhook; raises as `notifier`."""
    receiver = _receiver("webhook", settings, name)
    made: SignedPosts = lazily("monitoring.adapters.notify_http", "SignedPosts", extra="gateway")(receiver, clock)
    return made


def _receiver(kind: str, settings: Settings, name: str) -> Receiver:
    receiver = settings.receivers.get(variable(name))
    needs = {"email": ("url", "sender", "to"), "pagerduty": ("secret",)}.get(kind, ("url",))
    missing = [field for field in needs if receiver is None or not getattr(receiver, field)]
    if receiver is None or missing:
        raise Invalid(
            f"The receiver {name!r} has no {missing[0]} in profile {settings.profile!r}.",
            fix=f"set MAINSPRING_NOTIFY_{variable(name)}_{missing[0].upper()}, or {missing[0]} in "
            f"[profiles.{settings.profile}.notify.{name}].",
        )
    if receiver.url and receiver.url.startswith("smtp") != (kind == "email"):
        fix = "write smtp://host:587." if kind == "email" else "write https://host/path."
        raise Invalid(f"The url of the receiver {name!r} does not fit its kind, {kind}.", fix=fix)
    return receiver


def step_runner(engine: str, settings: Settings) -> StepRunner:
    """Return the runner of steps on an engine other than Spark, whose driver is the step's own process."""
    found: StepRunner = lazily(f"deploy.adapters.{engine}", f"{engine.title()}Runner", extra=engine)(settings)
    return found


def spark_session(settings: Settings, name: str) -> AbstractContextManager[Any]:
    """Start a Spark application; the block gets its session."""
    session: AbstractContextManager[Any] = lazily("deploy.adapters.spark", "spark_session", extra="spark")(
        settings.engines.spark, name
    )
    return session


def chunk_engine(engine: str, settings: Settings) -> ChunkEngine | None:
    """Return one of `CHUNK_ENGINES` for batch runs; `None` for an empty name: this process."""
    if not engine:
        return None
    at: tuple[str, ...] = (settings.engines.ray,) if engine == "ray" else (settings.engines.spark, settings.project)
    make = lazily(f"deploy.adapters.{engine}_chunks", f"{engine.title()}Chunks", extra=engine)
    found: ChunkEngine = make(*at)
    return found


def copy_table(source: LakeTables, target: LakeTables, table: str) -> None:
    """Copy a table with all of its versions from one lake to another; see `data.adapters.deltacopy`."""
    from mainspring.data.adapters import deltacopy

    deltacopy.copy_table(source, target, table)


def make_tracking_tables(url: Url) -> None:
    """Create the tables of the installed MLflow, or migrate them to its version."""
    from mainspring.registry.adapters.mlflow_store import open_store

    open_store("mlflow.store.model_registry.sqlalchemy_store", url.text).engine.dispose()


def build(port: str, table: Mapping[str, Build], context: Context) -> Any:
    """Return the adapter of `port` for `context.url`.

    Raises:
        Invalid: There is no adapter for its scheme.
        MissingExtra: The adapter's dependencies are not installed.
    """
    scheme = context.url.scheme
    if scheme in table:
        return table[scheme](context)
    for entry in entry_points(group=f"mainspring.{port}", name=scheme):
        return entry.load()(context)
    raise Invalid(f"No {port} for {context.url.shown!r}.", fix=f"use one of {sorted(f'{name}://' for name in table)}.")
