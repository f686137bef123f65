"""The catalog on a real Postgres server: its schema, several processes at once, and what goes wrong."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import mainspring
from kit import catalog_writers, prefork
from kit.auditing import audit_log
from kit.pulls import check_pull_store
from kit.servers import PASSWORD, QUOTED, PostgresServer, running
from mainspring.core.catalog import metadata
from mainspring.core.errors import Conflict, Denied, Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.pulls_catalog import CatalogPulls
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.streams.store import Batch
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.project.catalog import HEAD, open_catalog, schema_of
from mainspring.project.definitions.applied import Applied
from mainspring.registry.adapters.catalog import AliasMoves
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking

_SOURCE = Path(mainspring.__file__).parent
for _path in sorted(_SOURCE.rglob("*.py")):  # all that describe tables, whatever else has been imported
    if "sa.Table(" in _path.read_text("utf-8") and "migrations" not in _path.parts:
        importlib.import_module(".".join(("mainspring", *_path.relative_to(_SOURCE).with_suffix("").parts)))


@pytest.fixture
def url(postgres_server: PostgresServer) -> Url:
    return postgres_server.fresh()


def opened(url: Url) -> sa.Engine:
    return open_catalog(url, MemoryLocks(), catalog_writers.PROJECT)


def at_once(duty: str, url: Url, count: int, *more: str, processes: int = 2) -> list[Any]:
    """Let processes do their duty at the same time, and return what each says came of it."""
    started = [
        subprocess.Popen(
            prefork.program(catalog_writers, duty, url.text, who, count, *more),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for who in range(processes)
    ]  # fmt: skip
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.communicate(timeout=120)[0] for each in started]
    assert [each.returncode for each in started] == [0] * processes
    return [json.loads(text) for text in said]


def test_the_migrated_tables_are_the_described_ones(url: Url) -> None:
    engine = opened(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_several_migrate_at_once_and_one_does_it(url: Url) -> None:
    assert at_once("migrate", url, 1, processes=4) == [HEAD] * 4
    engine = opened(url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    engine.dispose()


def test_an_alias_is_moved_by_one_at_a_time(url: Url) -> None:
    engine = opened(url)
    won = at_once("move", url, 40)
    moves = AliasMoves(engine).moves("model")[::-1]
    assert len(moves) == sum(won) > 0
    assert [move.old for move in moves] == [None, *(move.new for move in moves[:-1])]
    engine.dispose()


def test_each_publication_has_a_revision_of_its_own(url: Url) -> None:
    opened(url).dispose()
    one, other = at_once("publish", url, 30)
    assert sorted(one + other) == list(range(1, 61))


def test_no_audit_event_is_lost_or_torn_from_its_batch(url: Url) -> None:
    engine = opened(url)
    at_once("audit", url, 40)
    events = audit_log(engine).read(1000)[::-1]
    assert len(events) == 160
    for who in "01":
        mine = [(event.resource, event.detail) for event in events if event.actor == who]
        assert mine == [(f"r{number}", part) for number in range(40) for part in "ab"]
    engine.dispose()


def test_tags_definitions_and_windows_by_two_at_once(url: Url) -> None:
    engine = opened(url)
    at_once("tag", url, 30)
    snapshots = CatalogSnapshots(engine)
    assert len(snapshots.log(100)) == 30
    assert sorted(snapshots.tags()) == ["tag-0", "tag-1", "tag-2"]
    at_once("apply", url, 30)
    assert len(set(Applied(engine).current().values())) == 1, "the definitions of one, not some of each"
    at_once("save", url, 15)
    assert len(CatalogMonitors(engine).windows("a")) == 30
    engine.dispose()


def test_a_partition_of_a_stream_is_leased_by_one_at_a_time(url: Url) -> None:
    engine = opened(url)
    one, other = ({(partition, epoch) for partition, epoch in had} for had in at_once("lease", url, 25))
    assert one
    assert other
    assert one & other == set()  # an epoch is of one owner
    streams = CatalogStreams(engine, "lake")
    batch = Batch("orders", "paid", 3, {0: (None, 2**186), 7: (5, 9)})  # Kinesis' offsets are that long
    streams.record(batch)
    assert streams.batch("orders") == batch
    now = 10**16
    held = streams.claim("orders", "late", [0, 1], now, now + 10)
    assert streams.holds("orders", "late", held, now + 9)
    assert not streams.holds("orders", "late", held, now + 10)
    streams.report("orders", "late", b"{}")
    assert [(each.owner, each.document) for each in streams.members("orders")] == [("late", b"{}")]
    engine.dispose()


def test_batches_of_pulls_are_stored(url: Url) -> None:
    engine = opened(url)
    check_pull_store(CatalogPulls(engine, "lake"), CatalogPulls(engine, "other"))
    engine.dispose()


def test_several_make_mlflows_tables_at_once(url: Url, tmp_path: Path) -> None:
    at_once("runs", url, 2, str(tmp_path / "runs"), processes=3)
    tracking = MlflowTracking(url.text, tmp_path / "runs")
    assert sorted(run.tags["who"] for run in tracking.search("model")) == ["0", "0", "1", "1", "2", "2"]
    tracking.close()


def test_projects_in_one_database_do_not_see_each_other(url: Url) -> None:
    one, other = open_catalog(url, MemoryLocks(), "one"), open_catalog(url, MemoryLocks(), "other")
    Applied(one).replace({("source", "orders"): "{}"}, 1)
    assert Applied(other).current() == {}
    one.dispose()
    other.dispose()


def test_a_long_name_has_a_schema_of_its_own() -> None:
    names = [schema_of("p" * 127 + end) for end in "ab"]
    assert len(set(names)) == 2
    assert all(len(name) <= 63 for name in names)


def test_a_catalog_of_a_newer_version_is_refused_and_left_alone(url: Url) -> None:
    engine = opened(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="9999") as refused:
        opened(url)
    assert QUOTED not in str(refused.value)
    engine.dispose()


def test_a_user_without_rights_is_told(postgres_server: PostgresServer, url: Url) -> None:
    database = url.path.name
    name = f"guest_{database}"
    postgres_server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    guest = postgres_server.database(database, name)
    with pytest.raises(Denied, match="permission denied"):  # may not make the schema
        opened(guest)
    opened(url).dispose()
    with pytest.raises(Denied, match="permission denied"):  # may not even see that it is there
        opened(guest)


def test_whoever_may_only_use_the_tables_can_open_a_catalog_that_is_there(
    postgres_server: PostgresServer, url: Url
) -> None:
    opened(url).dispose()
    database, schema = url.path.name, schema_of(catalog_writers.PROJECT)
    name = f"clerk_{database}"
    postgres_server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    import psycopg

    with psycopg.connect(url.text, autocommit=True) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}")  # type: ignore[call-overload]
        connection.execute(  # type: ignore[call-overload]
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {name}"
        )
    engine = opened(postgres_server.database(database, name))
    Applied(engine).replace({("source", "orders"): "{}"}, 1)
    assert len(Applied(engine).current()) == 1
    engine.dispose()


def test_a_server_that_is_away_and_one_that_is_back() -> None:
    with running(PostgresServer) as server:
        url = server.url
        engine = opened(url)
        applied = Applied(engine)
        server.stop()
        with pytest.raises(Unavailable) as gone:
            applied.current()
        with pytest.raises(Unavailable) as never:
            opened(url)
        with pytest.raises(Unavailable) as store:
            MlflowTracking(url.text, server.folder / "runs").search()
        for error in (gone, never, store):
            assert PASSWORD not in str(error.value)
            assert QUOTED not in str(error.value)
        server.start()
        assert applied.current() == {}
        engine.dispose()
