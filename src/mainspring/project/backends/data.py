"""Adapters of the lake, streams and the online store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mainspring.core.settings import Url
from mainspring.project.backends.base import Build, Context, by_catalog, in_catalog, lazily
from mainspring.project.ledger_folder import lake_digest
from mainspring.project.tenancy import topics_prefix

if TYPE_CHECKING:
    from mainspring.data.ports import LakeTables, TableFiles
    from mainspring.data.warehouse.ports import Warehouse
    from mainspring.features.ports import OnlineStore
    from mainspring.security.ports import Keys
    from mainspring.serving.streaming.state import StateStore


def _in_bucket(at: Context) -> Any:
    lake = lazily("data.adapters.deltaobjects", "open_object_lake", extra="objects")
    return lake(at.url, at.state / "cache" / "lake", at.project.locks)


LAKES: Mapping[str, Build] = {
    "file": lambda at: lazily("data.adapters.delta", "DeltaLake", extra="local")(at.url.path),
    "s3": _in_bucket,
    "memory": lambda _: lazily("data.adapters.memory", "MemoryLake", extra="local")(),
}
SNAPSHOTS: Mapping[str, Build] = in_catalog("data", "CatalogSnapshots", "local")


def _stream_store(at: Context) -> Any:
    from mainspring.registry.processes import has_ended

    store = lazily("data.adapters.streams_catalog", "CatalogStreams", extra="local")
    return store(at.project.engine, lake_digest(at.project.settings), has_ended)


STREAM_STORES: Mapping[str, Build] = by_catalog(_stream_store)


def _pull_store(at: Context) -> Any:
    store = lazily("data.adapters.pulls_catalog", "CatalogPulls", extra="local")
    return store(at.project.engine, lake_digest(at.project.settings))


PULL_STORES: Mapping[str, Build] = by_catalog(_pull_store)


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


def _duckdb_file(at: Context) -> Any:
    warehouse = lazily("data.adapters.warehouse_duckdb", "DuckdbWarehouse", extra="local")
    return warehouse(at.url.path, at.state / "tmp")


def _snowflake(at: Context) -> Any:
    warehouse = lazily("data.adapters.warehouse_snowflake", "SnowflakeWarehouse", extra="snowflake")
    return warehouse(at.project.settings.warehouse)


def _bigquery(at: Context) -> Any:
    warehouse = lazily("data.adapters.warehouse_bigquery", "BigqueryWarehouse", extra="bigquery")
    return warehouse(at.project.settings.warehouse, at.project.wall)


WAREHOUSES: Mapping[str, Build] = {"bigquery": _bigquery, "duckdb": _duckdb_file, "snowflake": _snowflake}


def bounded(warehouse: Warehouse, most: int) -> Warehouse:
    """Return a warehouse that refuses statements which would read more than `most` bytes."""
    from mainspring.data.warehouse.scans import BoundedWarehouse

    return BoundedWarehouse(warehouse, most)


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


def copy_table(source: LakeTables, target: LakeTables, table: str) -> None:
    """Copy a table with all of its versions from one lake to another; see `data.adapters.deltacopy`."""
    from mainspring.data.adapters import deltacopy

    deltacopy.copy_table(source, target, table)


def table_files(lake: LakeTables) -> TableFiles:
    """Return the files of a lake's tables; see `data.adapters.deltacopy`."""
    from mainspring.data.adapters.deltacopy import DeltaFiles

    return DeltaFiles(lake)
