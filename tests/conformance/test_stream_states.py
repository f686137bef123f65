"""States of stream endpoints in files, and in a catalog on SQLite and on Postgres; and an endpoint that two processes
share there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.serving.adapters.stream_states import CatalogStates
from mainspring.serving.conformance.stream_states import StateStoreConformance
from mainspring.serving.streaming.state import StateStore
from mainspring.serving.streaming.state_file import StateFiles


class TestFiles(StateStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> StateFiles:
        return StateFiles(tmp_path)


class TestCatalogOnSqlite(StateStoreConformance):
    shared = True

    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogStates:
        return CatalogStates(catalog, "lake", "checks")

    def concurrent(self, _store: StateStore) -> bool:
        return False  # in memory it has one connection


class TestCatalogOnPostgres(StateStoreConformance):
    shared = True

    @pytest.fixture
    def store(self, engine: sa.Engine) -> CatalogStates:
        return CatalogStates(engine, "lake", "checks")
