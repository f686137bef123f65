"""Whatever lives in the catalog, and MLflow's store, on a real Postgres server: the same suites as on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.auditing import audit_log
from kit.servers import PostgresServer
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.cost.adapters.catalog import CatalogUsage
from mainspring.cost.conformance import UsageStoreConformance
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.conformance import SnapshotsConformance
from mainspring.delivery.adapters.catalog import CatalogRollouts
from mainspring.delivery.conformance import RolloutStoreConformance
from mainspring.deploy.adapters.fleet_catalog import CatalogFleet
from mainspring.deploy.fleet.conformance import FleetStoreConformance
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.incidents import CatalogIncidents
from mainspring.monitoring.adapters.service import CatalogService
from mainspring.monitoring.conformance import MonitorStoreConformance
from mainspring.monitoring.incidents.conformance import IncidentStoreConformance
from mainspring.monitoring.service.conformance import ServiceStoreConformance
from mainspring.project.catalog import open_catalog, schema_of
from mainspring.project.definitions.applied import Applied
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.adapters.mlflow_versions import MlflowVersions
from mainspring.registry.conformance import TrackingConformance, VersionsConformance
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.audit import CatalogAuditLog
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.adapters.data_keys import CatalogDataKeys, CatalogSubjectKeys
from mainspring.security.adapters.directory import CatalogDirectory
from mainspring.security.adapters.privacy_budgets import CatalogPrivacyBudgets
from mainspring.security.adapters.sign_ins import CatalogUserSessions
from mainspring.security.conformance import (
    AccountsConformance,
    AuditLogConformance,
    DataKeyStoreConformance,
    DirectoryConformance,
    EndedSessionsConformance,
    KeyStoreConformance,
    OwnedKeysConformance,
    UserSessionsConformance,
)
from mainspring.security.model import AuditEvent
from mainspring.security.subject_conformance import SubjectKeyStoreConformance
from mainspring.serving.adapters.catalog import CatalogBaselines, CatalogRoutes, CatalogSimulations
from mainspring.serving.conformance import RoutesConformance
from mainspring.serving.conformance.baselines import BaselinesConformance
from mainspring.serving.conformance.simulations import SimulationsConformance

DEPOT = "depot"


@pytest.fixture(scope="session")
def empty_store(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with MLflow's tables and no runs: making them takes seconds, emptying them does not."""
    url = postgres_server.fresh()
    store = MlflowTracking(url.text, tmp_path_factory.mktemp("mlflow") / "runs")
    assert store.search() == []
    store.close()
    postgres_server.keep(url.path.name)
    return url.path.name


@pytest.fixture
def store_url(postgres_server: PostgresServer, empty_store: str) -> Url:
    return postgres_server.restored(empty_store, spare=schema_of(DEPOT))


@pytest.fixture(scope="session")
def beside(postgres_server: PostgresServer, empty_store: str) -> Iterator[sa.Engine]:
    made = open_catalog(postgres_server.database(empty_store), MemoryLocks(), DEPOT)
    yield made
    made.dispose()


class TestFleet(FleetStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogFleet:
        return CatalogFleet(engine)


class TestSnapshots(SnapshotsConformance):
    @pytest.fixture
    def snapshots(self, engine: sa.Engine) -> CatalogSnapshots:
        return CatalogSnapshots(engine)


class TestKeyStore(KeyStoreConformance, OwnedKeysConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogKeyStore:
        return CatalogKeyStore(engine)

    @pytest.fixture
    def accounts(self, engine: sa.Engine) -> CatalogAccounts:
        return CatalogAccounts(engine)


class TestDirectory(DirectoryConformance):
    @pytest.fixture
    def directory(self, engine: sa.Engine) -> CatalogDirectory:
        return CatalogDirectory(engine)

    @pytest.fixture
    def accounts(self, engine: sa.Engine) -> CatalogAccounts:
        return CatalogAccounts(engine)


class TestAccounts(AccountsConformance):
    @pytest.fixture
    def accounts(self, engine: sa.Engine) -> CatalogAccounts:
        return CatalogAccounts(engine)


class TestEndedSessions(EndedSessionsConformance):
    @pytest.fixture
    def ended(self, engine: sa.Engine) -> CatalogEndedSessions:
        return CatalogEndedSessions(engine)


class TestDataKeys(DataKeyStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogDataKeys:
        return CatalogDataKeys(engine)


class TestSubjectKeys(SubjectKeyStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogSubjectKeys:
        return CatalogSubjectKeys(engine)


class TestUserSessions(UserSessionsConformance):
    @pytest.fixture
    def sessions(self, engine: sa.Engine) -> CatalogUserSessions:
        return CatalogUserSessions(engine)


class TestAuditLog(AuditLogConformance):
    @pytest.fixture
    def log(self, engine: sa.Engine) -> CatalogAuditLog:
        return audit_log(engine)

    def test_what_no_database_takes_is_written_out(self, log: CatalogAuditLog) -> None:
        log.append([AuditEvent(1, "nobody", "predict", "a\0b", "half \ud800 of a pair")])
        [event] = log.read()
        assert (event.resource, event.detail) == ("a\\x00b", "half \\ud800 of a pair")


class TestRoutes(RoutesConformance):
    @pytest.fixture
    def routes(self, engine: sa.Engine) -> CatalogRoutes:
        return CatalogRoutes(engine)

    @pytest.fixture
    def same(self, engine: sa.Engine) -> Callable[[], CatalogRoutes]:
        return lambda: CatalogRoutes(engine)


class TestBaselines(BaselinesConformance):
    @pytest.fixture
    def baselines(self, engine: sa.Engine) -> CatalogBaselines:
        return CatalogBaselines(engine)


class TestSimulations(SimulationsConformance):
    @pytest.fixture
    def simulations(self, engine: sa.Engine) -> CatalogSimulations:
        return CatalogSimulations(engine)


class TestMonitors(MonitorStoreConformance):
    @pytest.fixture
    def monitors(self, engine: sa.Engine) -> CatalogMonitors:
        return CatalogMonitors(engine)


class TestIncidents(IncidentStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogIncidents:
        return CatalogIncidents(engine, "lake")

    @pytest.fixture
    def elsewhere(self, engine: sa.Engine) -> CatalogIncidents:
        return CatalogIncidents(engine, "another")


class TestService(ServiceStoreConformance):
    @pytest.fixture
    def service(self, engine: sa.Engine) -> CatalogService:
        return CatalogService(engine)


class TestUsage(UsageStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogUsage:
        return CatalogUsage(engine, most=4)


class TestRollouts(RolloutStoreConformance):
    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogRollouts:
        return CatalogRollouts(engine)


class TestTracking(TrackingConformance):
    @pytest.fixture
    def tracking(self, store_url: Url, tmp_path: Path) -> Iterator[MlflowTracking]:
        store = MlflowTracking(store_url.text, tmp_path / "runs")
        yield store
        store.close()


class TestVersions(VersionsConformance):
    """MLflow's tables and the catalog in one database, as a small installation has them."""

    @pytest.fixture
    def versions(self, store_url: Url, beside: sa.Engine, postgres_server: PostgresServer) -> Iterator[MlflowVersions]:
        postgres_server.emptied(schema_of(DEPOT), store_url.path.name)
        store = MlflowVersions(store_url.text, beside)
        yield store
        store._store.engine.dispose()


def test_privacy_budgets_are_not_overspent(engine: sa.Engine, tmp_path: Path) -> None:
    budgets = CatalogPrivacyBudgets(engine, tmp_path / "keys" / "spent")
    with ThreadPoolExecutor(4) as threads:
        spent = threads.map(lambda _: sum(budgets.spend("orders", 30_000, 500_000) for _ in range(8)), range(4))
        assert sum(spent) == 16
    assert (budgets.spent("orders"), budgets.spent("others")) == (480_000, 0)


def test_what_is_applied(engine: sa.Engine) -> None:
    applied = Applied(engine)
    applied.replace({("source", "orders"): "{}", ("entity", "user"): "{}"}, 1)
    applied.replace({("source", "orders"): '{"a": 1}'}, 2)
    assert applied.current() == {("source", "orders"): '{"a": 1}'}
