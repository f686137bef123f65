"""`mainspring profile check` against real servers: well, away, without rights, read only, old, of another encoding."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import numpy as np
import psycopg
import pytest

from kit import prefork
from kit.certificates import Authority
from kit.document_shop import Shop
from kit.milvus_server import PASSWORD as MILVUS_PASSWORD
from kit.milvus_server import MilvusServer
from kit.servers import PASSWORD, QUOTED, KafkaBroker, PostgresServer, RedisServer, running
from mainspring.core.errors import Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.operations.collection_checks import check_collections
from mainspring.operations.profile import Check, check_profile
from mainspring.operations.tenants import plan
from mainspring.project import Project, open_project, server_checks
from mainspring.project.catalog import open_catalog, schema_of
from mainspring.project.place_checks import Backend
from mainspring.project.settings import load_settings
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.vectors.adapters.milvus import MilvusVectorStore
from mainspring.vectors.model import Entries, IndexSpec
from mainspring.vectors.open_indexes import OpenIndexes

PARTS = ("catalog", "lake", "online", "tracking", "blobs", "ledger", "streams", "vectors")


def project(folder: Path, **settings: str) -> Project:
    lines = ['name = "depot"', "[profiles.elsewhere]", *(f'{name} = "{value}"' for name, value in settings.items())]
    (folder / "mainspring.toml").write_text("\n".join(lines))
    return open_project(load_settings(folder, "elsewhere", environment={}))


def checked(folder: Path, **settings: str) -> dict[str, dict[str, Check]]:
    found: dict[str, dict[str, Check]] = {part: {} for part in PARTS}
    for each in check_profile(project(folder, **settings)):
        found[each.backend][each.check] = each
    return found


def wrong(found: Mapping[str, Mapping[str, Check]]) -> list[Check]:
    return [check for checks in found.values() for check in checks.values() if not check.ok]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [prefork.programs() / "mainspring", "profile", "check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def tables(url: Url) -> list[Any]:
    with psycopg.connect(url.text) as connection:
        query = (
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT LIKE ALL ('{pg_%,information_schema}')"
        )
        return sorted(connection.execute(query).fetchall())


def test_all_is_well_and_nothing_was_made(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer, s3_url: Url
) -> None:  # fmt: skip
    database = postgres_server.fresh()
    settings = {
        "catalog": database.text, "tracking": database.text, "online": redis_server.url.text,
        "lake": s3_url.text, "blobs": s3_url.text.replace("prefix", "other"),
        "vectors": database.text,
    }  # fmt: skip
    found = checked(tmp_path, **settings)
    assert wrong(found) == []
    assert set(found["catalog"]) == {"reachable", "version", "encryption", "rights", "schema", "jobs"}
    assert set(found["online"]) == {"reachable", "version", "encryption", "rights", "schema", "budgets"}
    assert set(found["vectors"]) == {"reachable", "version", "encryption", "rights", "pgvector"}
    assert "the first command creates them" in found["catalog"]["schema"].detail
    assert "the first run creates them" in found["tracking"]["schema"].detail
    assert "Postgres" in found["catalog"]["version"].detail
    assert tables(database) == []
    assert [path.name for path in (tmp_path / ".mainspring").rglob("*") if path.is_file()] == [".gitignore"]
    shown = msgspec.json.encode([list(checks.values()) for checks in found.values()]).decode()
    assert QUOTED not in shown
    assert PASSWORD not in shown


def test_tables_that_are_there_are_said_to_be_of_this_version(tmp_path: Path, postgres_server: PostgresServer) -> None:
    database = postgres_server.fresh()
    open_catalog(database, MemoryLocks(), "depot").dispose()
    store = MlflowTracking(database.text, tmp_path / "runs")
    store.search()
    store.close()
    found = checked(tmp_path, catalog=database.text, tracking=database.text, online=database.text)
    assert wrong(found) == []
    assert "of this version" in found["catalog"]["schema"].detail
    assert found["catalog"]["jobs"].detail == "none yet"
    assert "of the installed MLflow" in found["tracking"]["schema"].detail
    assert found["online"]["rights"].ok
    with psycopg.connect(database.text, autocommit=True) as connection:
        connection.execute(f"UPDATE {schema_of('depot')}.alembic_version SET version_num = '9999'")  # type: ignore[call-overload]
        connection.execute("UPDATE alembic_version SET version_num = 'unheard of'")
    found = checked(tmp_path, catalog=database.text, tracking=database.text)
    assert [(check.backend, check.check) for check in wrong(found)] == [("catalog", "schema"), ("tracking", "schema")]


def test_indexes_on_milvus(tmp_path: Path, milvus_server: MilvusServer) -> None:
    found = checked(tmp_path, vectors=milvus_server.url.text)
    assert wrong(found) == []
    assert {name: check.detail for name, check in found["vectors"].items()} == {
        "reachable": "answers", "version": "Milvus v2.3.5-lite", "encryption": "TLS", "rights": "0 indexes are there",
    }  # fmt: skip
    refused = checked(tmp_path, vectors=milvus_server.as_user("root", "other").text)
    assert [(check.check, check.fix) for check in wrong(refused)] == [
        ("reachable", "correct the user or the password in the address.")
    ]


def test_doctor_compares_an_index_on_milvus_with_its_build(tmp_path: Path, milvus_server: MilvusServer) -> None:
    made: Any = Shop()
    made.versions = SimpleNamespace(all=lambda _: [SimpleNamespace(digest=made.now.digest)])
    made.vectors = MilvusVectorStore(milvus_server.url, schema="doctor")
    made.open_indexes = OpenIndexes(lambda: made.lake, made.vectors, lambda: made.locks, lambda: made.texts)
    build = made.build()
    (well,) = check_collections(made)
    assert (well.ok, well.detail) == (True, "collections that can be searched: 1")
    index = made.vectors.open(build.index)
    index.delete(index.ids(count=1))
    (found,) = check_collections(made)
    assert f"has {build.chunks - 1} of {build.chunks} chunks" in found.detail
    made.vectors.drop(build.index)
    made.vectors.create(build.index, IndexSpec(dimension=8))
    assert "has another specification than its build" in next(iter(check_collections(made))).detail
    made.vectors.close()


def test_a_tenant_has_its_own_database_on_milvus(tmp_path: Path, milvus_server: MilvusServer) -> None:
    found = {}
    for name in ("acme", "beta"):
        (folder := tmp_path / name).mkdir()
        settings = project(folder, vectors=milvus_server.url.text, tenant=name).settings
        planned = plan(settings, passwords=True)
        (grant,) = [each for each in planned.grants if each.server == "milvus"]
        assert (grant.parts, grant.language) == (["vectors"], "python")
        client = next(line for line in grant.statements.splitlines() if line.startswith("client = "))
        given: dict[str, Any] = dict(parse_qsl(urlsplit(milvus_server.url.text).query))
        options = {"ca_pem_path": given["ca"], "client_pem_path": given["cert"], "client_key_path": given["key"]}
        whole = client.replace("PASSWORD_OF_ROOT", MILVUS_PASSWORD)[:-1] + f", secure=True, **{options!r})"
        statements = grant.statements.replace(client, whole)
        subprocess.run([sys.executable, "-c", statements], check=True)
        found[name] = Url(planned.environment["MAINSPRING_VECTORS"])
    assert found["acme"].text.split("/")[-1] != found["beta"].text.split("/")[-1]
    stores = {name: MilvusVectorStore(url, schema="own") for name, url in found.items()}
    index = stores["acme"].create("docs", IndexSpec(dimension=2))
    index.upsert(Entries(["one"], np.ones((1, 2), np.float32)))
    assert index.search(np.ones((1, 2), np.float32), 1)[0][0].id == "one"
    assert index.count() == 1
    index.compact()
    assert (stores["acme"].names(), stores["beta"].names()) == (["docs"], [])
    theirs = found["beta"].text.split("@")[0] + "@" + found["acme"].text.split("@")[1]
    intruder = MilvusVectorStore(Url(theirs), schema="own")
    acts: list[Callable[[], object]] = [
        lambda: intruder.open("docs").ids(),
        lambda: intruder.open("docs").search(np.ones((1, 2), np.float32), 1),
        lambda: intruder.open("docs").delete(["one"]),
        lambda: intruder.drop("docs"),
        lambda: intruder.create("more", index.spec),
    ]
    for act in acts:
        with pytest.raises(Unavailable):
            act()
    index.delete(["one"])
    stores["acme"].drop("docs")
    for store in (*stores.values(), intruder):
        store.close()


def test_a_log_that_answers(tmp_path: Path, kafka_broker: KafkaBroker) -> None:
    found = checked(tmp_path, streams=kafka_broker.url.text)
    assert wrong(found) == []
    assert found["streams"]["schema"].detail.endswith(" topics")


def test_servers_that_are_away(tmp_path: Path) -> None:
    nowhere = "127.0.0.1:9"
    found = checked(
        tmp_path,
        catalog=f"postgresql://{nowhere}/x",
        online=f"redis://{nowhere}/0",
        blobs=f"s3://bucket/x?endpoint=http://{nowhere}&region=us-east-1",
        streams=f"kafka://{nowhere}?timeout=1s",
    )
    assert [(check.backend, check.check) for check in wrong(found)] == [
        (part, "reachable") for part in ("catalog", "online", "blobs", "streams")
    ]
    assert "start the server" in found["catalog"]["reachable"].fix


def test_a_user_without_rights(tmp_path: Path, postgres_server: PostgresServer) -> None:
    database = postgres_server.fresh()
    guest = f"guest_{database.path.name}"
    postgres_server.run(f"CREATE ROLE {guest} LOGIN PASSWORD '{PASSWORD}'")
    url = postgres_server.database(database.path.name, guest).text
    found = checked(tmp_path, catalog=url, tracking=url, online=url)
    assert [(check.backend, check.check) for check in wrong(found)] == [
        (part, "rights") for part in ("catalog", "online", "tracking")
    ]
    assert "GRANT CREATE" in found["catalog"]["rights"].fix
    open_catalog(database, MemoryLocks(), "depot").dispose()
    lacking = checked(tmp_path, catalog=url)["catalog"]["rights"]
    assert "lacks permission to use the schema" in lacking.detail
    with psycopg.connect(database.text, autocommit=True) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA {schema_of('depot')} TO {guest}")  # type: ignore[call-overload]
        lacking = checked(tmp_path, catalog=url)["catalog"]["rights"]
        assert "lacks permission to DELETE access_changes" in lacking.detail
        rights = "SELECT, INSERT, UPDATE, DELETE"
        connection.execute(  # type: ignore[call-overload]
            f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema_of('depot')} TO {guest}"
        )
        assert (
            "lacks permission to count on alias_moves_id_seq"
            in checked(tmp_path, catalog=url)["catalog"]["rights"].detail
        )
        connection.execute(  # type: ignore[call-overload]
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema_of('depot')} TO {guest}"
        )
    given = checked(tmp_path, catalog=url)
    assert wrong(given) == []
    assert "migrations need another user" in given["catalog"]["rights"].detail


def test_a_wrong_password_and_a_database_that_is_not_there(tmp_path: Path, postgres_server: PostgresServer) -> None:
    found = checked(
        tmp_path,
        catalog=postgres_server.url.text.replace(QUOTED, "guessed"),
        tracking=postgres_server.database("nowhere").text,
    )
    assert "user or the password" in found["catalog"]["reachable"].fix
    assert "createdb" in found["tracking"]["reachable"].fix


def test_a_database_that_is_read_only_or_of_another_encoding(tmp_path: Path, postgres_server: PostgresServer) -> None:
    closed = postgres_server.fresh()
    postgres_server.run(f"ALTER DATABASE {closed.path.name} SET default_transaction_read_only = on")
    latin = postgres_server.fresh("ENCODING 'LATIN1' TEMPLATE template0")
    found = checked(tmp_path, catalog=closed.text, tracking=latin.text)
    assert "read only" in found["catalog"]["rights"].detail
    assert "LATIN1" in found["tracking"]["encoding"].detail


def test_a_server_that_is_too_old(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:  # fmt: skip
    mine = project(tmp_path, catalog=postgres_server.url.text, online=redis_server.url.text)
    for check, part, url in (
        (server_checks.catalog_on_postgres, "catalog", postgres_server.url),
        (server_checks.tracking_on_postgres, "tracking", postgres_server.url),
        (server_checks.online_on_postgres, "online", postgres_server.url),
    ):
        *_, last = check(Backend(mine, part, url), least=99)
        assert not last.ok
        assert "is older than 99" in last.detail
    *_, last = server_checks.redis(Backend(mine, "online", redis_server.url), least=(99, 0))
    assert "is older than 99.0" in last.detail


def test_postgres_that_wants_mutual_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files, shown, other = (authority.issue(name) for name in ("server", "mainspring", "another"))
    with running(PostgresServer) as server:
        url = server.url.text
        server.stop()
        shutil.copy(files.cert, server.folder / "server.pem")
        shutil.copy(files.key, server.folder / "server.key")
        shutil.copy(authority.certificate, server.folder / "clients.pem")
        for path in (server.folder / name for name in ("server.pem", "server.key", "clients.pem")):
            path.chmod(0o600)
            if server.user is not None:
                shutil.chown(path, server.user)
        (server.folder / "data" / "pg_hba.conf").write_text(
            "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n"
        )
        server.options = (
            "-c", "ssl=on", "-c", f"ssl_cert_file={server.folder}/server.pem",
            "-c", f"ssl_key_file={server.folder}/server.key",
            "-c", f"ssl_ca_file={server.folder}/clients.pem",
        )  # fmt: skip
        server.start()
        own, others = (f"&sslcert={each.cert}&sslkey={each.key}" for each in (shown, other))
        found = checked(tmp_path, catalog=f"{url}?sslmode=disable", tracking=f"{url}?sslmode=require{own}")
        assert "sslmode=require" in found["catalog"]["reachable"].fix
        assert found["tracking"]["encryption"].detail == "TLS"
        verified = f"{url}?sslmode=verify-full&sslrootcert={authority.certificate}"
        found = checked(tmp_path, catalog=verified + own, tracking=f"{url}?sslmode=verify-full&sslrootcert={files.key}")
        assert found["catalog"]["encryption"].detail == "TLS"
        assert not found["tracking"]["reachable"].ok
        found = checked(tmp_path, catalog=verified, tracking=verified + others)
        assert not found["catalog"]["reachable"].ok
        assert not found["tracking"]["reachable"].ok
        assert wrong(checked(tmp_path, catalog=verified + own, online=verified + own)) == []


def test_redis_that_evicts_and_one_that_forbids(tmp_path: Path, redis_server: RedisServer) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url.text) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
        try:
            found = checked(tmp_path, online=redis_server.url.text)
            assert "noeviction" in found["online"]["eviction"].fix
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")
        client.acl_setuser("reader", enabled=True, passwords=["+pw"], categories=["+@read", "+@connection"], keys=["*"])
        url = redis_server.url.text.replace(f":{QUOTED}@", "reader:pw@")
        found = checked(tmp_path, online=url)
        assert [(check.backend, check.check) for check in wrong(found)] == [("online", "reachable")]
        states = "+ping +select +hget +hmget +hset +hdel +hscan +exists +unlink +sadd +srem +smembers +eval +evalsha"
        client.execute_command(
            *f"ACL SETUSER states reset on >pw ~* -@all {states} +script|load +script|exists +client|setinfo".split()
        )
        found = checked(tmp_path, online=redis_server.url.text.replace(f":{QUOTED}@", "states:pw@"))
        assert [(check.backend, check.check) for check in wrong(found)] == [("online", "budgets")]
        assert "HINCRBY" in found["online"]["budgets"].fix
        assert found["online"]["rights"].ok


def test_a_bucket_that_is_not_there(tmp_path: Path, s3_url: Url) -> None:
    found = checked(tmp_path, lake=s3_url.text.replace("s3://", "s3://no"))
    assert "no bucket" in found["lake"]["reachable"].detail


def test_a_folder_and_a_file_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    (tmp_path / "damaged.db").write_bytes(b"no database" * 100)
    found = checked(tmp_path, lake="taken", catalog="sqlite:///damaged.db")
    assert [(check.backend, check.check) for check in wrong(found)] == [("catalog", "reachable"), ("lake", "reachable")]


def test_the_command(tmp_path: Path) -> None:
    project(tmp_path, catalog="postgresql://127.0.0.1:9/x")
    ran = run(tmp_path, "elsewhere", "--json")
    assert ran.returncode == 13
    document = msgspec.json.decode(ran.stdout)
    assert document["profile"] == "elsewhere"
    assert document["well"] is False
    assert [check["backend"] for check in document["checks"] if not check["ok"]] == ["catalog"]
    told = run(tmp_path, "elsewhere")
    assert told.returncode == 13
    assert "start the server" in told.stdout
    assert "not all is well" in told.stdout
    assert run(tmp_path).returncode == 0
    assert run(tmp_path, "unheard-of").returncode == 4
