"""Protocol of a project as the console uses it; `mainspring.project.composition.Project` satisfies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mainspring.core.settings import Settings
from mainspring.core.time import Clock
from mainspring.data.model import Source
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.features.model import FeatureView, RequestFeatures
from mainspring.features.ports import OnlineStore
from mainspring.jobs.ports import JobStore
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring.ports import MonitorStore
from mainspring.registry.model import Bundle
from mainspring.registry.ports import Approvals, Deletions, ModelVersions, Tracking
from mainspring.registry.searching import RunSearch
from mainspring.security.keys import Authenticator
from mainspring.security.ports import AuditLog, Authoriser, EndedSessions, KeyStore
from mainspring.serving.model import Endpoint
from mainspring.serving.ports import Baselines, Routes
from mainspring.training.model import Model


class BundleReader(Protocol):
    """Verified bundles by digest; `registry.bundles.Bundles` is one."""

    def load(self, digest: str) -> Bundle: ...


class Definitions(Protocol):
    """Definitions that the project's modules declare, by name."""

    @property
    def sources(self) -> Mapping[str, Source]: ...
    @property
    def views(self) -> Mapping[str, FeatureView]: ...
    @property
    def request_features(self) -> Mapping[str, RequestFeatures]: ...
    @property
    def models(self) -> Mapping[str, Model]: ...
    @property
    def endpoints(self) -> Mapping[str, Endpoint]: ...


class ConsoleProject(Protocol):
    """One project, opened."""

    @property
    def settings(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...  # the domain's time: of predictions, windows, data
    @property
    def wall(self) -> Clock: ...  # the machine's: of keys, sessions, runs, promotions, audit events
    @property
    def pepper(self) -> bytes: ...
    @property
    def key_store(self) -> KeyStore: ...
    @property
    def ended_sessions(self) -> EndedSessions: ...
    @property
    def authenticator(self) -> Authenticator: ...
    @property
    def authoriser(self) -> Authoriser: ...
    @property
    def audit(self) -> AuditLog: ...
    @property
    def lake(self) -> LakeTables: ...
    @property
    def snapshots(self) -> Snapshots: ...
    @property
    def online(self) -> OnlineStore: ...
    @property
    def tracking(self) -> Tracking: ...
    @property
    def run_search(self) -> RunSearch: ...
    @property
    def versions(self) -> ModelVersions: ...
    @property
    def approvals(self) -> Approvals: ...
    @property
    def deletions(self) -> Deletions: ...
    @property
    def bundles(self) -> BundleReader: ...
    @property
    def routes(self) -> Routes: ...
    @property
    def baselines(self) -> Baselines: ...
    @property
    def predictions(self) -> PredictionStore: ...
    @property
    def monitors(self) -> MonitorStore: ...
    @property
    def jobs(self) -> JobStore: ...
    @property
    def definitions(self) -> Definitions: ...
