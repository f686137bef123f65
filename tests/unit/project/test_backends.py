"""Settings become adapters: each port, by each scheme it knows."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.adapter_tables import TABLES
from kit.waiting import free_port
from mainspring.core.errors import Conflict, Invalid, MissingExtra
from mainspring.core.settings import UpstreamServer, Url
from mainspring.core.time import ManualClock
from mainspring.project import Project, open_project
from mainspring.project.backends.base import Context, build
from mainspring.project.catalog import memory_catalog
from mainspring.project.settings import load_settings
from mainspring.project.tenancy import vectors_schema
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.vectors.model import EncoderAway

PORTS = (
    "lake", "snapshots", "key_store", "audit", "online", "tracking", "versions", "routes", "prediction_log",
    "predictions", "monitors", "bundles",
)  # fmt: skip
MEMORY = dict.fromkeys(("catalog", "lake", "online", "tracking", "blobs", "ledger"), "memory://")


def _project(root: Path, **overrides: Any) -> Project:
    (root / "mainspring.toml").write_text('name = "shop"\nmodules = []\n')
    return open_project(load_settings(root, None, overrides, environment={}))


def test_an_encoders_service_is_waited_for_as_long_as_its_use_allows(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    project = _project(tmp_path)
    project.settings.upstreams["PROVIDER"] = UpstreamServer("provider", url)
    declared = ms.Encoder("far", service="provider", model="small", dimension=2)
    asked = project.encoder(declared, for_queries=True)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(EncoderAway, match="does not answer"):
            asked.encode(["x"])
    assert time.monotonic() - began < 15
    assert project.encoder(declared, for_queries=True) is asked  # which knows that the service was away
    assert project.encoder(declared) is not asked
    assert project.encoder(declared).digest == asked.digest


@pytest.mark.parametrize("port", PORTS)
def test_the_embedded_profile_has_an_adapter_for_each_port(tmp_path: Path, port: str) -> None:
    assert getattr(_project(tmp_path), port) is not None


@pytest.mark.parametrize("port", PORTS)
def test_the_memory_profile_has_an_adapter_for_each_port(tmp_path: Path, port: str) -> None:
    project = _project(tmp_path, **MEMORY)
    if port == "lake":
        assert type(project.stored_lake).__name__ == "MemoryLake"
    else:
        assert port == "bundles" or type(getattr(project, port)).__name__.startswith(("Memory", "Catalog"))
    assert str(project.engine.url) == "sqlite://"


def test_the_memory_profile_writes_no_file_but_secrets_and_locks(tmp_path: Path) -> None:
    project = _project(tmp_path, **MEMORY)
    for port in PORTS:
        getattr(project, port)
    folders = {path.relative_to(project.settings.state).parts[0] for path in project.settings.state.rglob("*")}
    assert folders <= {"keys", "locks", ".gitignore"}


def test_log_and_store_of_predictions_are_one_in_memory(tmp_path: Path) -> None:
    project = _project(tmp_path, **MEMORY)
    assert project.prediction_log is project.predictions


@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("sqlite:///.mainspring/online.db", "SqliteOnlineStore"),
        ("lmdb:///.mainspring/online.lmdb", "LmdbOnlineStore"),
        ("redis://127.0.0.1:1", "RedisOnlineStore"),
        ("rediss://127.0.0.1:1/3", "RedisOnlineStore"),
        ("valkey://127.0.0.1:1", "RedisOnlineStore"),
        ("valkeys://127.0.0.1:1", "RedisOnlineStore"),
        ("postgres://127.0.0.1:1/features", "PostgresOnlineStore"),
        ("postgresql://127.0.0.1:1/features", "PostgresOnlineStore"),
    ],
)
def test_an_online_store_is_opened_by_its_address_before_its_server_answers(
    tmp_path: Path, url: str, store: str
) -> None:
    found = _project(tmp_path, online=url).online
    assert type(found).__name__ == store
    found.close()


def test_a_store_of_vectors_on_postgres_has_a_schema_of_its_project(tmp_path: Path) -> None:
    assert vectors_schema(_project(tmp_path).settings) == "mainspring_vectors_shop"
    found = _project(tmp_path, vectors="postgresql://127.0.0.1:1/x").vectors
    assert type(found).__name__ == "PgVectorStore"


@pytest.mark.parametrize(
    ("url", "extra"), [("lmdb:///x", "lmdb"), ("redis://x", "redis"), ("postgres://x", "postgres")]
)
def test_what_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    for name in ("lmdb", "redis", "psycopg"):
        monkeypatch.setitem(sys.modules, name, None)
        for adapter in ("lmdb", "lmdb_file", "redis", "postgres"):
            monkeypatch.delitem(sys.modules, f"mainspring.features.adapters.{adapter}", raising=False)
    with pytest.raises(MissingExtra) as caught:
        _ = _project(tmp_path, online=url).online
    assert caught.value.fix == f"pip install 'mainspring[{extra}]'"


@pytest.mark.parametrize(
    ("setting", "url", "port", "extra"),
    [
        ("catalog", "postgresql://127.0.0.1:1/x", "key_store", "postgres"),
        ("lake", "s3://bucket/lake", "lake", "objects"),
        ("blobs", "s3://bucket/bundles", "bundles", "objects"),
    ],
)
def test_what_servers_and_buckets_need_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, url: str, port: str, extra: str
) -> None:
    for name in ("psycopg", "obstore"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("data.adapters.deltaobjects", "registry.adapters.objects"):
        monkeypatch.delitem(sys.modules, f"mainspring.{name}", raising=False)
    with pytest.raises(MissingExtra) as caught:
        getattr(_project(tmp_path, **{setting: url}), port)
    assert caught.value.fix == f"pip install 'mainspring[{extra}]'"


@pytest.mark.parametrize("name", sorted(TABLES))
def test_an_unknown_scheme_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    context = Context(Url("gopher://hole"), _project(tmp_path))
    with pytest.raises(Invalid, match="gopher") as caught:
        build(name.lower(), TABLES[name], context)
    assert all(f"'{scheme}://'" in str(caught.value.fix) for scheme in TABLES[name])


def test_profiles_of_one_catalog_share_its_locks_also_where_they_have_a_state_folder_each(tmp_path: Path) -> None:
    first = _project(tmp_path)
    second = _project(tmp_path, state="other", catalog="sqlite:///.mainspring/catalog.db")
    assert first.settings.state != second.settings.state
    with first.locks.hold("ingest.orders"), pytest.raises(Conflict), second.locks.hold("ingest.orders", wait_s=0):
        pass


def test_catalogs_beside_one_another_have_locks_of_their_own(tmp_path: Path) -> None:
    first = _project(tmp_path)
    second = _project(tmp_path, catalog="sqlite:///.mainspring/second.db")
    with first.locks.hold("ingest.orders"), second.locks.hold("ingest.orders", wait_s=0):
        pass


def test_an_embedded_profile_finds_its_locks_where_they_always_were(tmp_path: Path) -> None:
    project = _project(tmp_path)
    with project.locks.hold("ingest.orders"):
        assert (project.settings.state / "locks" / "ingest.orders.lock").exists()


def test_parts_that_are_given_stand_in_for_those_of_the_settings(tmp_path: Path) -> None:
    engine, wall = memory_catalog(), ManualClock(5)
    project = Project(_project(tmp_path).settings, engine=engine, wall=wall)
    project.routes.publish([])
    assert CatalogRoutes(engine).revision() == 1
    assert project.clock is wall
    assert not (project.settings.state / "catalog.db").exists()


@pytest.mark.parametrize("name", ["lakes", "close", "allowed_hosts"])
def test_a_part_that_no_project_has_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match=f"no part '{name}'"):
        Project(_project(tmp_path).settings, **{name: None})
