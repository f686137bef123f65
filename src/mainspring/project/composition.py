"""An opened project: the adapter of every port and every service over them, each built on first use.

The only place where settings become objects. Modules are imported on use: the gateway opens the same project as the
command line, but never loads modules that only training needs.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.locks import FileLocks, Locks
from mainspring.core.memory import expect_room
from mainspring.core.sandbox import set_policy
from mainspring.core.settings import Settings, Url
from mainspring.core.time import DAY, HOUR, Clock, ReplayClock, SystemClock
from mainspring.project import backends
from mainspring.project.backends import Build, Context
from mainspring.project.gitignore import keep_out_of_git
from mainspring.project.restoring import expect_restored, remove_scratch
from mainspring.project.setting_values import key_service
from mainspring.project.settings import modules_of
from mainspring.project.tenancy import claim, own_place

if TYPE_CHECKING:
    from functools import cached_property

    import sqlalchemy as sa

    from mainspring.data.adapters.streams_catalog import CatalogStreams
    from mainspring.data.ingest import Ingestor
    from mainspring.data.ports import LakeTables, Snapshots
    from mainspring.data.streams.ports import EventLog
    from mainspring.delivery.ports import Evaluations, RolloutStore
    from mainspring.deploy.edge.repository import Repository
    from mainspring.deploy.fleet.ports import FleetStore, Messages
    from mainspring.features.functions.deriving import Deriver
    from mainspring.features.functions.running import FunctionRunner
    from mainspring.features.materialise import Materialiser
    from mainspring.features.ports import OnlineStore
    from mainspring.jobs.ports import JobStore
    from mainspring.ledger.ports import PredictionLog, PredictionStore, Seals
    from mainspring.ledger.sealing import Opener
    from mainspring.llm.ports import HeldCalls, PromptVersions
    from mainspring.monitoring.incidents.ports import IncidentStore
    from mainspring.monitoring.model import LabelRows
    from mainspring.monitoring.ports import MonitorStore, SketchStore
    from mainspring.monitoring.quality.business import BusinessTable
    from mainspring.monitoring.quality.held_out import HeldOutQuality
    from mainspring.monitoring.quality.table import QualityTable
    from mainspring.monitoring.quality.updating import QualityUpdates
    from mainspring.monitoring.separations import SeparationTable
    from mainspring.monitoring.service.ports import ServiceStore
    from mainspring.monitoring.sketching import Ages, Sketching
    from mainspring.monitoring.window_updates import WindowUpdates
    from mainspring.project.definitions.applied import Applied
    from mainspring.project.definitions.loading import Definitions
    from mainspring.registry.bundles import Bundles
    from mainspring.registry.ports import Approvals, Blobs, Deletions, ModelVersions, Tracking, TrustedKeys, Waivers
    from mainspring.registry.searching import RunSearch
    from mainspring.security.data_keys import DataKeys
    from mainspring.security.keys import Authenticator
    from mainspring.security.oidc import Provider
    from mainspring.security.policy_files import PolicyFiles
    from mainspring.security.ports import (
        Accounts,
        Anchors,
        AnchorStates,
        AuditLog,
        Authoriser,
        Credentials,
        DataKeyStore,
        Directory,
        EndedSessions,
        Erasures,
        KeyService,
        KeyStore,
        PrivacyBudgets,
        ReceivedHeads,
        SubjectKeyStore,
        UserSessions,
    )
    from mainspring.security.sessions import Sessions
    from mainspring.security.sign_ins import SignIns
    from mainspring.security.signing import SigningKey
    from mainspring.security.subject_keys import SubjectKeys
    from mainspring.serving.ports import Baselines, Routes
    from mainspring.serving.streaming.state import StateStore
    from mainspring.training.runs.provenance import ModuleFiles
    from mainspring.training.trainer import Trainer
    from mainspring.vectors.declaring import Encoder as DeclaredEncoder
    from mainspring.vectors.open_indexes import OpenIndexes
    from mainspring.vectors.ports import Builds, Encoder, TextStore, VectorStore

_HOURS_KEPT_US = 32 * DAY  # channels look at hours for 16 days; older ones are added up to days
_FOLLOW_S = 1.0  # maximum delay of a process that follows the definitions

_log = logging.getLogger(__name__)

if not TYPE_CHECKING:

    class cached_property(functools.cached_property):  # noqa: N801  (it stands for the other)
        """A cached property that is built once, even if several threads request it first."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            with instance._building:
                return super().__get__(instance, owner)


REPLAY_START = 0  # time of a replayed clock before any replay


def open_project(settings: Settings, *, reads_only: bool = False, restores: bool = False) -> Project:
    """Return the project. Only its state folder is opened, and made private.

    Args:
        reads_only: Whether the opener writes nothing that is shared with other profiles.
        restores: Whether the opener finishes a restore that was interrupted.

    Raises:
        Conflict: A restore was interrupted, and the opener neither only reads nor finishes it.
    """
    expect_room()
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    claim(settings)
    keep_out_of_git(settings)
    project = Project(settings)
    project.reads_only = reads_only
    if not reads_only:
        remove_scratch(settings.state, project.own_locks)
    if not (reads_only or restores):
        expect_restored(settings.state)
    return project


class Project:
    """A project's adapters and services. `clock` is the domain clock, `wall` the machine's.

    Keys, runs, promotions and audit events are dated by `wall`, so a replayed clock never makes a key valid again.

    Args:
        settings: The profile from which adapters and services are built on first use.
        parts: Parts by name that replace those of the settings: `clock=`, `lake=`, `definitions=` in tests.

    Raises:
        Invalid: A project has no part of that name.
    """

    def __init__(self, settings: Settings, **parts: Any) -> None:
        self.settings: Settings = settings
        set_policy(settings.isolation)
        self.reads_only: bool = False  # whether the opener writes nothing that is shared with other profiles
        self.wall: Clock = parts.pop("wall", SystemClock())
        self._building = threading.RLock()  # held while a part of the project is built, or its definitions are loaded
        self._loaded: Definitions | None = parts.pop("definitions", None)
        self._imported: ModuleFiles = {}  # when they were loaded
        self._following = False
        self._applied: tuple[str, float] = ("", 0.0)  # mark of the applied definitions, and the time of its check
        self._expected = False
        self._keeps_bundles = False
        for name, part in parts.items():
            if not isinstance(getattr(type(self), name, None), functools.cached_property):
                raise Invalid(f"A project has no part {name!r}.", fix="name an adapter or a service of `Project`.")
            vars(self)[name] = part

    def _build(self, port: str, table: Mapping[str, Build], url: Url) -> Any:
        return backends.build(port, table, Context(url, self))

    @cached_property
    def clock(self) -> Clock:
        if self.settings.clock == "system":
            return self.wall
        path = self.settings.state / "replay.clock"
        return ReplayClock(path, start=None if path.exists() else REPLAY_START)

    @cached_property
    def own_locks(self) -> Locks:
        """Locks of this state folder, for resources that only this machine's processes can reach."""
        return FileLocks(self.settings.state / "locks")

    @cached_property
    def locks(self) -> Locks:
        """Locks of the project, on every machine that opens it; they are where the catalog is."""
        built: Locks = self._build("locks", backends.LOCKS, self.settings.catalog)
        return built

    @cached_property
    def engine(self) -> sa.Engine:
        """The catalog, migrated to this version."""
        from mainspring.project.catalog import open_catalog

        file = self.settings.catalog.scheme == "sqlite"
        return open_catalog(self.settings.catalog, self.locks if file else self.own_locks, self.settings.scope)

    @property
    def definitions(self) -> Definitions:
        """The project's modules, loaded and checked."""
        with self._building:  # another thread may have loaded them
            if self._loaded is None:
                if self._following:
                    self._applied = self.applied.mark(), time.monotonic()
                self._loaded = self._load()
            elif self._following and time.monotonic() - self._applied[1] >= _FOLLOW_S:
                self._loaded = self._follow(self._loaded)
            return self._loaded

    def follow_definitions(self) -> None:
        """Let this long-running process follow later `apply`s, instead of the definitions at its start."""
        self._following = True

    def _load(self) -> Definitions:
        from mainspring.project.definitions.loading import load_definitions
        from mainspring.training.runs.provenance import module_files

        loaded = load_definitions(self.settings, self._known)
        self._imported = module_files(self.settings.root)
        return loaded

    def _follow(self, loaded: Definitions) -> Definitions:
        """Reload the definitions after an `apply`; if they cannot be loaded, keep the old ones."""
        mark, before = self._applied[0], time.monotonic()
        try:
            mark = self.applied.mark()
            if mark == self._applied[0]:
                return loaded
            self.settings = replace(self.settings, modules=modules_of(self.settings.root))  # one may be new
            return self._load()
        except MainspringError as error:
            _log.warning("The definitions are unchanged: %s", error)
            return loaded
        finally:
            self._applied = mark, before

    @cached_property
    def applied(self) -> Applied:
        from mainspring.project.definitions.applied import Applied

        return Applied(self.engine)

    # Security

    @cached_property
    def pepper(self) -> bytes:
        from mainspring.security import secrets

        return secrets.load_or_create(self.settings.state / "keys" / "pepper")

    @cached_property
    def key_service(self) -> KeyService:
        """The service that holds the master keys."""
        return self._key_service(self.settings.encryption)

    def _key_service(self, at: Url) -> KeyService:
        built: KeyService = self._build("key_service", backends.KEY_SERVICES, at)
        return built

    def key_service_at(self, address: str) -> KeyService:
        """Return the key service at an address as the profile writes it.

        Raises:
            Invalid: There is no adapter for it.
        """
        return self._key_service(own_place(self.settings, "encryption", key_service(self.settings.root, address)))

    @cached_property
    def data_key_store(self) -> DataKeyStore:
        built: DataKeyStore = self._build("data_keys", backends.DATA_KEYS, self.settings.catalog)
        return built

    @cached_property
    def data_keys(self) -> DataKeys:
        """Keys that encrypt what is stored."""
        from mainspring.security.data_keys import DataKeys

        return DataKeys(
            lambda: self.data_key_store,
            self.key_service,
            self.wall,
            project=self.settings.scope,
            keep_us=self.settings.encryption_keep_us,
            copy=None if self.settings.catalog.scheme == "memory" else self.settings.state / "keys" / "data-keys",
        )

    @cached_property
    def subject_keys(self) -> SubjectKeys:
        """Keys of persons and other subjects, whose destruction erases what they encrypted."""
        from mainspring.security.subject_keys import SubjectKeys

        def store() -> SubjectKeyStore:
            return self._subject_key_store

        return SubjectKeys(store, self.data_keys, self.settings.state / "keys" / "erased", self.wall)

    @cached_property
    def _subject_key_store(self) -> SubjectKeyStore:
        built: SubjectKeyStore = self._build("subject_keys", backends.SUBJECT_KEYS, self.settings.catalog)
        return built

    @cached_property
    def erasures(self) -> Erasures:
        """Erasures of subjects with their receipts, and legal holds."""
        built: Erasures = self._build("erasures", backends.ERASURES, self.settings.catalog)
        return built

    @cached_property
    def privacy_budgets(self) -> PrivacyBudgets:
        """Spent privacy budgets of sources."""
        built: PrivacyBudgets = self._build("privacy_budgets", backends.PRIVACY_BUDGETS, self.settings.catalog)
        return built

    @cached_property
    def sealer(self) -> Seals:
        """Encrypts personal values in the prediction log."""
        from mainspring.ledger.sealing import Sealer

        return Sealer(self.data_keys)

    @cached_property
    def opener(self) -> Opener:
        """Decrypts personal values in the prediction log."""
        from mainspring.ledger.sealing import Opener
        from mainspring.security import secrets

        former = self.settings.state / "keys" / "ledger"
        return Opener(
            self.data_keys, lambda: secrets.load_or_create(former) if former.exists() else None, self.subject_keys
        )

    @cached_property
    def signing_key(self) -> SigningKey:
        from mainspring.security.signing import SigningKey

        return SigningKey.load_or_create(self.settings.state / "keys" / "signing.ed25519")

    @cached_property
    def key_store(self) -> KeyStore:
        built: KeyStore = self._build("keys", backends.KEY_STORES, self.settings.catalog)
        return built

    @cached_property
    def accounts(self) -> Accounts:
        built: Accounts = self._build("accounts", backends.ACCOUNTS, self.settings.catalog)
        return built

    @cached_property
    def directory(self) -> Directory:
        built: Directory = self._build("directory", backends.DIRECTORIES, self.settings.catalog)
        return built

    @cached_property
    def ended_sessions(self) -> EndedSessions:
        built: EndedSessions = self._build("sessions", backends.ENDED_SESSIONS, self.settings.catalog)
        return built

    @cached_property
    def user_sessions(self) -> UserSessions:
        built: UserSessions = self._build("user_sessions", backends.USER_SESSIONS, self.settings.catalog)
        return built

    def sign_ins(self, sessions: Sessions) -> SignIns | None:
        """Return the sign-in at the identity provider; `None` if the profile has none."""
        settings = self.settings.sign_in
        if settings is None:
            return None
        from mainspring.security.issuers import Issuer
        from mainspring.security.model import AuditEvent
        from mainspring.security.oidc import Provider
        from mainspring.security.sign_ins import SignIns

        return SignIns(
            Provider(settings, Issuer(settings.issuer, self.wall)),
            self.accounts,
            sessions,
            self.user_sessions,
            self.wall,
            keys=self.data_keys,
            redirect=settings.redirect or f"{self.settings.control.url}/login/callback",
            record=lambda account, action, resource, detail: self.audit.append(
                [AuditEvent(self.wall.now(), account, action, resource, detail)]
            ),
        )

    def command_line_provider(self) -> Provider | None:
        """Return the identity provider for the command line's client; `None` if the profile has none."""
        settings = self.settings.sign_in
        if settings is None:
            return None
        from mainspring.security.issuers import Issuer
        from mainspring.security.oidc import Provider

        return Provider(settings, Issuer(settings.issuer, self.wall), command_line=True)

    @cached_property
    def credentials(self) -> Credentials:
        """The sign-in of this user of the machine: in a keyring of the package `keyring`, or in a file."""
        return backends.credentials(self.settings)

    @cached_property
    def audit(self) -> AuditLog:
        built: AuditLog = self._build("audit", backends.AUDIT_LOGS, self.settings.catalog)
        return built

    @cached_property
    def anchors(self) -> Mapping[str, Anchors]:
        """Places of the audit log's heads, by their addresses: a file in the state folder, and those of the profile."""
        own = Url(f"file://{(self.settings.state / 'audit-anchors.jsonl').as_posix()}")
        places = (own, *self.settings.audit_anchors)
        return {each.shown: self._build("anchors", backends.ANCHORS, each) for each in places}

    @cached_property
    def anchor_states(self) -> AnchorStates:
        """How far the audit log is anchored, by place."""
        built: AnchorStates = self._build("anchor states", backends.ANCHOR_STATES, self.settings.catalog)
        return built

    @cached_property
    def received_heads(self) -> ReceivedHeads:
        """Heads of other installations' audit logs."""
        built: ReceivedHeads = self._build("received heads", backends.RECEIVED_HEADS, self.settings.catalog)
        return built

    @cached_property
    def authenticator(self) -> Authenticator:
        from mainspring.security.keys import Authenticator

        return Authenticator(
            self.key_store,
            self.pepper,
            self.wall,
            accounts=self.accounts,
            workloads=self.workloads(waits=True),
            people=self._person_tokens(),
        )

    def _person_tokens(self) -> Callable[[str], tuple[str, int] | None] | None:
        provider = self.command_line_provider()
        if provider is None:
            return None
        from mainspring.security.person_tokens import PersonTokens

        return PersonTokens(provider, self.accounts).identify

    def workloads(self, *, waits: bool) -> Callable[[str], tuple[str, int]] | None:
        """Return the reader of workloads' tokens; `None` if the profile has none. See `security.workloads`."""
        if not self.settings.workload_issuers:
            return None
        from mainspring.security.workloads import Workloads

        return Workloads(self.settings.workload_issuers, self.wall, waits=waits).identify

    @cached_property
    def authoriser(self) -> Authoriser:
        from mainspring.security.policy import CedarAuthoriser

        return CedarAuthoriser(self.settings.project, self.policy_files)

    @cached_property
    def policy_files(self) -> PolicyFiles:
        """The project's own policies, followed while this process runs."""
        from mainspring.security.policy_files import POLICIES, PolicyFiles

        return PolicyFiles(self.settings.root / POLICIES, self.settings.state / "policies.json")

    # Data

    @cached_property
    def lake(self) -> LakeTables:
        return backends.sealed_lake(self.stored_lake, self.data_keys, self.encrypted_columns)

    def encrypted_columns(self, table: str, names: Sequence[str]) -> Collection[str]:
        """Return which of a table's columns are encrypted when they are written."""
        if not self.settings.pii_encrypted:
            return ()
        from mainspring.features.sealing import personal_columns

        loaded = self.definitions
        return personal_columns(table, names, loaded.sources, loaded.entities.values(), loaded.views.values())

    @cached_property
    def stored_lake(self) -> LakeTables:
        """The lake as the settings name it; its columns may be encrypted."""
        built: LakeTables = self._build("lake", backends.LAKES, self.settings.lake)
        return built

    @cached_property
    def snapshots(self) -> Snapshots:
        built: Snapshots = self._build("snapshots", backends.SNAPSHOTS, self.settings.catalog)
        return built

    @cached_property
    def stream_store(self) -> CatalogStreams:
        built: CatalogStreams = self._build("stream_store", backends.STREAM_STORES, self.settings.catalog)
        return built

    @cached_property
    def stream_states(self) -> Callable[[str], StateStore]:
        """Returns the states of a stream endpoint: files of this machine, or in a catalog that machines share."""
        built: Callable[[str], StateStore] = self._build("stream_states", backends.STREAM_STATES, self.settings.catalog)
        return backends.sealed_states(built, self.data_keys, encrypt=self.settings.online_encrypted)

    @cached_property
    def ingestor(self) -> Ingestor:
        from mainspring.data.ingest import Ingestor

        scratch = self.settings.state / "signed.tmp"
        return Ingestor(self.lake, self.locks, self.clock, wall=self.wall, scratch=scratch)

    @cached_property
    def deriver(self) -> Deriver:
        """Computes the tables of feature functions."""
        from mainspring.features.functions.deriving import Deriver

        def on_ray() -> FunctionRunner:
            runner = backends.lazily("features.functions.on_ray", "RayRunner", extra="ray")
            made: FunctionRunner = runner(self.settings.engines.ray)
            return made

        return Deriver(self.lake, self.ingestor, self.locks, engines={"ray": on_ray})

    @cached_property
    def streams(self) -> EventLog:
        built: EventLog = self._build("streams", backends.EVENT_LOGS, self.settings.streams)
        return built

    # Features

    @cached_property
    def online(self) -> OnlineStore:
        return self.sealed_online if self.settings.online_encrypted else self.stored_online

    @cached_property
    def sealed_online(self) -> OnlineStore:
        """The encrypted states of the online store, which stay when the setting is switched off."""
        return backends.sealed_online(self.stored_online, self.data_keys)

    @cached_property
    def stored_online(self) -> OnlineStore:
        """The online store as the settings name it; its states may be encrypted."""
        built: OnlineStore = self._build("online", backends.ONLINE_STORES, self.settings.online)
        return built

    @cached_property
    def materialiser(self) -> Materialiser:
        from mainspring.features.materialise import Materialiser

        return Materialiser(self.lake, self.online, self.clock, locks=self.locks)

    # Registry and training

    @cached_property
    def tracking(self) -> Tracking:
        built: Tracking = self._build("tracking", backends.TRACKINGS, self.settings.tracking)
        return built

    @cached_property
    def run_search(self) -> RunSearch:
        built: RunSearch = self._build("run_search", backends.RUN_SEARCHES, self.settings.tracking)
        return built

    @cached_property
    def versions(self) -> ModelVersions:
        built: ModelVersions = self._build("versions", backends.VERSIONS, self.settings.tracking)
        return built

    @cached_property
    def approvals(self) -> Approvals:
        built: Approvals = self._build("approvals", backends.APPROVALS, self.settings.catalog)
        return built

    @cached_property
    def waivers(self) -> Waivers:
        built: Waivers = self._build("waivers", backends.WAIVERS, self.settings.catalog)
        return built

    @cached_property
    def deletions(self) -> Deletions:
        built: Deletions = self._build("deletions", backends.DELETIONS, self.settings.catalog)
        return built

    @cached_property
    def trusted_keys(self) -> TrustedKeys:
        built: TrustedKeys = self._build("trusted_keys", backends.TRUSTED_KEYS, self.settings.catalog)
        return built

    @cached_property
    def blobs(self) -> Blobs:
        stored: Blobs = self._build("blobs", backends.BLOBS, self.settings.blobs)
        built = backends.sealed_blobs(stored, self.data_keys, encrypt=self.settings.blobs_encrypted)
        if not self._keeps_bundles or self.settings.blobs.scheme in ("file", "memory"):
            return built
        return backends.kept_blobs(built, self.settings.state / "cache" / "bundles")

    def keep_bundles(self) -> None:
        """Make this process cache bundles of a bucket on this machine."""
        self._keeps_bundles = True

    @cached_property
    def bundles(self) -> Bundles:
        from mainspring.registry.bundles import Bundles

        return Bundles(self.blobs, self.signing_key.public)

    @cached_property
    def trainer(self) -> Trainer:
        from mainspring.training.trainer import Trainer

        return Trainer(
            lake=self.lake,
            snapshots=self.snapshots,
            tracking=self.tracking,
            versions=self.versions,
            bundles=self.bundles,
            signing_key=self.signing_key,
            clock=self.wall,
            root=self.settings.root,
            imported=lambda: self._imported,
        )

    def expect_models(self) -> None:
        """Allow endpoints of models that are neither declared nor registered yet, because they are about to be
        registered.
        """
        self._expected = True

    def _known(self, model: str) -> bool:
        store = self.settings.tracking
        # Reading must not create a missing store.
        there = store.scheme != "sqlite" or Path(store.path).exists()
        return self._expected or (there and bool(self.versions.all(model)))

    # Vectors

    @cached_property
    def vectors(self) -> VectorStore:
        """Indexes of vectors."""
        built: VectorStore = self._build("vectors", backends.VECTOR_STORES, self.settings.vectors)
        return built

    @cached_property
    def open_indexes(self) -> OpenIndexes:
        """Indexes of collections that this process searches."""
        from mainspring.vectors.open_indexes import OpenIndexes

        return OpenIndexes(self.lake, self.vectors, self.locks, lambda: self.texts)

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
        return built

    @cached_property
    def prompts(self) -> PromptVersions:
        """Recorded versions of prompts."""
        built: PromptVersions = self._build("prompts", backends.PROMPT_VERSIONS, self.settings.catalog)
        return built

    @cached_property
    def encoders(self) -> dict[tuple[str, str | None], Encoder]:
        """Encoders that are open, by their names and digests; `None` for one as it is now, whatever that is."""
        return {}

    def encoder(self, declared: DeclaredEncoder, digest: str | None = None) -> Encoder:
        """Return an encoder.

        Args:
            digest: Digest of the encoder as it was; by default it is as it is now.

        Raises:
            NotFound: It is not registered, or the profile has no such service.
            Corrupt: Its bundle is damaged, or is none of an encoder.
        """
        given = self.encoders.get((declared.name, None))
        if given is not None:
            return given
        if declared.service:
            made = backends.service_encoder(self.settings, declared)
            return self.encoders.setdefault((declared.name, made.digest), made)
        if digest is None:
            digest = self._encoder_digest(declared)
        known = self.encoders.get((declared.name, digest))
        if known is None:
            known = backends.registered_encoder(self.bundles.load(digest), declared.name)
            self.encoders[declared.name, digest] = known
        return known

    def _encoder_digest(self, declared: DeclaredEncoder) -> str:
        name, separator, reference = declared.reference.replace("@", ":").partition(":")
        found = [self.versions.get(name, reference)] if separator else self.versions.all(name)[:1]
        if not found:
            raise NotFound(
                f"Encoder {declared.name!r} is not registered.", fix=f"run `mainspring encoders add {name}`."
            )
        return found[0].digest

    # Jobs

    @cached_property
    def jobs(self) -> JobStore:
        built: JobStore = self._build("jobs", backends.JOB_STORES, self.settings.catalog)
        return built

    # Serving, prediction log and monitoring

    @cached_property
    def routes(self) -> Routes:
        built: Routes = self._build("routes", backends.ROUTES, self.settings.catalog)
        return built

    @cached_property
    def evaluations(self) -> Evaluations:
        built: Evaluations = self._build("evaluations", backends.EVALUATIONS, self.settings.catalog)
        return built

    @cached_property
    def rollouts(self) -> RolloutStore:
        built: RolloutStore = self._build("rollouts", backends.ROLLOUTS, self.settings.catalog)
        return built

    @cached_property
    def baselines(self) -> Baselines:
        built: Baselines = self._build("baselines", backends.BASELINES, self.settings.catalog)
        return built

    @cached_property
    def prediction_log(self) -> PredictionLog:
        built: PredictionLog = self._build("prediction_log", backends.PREDICTION_LOGS, self.settings.ledger)
        return built

    @cached_property
    def predictions(self) -> PredictionStore:
        built: PredictionStore = self._build("predictions", backends.PREDICTIONS, self.settings.ledger)
        return built

    @cached_property
    def sketches(self) -> SketchStore:
        built: SketchStore = self._build("sketches", backends.SKETCHES, self.settings.ledger)
        return built

    @cached_property
    def sketching(self) -> Sketching:
        """Sketches of predictions, made as they come into the store."""
        from mainspring.monitoring.served import served
        from mainspring.monitoring.sketching import Sketching

        return Sketching(
            self.sketches,
            lambda digest: served(self.bundles.load(digest)),
            self._segments,
            slot_us=math.gcd(HOUR, self.settings.monitor_window_us),
            ages=self._ages_of_sketches,
        )

    def _ages_of_sketches(self) -> Ages:
        from mainspring.monitoring.sketching import Ages

        return Ages(
            made_before=self.oldest_kept(self.settings.keep_sketches_us),
            folded_before=self.clock.now() - _HOURS_KEPT_US,
            fold_us=math.gcd(DAY, self.settings.monitor_window_us),
        )

    def oldest_kept(self, kept_us: int | None) -> int | None:
        """Return the instant before which predictions or their sketches are deleted, the start of a day.

        Those whose labels have not matured are kept longer.

        Args:
            kept_us: How long they are kept, microseconds; `None` for ever, and `None` is returned.
        """
        if kept_us is None:
            return None
        waits = [each.matures_us or 0 for model in self.definitions.models.values() for each in model.labels]
        kept = kept_us + max(waits, default=0) + 2 * self.settings.monitor_window_us
        return (self.clock.now() - kept) // DAY * DAY

    def _segments(self, endpoint: str) -> Sequence[str]:
        try:
            monitor = self.definitions.monitors.get(endpoint)
        except MainspringError as error:  # the log must go on where a definition is wrong
            _log.warning("Traffic is not sketched by segment: %s", error)
            return ()
        return () if monitor is None else monitor.segments

    @cached_property
    def monitors(self) -> MonitorStore:
        built: MonitorStore = self._build("monitors", backends.MONITORS, self.settings.catalog)
        return built

    @cached_property
    def incidents(self) -> IncidentStore:
        built: IncidentStore = self._build("incidents", backends.INCIDENTS, self.settings.catalog)
        return built

    @cached_property
    def fleet(self) -> FleetStore:
        """Devices and rollouts over them."""
        built: FleetStore = self._build("fleet", backends.FLEET_STORES, self.settings.catalog)
        return built

    @cached_property
    def broker(self) -> Messages:
        """Messages to and from devices.

        Raises:
            Invalid: The profile names no broker.
        """
        if self.settings.fleet is None:
            raise Invalid(
                f"Profile {self.settings.profile!r} has no broker for devices.",
                fix="set MAINSPRING_FLEET to mqtts://user:password@host:port.",
            )
        built: Messages = self._build("broker", backends.BROKERS, self.settings.fleet)
        return built

    @cached_property
    def packages(self) -> Repository:
        """The repository from which devices update."""
        from mainspring.deploy.edge.repository import Repository

        state = self.settings.state
        return Repository(
            state / "edge" / "repository", state / "keys", self.own_locks, self.wall.now,
            root_key=self.settings.fleet_root_key,
        )  # fmt: skip

    @cached_property
    def service(self) -> ServiceStore:
        """Samples of service health."""
        built: ServiceStore = self._build("service", backends.SERVICE_STORES, self.settings.catalog)
        return built

    @cached_property
    def monitor(self) -> WindowUpdates:
        from mainspring.monitoring.window_updates import WindowUpdates

        return WindowUpdates(
            self.predictions,
            self.monitors,
            self.sketches,
            labels=self.label_rows,
            load=self.bundles.load,
            clock=self.clock,
            locks=self.locks,
            window_us=self.settings.monitor_window_us,
        )

    @cached_property
    def quality_table(self) -> QualityTable:
        from mainspring.monitoring.quality.table import QualityTable

        return QualityTable(self.lake)

    @cached_property
    def crossed_quality(self) -> QualityTable:
        """The sums in bins of the features that matter, and in their pairs."""
        from mainspring.monitoring.quality.table import CROSSED, QualityTable

        return QualityTable(self.lake, CROSSED)

    @cached_property
    def held_out_quality(self) -> HeldOutQuality:
        from mainspring.monitoring.quality.held_out import HeldOutQuality

        return HeldOutQuality(self.bundles.load)

    @cached_property
    def separations(self) -> SeparationTable:
        from mainspring.monitoring.separations import SeparationTable

        return SeparationTable(self.lake)

    @cached_property
    def business_table(self) -> BusinessTable:
        from mainspring.monitoring.quality.business import BusinessTable

        return BusinessTable(self.lake)

    @cached_property
    def quality_updates(self) -> QualityUpdates:
        from mainspring.monitoring.quality.measuring import Watched
        from mainspring.monitoring.quality.updating import QualityUpdates

        def watched(endpoint: str) -> Watched:
            found = self.definitions.monitors.get(endpoint)
            if found is None:
                return Watched(crossed=True)
            chosen = (found.segments, found.ranking, found.forecast, found.fairness)
            return Watched(*chosen, metrics=found.metrics, crossed=True)

        return QualityUpdates(
            self.predictions,
            self.monitors,
            self.quality_table,
            self.crossed_quality,
            self.business_table,
            labels=self.label_rows,
            load=self.bundles.load,
            watched=watched,
            clock=self.clock,
            locks=self.locks,
            window_us=self.settings.monitor_window_us,
        )

    def label_rows(self, endpoint: str) -> LabelRows | None:
        """Return the label rows of an endpoint; `None` while a label has no table yet."""
        from mainspring.monitoring import joins

        model = self.definitions.models.get(self.definitions.endpoint(endpoint).model_name)
        if model is None:  # registered with `mainspring models`, without a declared label
            return None
        try:
            return joins.label_rows(model.labels, model.observations, self.lake.scan, self.lake.appended)
        except NotFound:
            return None

    def close(self) -> None:
        """Write the rest of the log and close every connection. The project must not be in use any more."""
        for built in list(vars(self).values()):  # parts that were built; an adapter with open resources has `close`
            close = getattr(built, "close", None)
            if close is not None:
                close()
        if "engine" in vars(self):
            self.engine.dispose()
        keep_out_of_git(self.settings)  # folders created meanwhile

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Allowed Host headers of both planes."""
        addresses = (self.settings.gateway, self.settings.control)
        names = {f"{host}:{address.port}" for address in addresses for host in (address.host, "localhost", "127.0.0.1")}
        return tuple(sorted({*names, *self.settings.allowed_hosts}))
