"""Two tenants with the same project on the same servers: neither reaches the other's part, by handles or credentials.

Rights are granted exactly as `mainspring tenant plan` says.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from obstore.exceptions import BaseError
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from kit.adapter_tables import TABLES
from kit.models import identity_bundle
from kit.mosquitto import broker
from kit.object_store import ENVIRONMENT, new_bucket
from kit.policy_store import Gate, gated_store
from kit.servers import NatsServer, PostgresServer, Server, running
from kit.transit_server import TOKEN, transit
from kit.waiting import wait_until
from mainspring.core.errors import Conflict, Corrupt, Denied, MainspringError, NotFound, QuotaExceeded
from mainspring.core.object_store_url import open_store
from mainspring.core.settings import Settings, Url
from mainspring.data.adapters.log_nats import NatsLog
from mainspring.data.adapters.log_nats import _stream as stream_of
from mainspring.data.streams.model import NewMessage
from mainspring.features.model import EntityState
from mainspring.llm.budgets import Budgets, Spend
from mainspring.operations.doctor import examine
from mainspring.operations.keys import create_key
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.operations.tenants import TenantPlan, plan
from mainspring.project import Project, open_project
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.data import ONLINE_STORES, server_log
from mainspring.project.backends.retrieval import VECTOR_STORES
from mainspring.project.catalog import schema_of
from mainspring.project.language_models import shared_budgets
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import seal
from mainspring.security.adapters.key_vault import VaultKeys
from mainspring.security.model import AuditEvent, Principal, Wrapped
from mainspring.security.quota import Quota
from mainspring.security.sessions import Sessions, session_secret
from mainspring.vectors.model import Entries, IndexSpec

TENANTS = ("acme", "beta")
DATABASE = {"sqlite", "postgresql", "postgres", "memory"}  # in schemas: `test_a_role_reaches_no_table_of_the_other`
# Tables of other adapters. A new one fails `test_every_port_is_tried` until it is here.
STATE = {"PREDICTION_LOGS", "PREDICTIONS", "SKETCHES"}  # files there, and tables of the lake
OWN = {
    "LAKES",
    "ONLINE_STORES",
    "BUDGETS",
    "EVENT_LOGS",
    "BLOBS",
    "KEY_SERVICES",
    "ANCHORS",
    "BROKERS",
    "VECTOR_STORES",
    "WAREHOUSES",
}
# Each kind of server, and the test here that crosses it with credentials; of the others the plan has a test.
CROSSED = {
    "postgresql",
    "postgres",
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "s3",
    "nats",
    "tls",
    "mqtt",
    "mqtts",
    "vault",
}
FILES = {"file", "sqlite", "lmdb", "memory"}  # in the state folder: `test_a_tenant_s_files_are_in_its_state_folder`
# No server of these has rights in tests; the plan has a test.
PLANNED = {"gs", "az", "kafka", "kinesis", "awskms", "pkcs11", "keyring", "http", "https"}
GIVEN = {"bigquery", "duckdb", "snowflake"}  # not of this installation: a tenant reads what its own credentials may
NAMED = {"milvus", "milvuss"}  # apart by names of collections: `test_schemas_are_apart` of Milvus's suite


@dataclass
class World:
    """Both tenants, and what the administrator has."""

    postgres: PostgresServer
    database: Url
    redis: Server
    bucket: Url
    projects: Mapping[str, Project]
    plans: Mapping[str, TenantPlan]
    gate: Gate

    @property
    def two(self) -> tuple[Project, Project]:
        a, b = (self.projects[name] for name in TENANTS)
        return a, b

    def settings(self, tenant: str) -> Settings:
        return self.projects[tenant].settings


class _Accounts(NatsServer):
    """NATS with the accounts that plans name."""

    def allow(self, *statements: str) -> None:
        bodies = [text.partition("{")[2].rpartition("}")[0] for text in statements]
        (self.folder / "nats.conf").write_text("accounts {" + "".join(bodies) + "}\n")
        self.options = ("-c", str(self.folder / "nats.conf"))


def _planned(root: Path, tenant: str, servers: Mapping[str, str]) -> TenantPlan:
    root.mkdir()
    (root / "mainspring.toml").write_text('name = "shop"\nmodules = ["shop"]\n')
    (root / "shop.py").touch()
    return plan(load_settings(root, None, {"tenant": tenant, **servers}, environment={}), passwords=True)


def _statements(found: TenantPlan, server: str) -> list[str]:
    return [grant.statements for grant in found.grants if grant.server == server]


def _use_key(patch: pytest.MonkeyPatch, tenant: str) -> None:
    """Let the environment have the tenant's key of the bucket."""
    for name, value in {**ENVIRONMENT, "AWS_ACCESS_KEY_ID": tenant}.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def _as_acme(monkeypatch: pytest.MonkeyPatch) -> None:
    _use_key(monkeypatch, TENANTS[0])


@pytest.fixture(scope="session")  # roles are of the whole server
def world(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, redis_server: Server
) -> Iterator[World]:
    base, database = tmp_path_factory.mktemp("tenants"), postgres_server.fresh()
    with gated_store() as (endpoint, gate), running(_Accounts) as nats:
        bucket = new_bucket(endpoint)
        address = f"{bucket.text.partition('/some')[0]}/{{}}?endpoint={endpoint}&region=us-east-1"
        servers = {
            "catalog": database.text, "tracking": database.text, "online": redis_server.url.text,
            "lake": address.format("lake"), "blobs": address.format("bundles"), "streams": nats.url.text,
        }  # fmt: skip
        plans = {tenant: _planned(base / tenant, tenant, servers) for tenant in TENANTS}
        for found in plans.values():
            with psycopg.connect(database.text, autocommit=True) as admin:
                for text in _statements(found, "postgres"):
                    admin.execute(text)  # type: ignore[call-overload]
            with redis.Redis.from_url(redis_server.url.text) as client:
                for text in _statements(found, "redis"):
                    client.execute_command(*text.split())
        nats.stop()
        nats.allow(*(text for found in plans.values() for text in _statements(found, "nats")))
        nats.start()
        gate.policies = {tenant: json.loads(_statements(found, "s3")[0]) for tenant, found in plans.items()}
        projects = {}
        for tenant, found in plans.items():
            environment = {**{f"MAINSPRING_{name.upper()}": value for name, value in servers.items()},
                           **found.environment}  # fmt: skip
            projects[tenant] = open_project(load_settings(base / tenant, None, environment=environment))
            with pytest.MonkeyPatch.context() as patch:
                _use_key(patch, tenant)  # taken when a store is opened
                projects[tenant].lake, projects[tenant].blobs, projects[tenant].streams
            projects[tenant].engine.connect().close()
        yield World(postgres_server, database, redis_server, bucket, projects, plans, gate)
        for project in projects.values():
            project.close()


def test_every_port_is_tried() -> None:
    tables = {name: table for name, table in TABLES.items() if name != "_SERVER_LOGS"}
    # A sealed catalog is a file, from which a gateway reads what an image brought.
    in_schemas = {name for name, table in tables.items() if table.keys() - {"sealed"} == DATABASE}
    assert tables.keys() - in_schemas == STATE | OWN
    schemes = {scheme for name in OWN for scheme in tables[name]} | {each for name in STATE for each in tables[name]}
    assert schemes == CROSSED | FILES | PLANNED | NAMED | GIVEN


def test_names_in_stores_do_not_collide(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.two
    table = pa.table({"id": [1, 2]})
    for project, count in ((a, 1), (b, 2)):
        _use_key(monkeypatch, project.settings.tenant)  # delta-rs takes it at each call
        project.lake.append("orders", table.slice(0, count).to_batches(), table.schema, key="load")
        project.online.write("Load", [(b"ana", EntityState(count, project.settings.tenant.encode()))])
        project.streams.create("orders")
        project.streams.produce("orders", [NewMessage(project.settings.tenant.encode())] * count)
        project.audit.append([AuditEvent(1, project.settings.tenant, "x", "y")])
    for project, count in ((a, 1), (b, 2)):
        _use_key(monkeypatch, project.settings.tenant)
        assert project.online.read([("Load", b"ana")]) == [EntityState(count, project.settings.tenant.encode())]
        assert [*project.lake.tables()] == ["orders"]
        files = project.lake.scan("orders").files or ()
        assert sum(pq.read_metadata(file).num_rows for file in files) == count
        assert project.streams.topics() == ["orders"]
        assert len(project.streams.read("orders", {0: 1}, limit=9, wait_s=1)) == count
        assert {event.actor for event in project.audit.read() if event.action == "x"} == {project.settings.tenant}
    a.online.clear("Load")
    assert b.online.views() == ["Load"]


def test_locks_of_one_name_are_held_by_both(world: World) -> None:
    a, b = world.two
    both = (a.locks.hold("materialise"), b.locks.hold("materialise", wait_s=0))
    with both[0], both[1], pytest.raises(Conflict), a.locks.hold("materialise", wait_s=0):
        pass


def test_keys_sessions_bundles_and_data_keys_of_one_are_not_valid_at_the_other(world: World) -> None:
    a, b = world.two
    token = create_key(a, "ci", ["predict"], 10**12)
    assert a.authenticator.authenticate(f"Bearer {token}").name == "ci"
    with pytest.raises(Denied):
        b.authenticator.authenticate(f"Bearer {token}")
    sessions = [Sessions(session_secret(each.pepper), each.wall, each.ended_sessions) for each in (a, b)]
    cookie = sessions[0].open(a.authenticator.authenticate(f"Bearer {token}"))
    assert [session.read(cookie) is not None for session in sessions] == [True, False]
    bundle = identity_bundle("FP32")
    sealed = seal(bundle.manifest, bundle.files, a.signing_key)
    a.bundles.save(sealed)
    with pytest.raises(Corrupt, match="signature"):
        b.bundles.save(sealed)
    key = a.data_keys.newest("lake")
    with pytest.raises(MainspringError):
        b.data_keys.secrets([key.id])


def test_a_role_reaches_no_table_of_the_other(world: World) -> None:
    with psycopg.connect(world.database.text) as admin:
        tables = admin.execute(
            "SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname LIKE '%%beta..shop' AND c.relkind IN ('r', 'S')"
        ).fetchall()
    assert len(tables) > 40
    tries = ["SELECT * FROM {}", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "INSERT INTO {} DEFAULT VALUES"]
    with psycopg.connect(world.settings("acme").catalog.text, autocommit=True) as connection:
        for schema, table, kind in tables:
            for text in tries if kind == "r" else ["SELECT nextval('{}')"]:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(text.format(f'"{schema}"."{table}"'))  # type: ignore[call-overload]
        for text in (
            'CREATE TABLE "mainspring_beta..shop".x (n int)', "CREATE TABLE public.x (n int)", "CREATE SCHEMA x",
            'ALTER SCHEMA "mainspring_beta..shop" RENAME TO x', 'DROP SCHEMA "mainspring_beta..shop" CASCADE',
            'SET ROLE "mainspring_beta..shop"', "SET SESSION AUTHORIZATION mainspring", "CREATE ROLE x",
            'ALTER ROLE "mainspring_beta..shop" PASSWORD \'x\'', 'GRANT "mainspring_beta..shop" TO CURRENT_USER',
            "COPY (SELECT 1) TO '/tmp/x'", "SELECT pg_read_file('/etc/passwd')", "CREATE DATABASE x",
            'ALTER DEFAULT PRIVILEGES FOR ROLE "mainspring_beta..shop" GRANT SELECT ON TABLES TO PUBLIC',
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(text)  # type: ignore[call-overload]


def test_mlflow_and_optuna_would_be_in_the_tenant_s_schemas(world: World) -> None:
    for tenant in TENANTS:
        with psycopg.connect(world.settings(tenant).tracking.text, autocommit=True) as connection:
            assert connection.execute("SELECT current_schema()").fetchone() == (f"mlflow_{tenant}..shop",)
            connection.execute(f'CREATE TABLE "optuna_{tenant}..shop".studies (n int)')  # type: ignore[call-overload]
            connection.execute("CREATE TABLE runs (n int)")


def test_online_states_on_postgres_are_in_the_tenant_s_schema(world: World) -> None:
    stores = []
    for project in world.two:
        at = Context(project.settings.catalog, project)
        stores.append(build("online", ONLINE_STORES, at))
    a, b = stores
    a.write("Load", [(b"ana", EntityState(1, b"acme"))])
    assert (a.views(), b.views()) == (["Load"], [])
    b.write("Load", [(b"ana", EntityState(2, b"beta"))])
    b.clear("Load")
    assert a.read([("Load", b"ana")]) == [EntityState(1, b"acme")]
    with psycopg.connect(world.settings("acme").catalog.text) as connection:
        schemas = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'entity'").fetchall()
    assert {name for (name,) in schemas} == {schema_of(project.settings.scope) for project in world.two}
    for store in stores:
        store.close()


def test_indexes_of_vectors_on_postgres_are_apart(world: World) -> None:
    with psycopg.connect(world.database.text, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    stores = []
    for project in world.two:
        at = Context(project.settings.catalog, project)
        stores.append(build("vectors", VECTOR_STORES, at))
    a, b = stores
    spec = IndexSpec(dimension=2)
    a.create("docs", spec).upsert(Entries(["one"], np.ones((1, 2), np.float32)))
    assert (a.names(), b.names()) == (["docs"], [])
    b.create("docs", spec)
    b.drop("docs")
    assert a.open("docs").ids() == ["one"]
    a.drop("docs")
    for store in stores:
        store.close()


def test_a_user_of_redis_reaches_no_key_of_the_other(world: World) -> None:
    a, b = world.two
    b.online.write("Load", [(b"ana", EntityState(5, b"beta"))])
    root, own = "mainspring:{beta..shop}:1:", "mainspring:{acme..shop}:1:"
    commands: list[tuple[Any, ...]] = [
        ("HGET", f"{root}state:Load", "ana"), ("HSCAN", f"{root}state:Load", 0), ("SMEMBERS", f"{root}views"),
        ("HSET", f"{root}marks", "Load", "x"), ("HDEL", f"{root}state:Load", "ana"), ("UNLINK", f"{root}views"),
        ("RENAME", f"{root}views", f"{own}views"), ("RENAME", f"{own}views", f"{root}views"),
        ("EXISTS", f"{root}views"),
        ("EVAL", "return redis.call('SMEMBERS', KEYS[1])", 1, f"{root}views"),
        ("EVAL", "return redis.call('SMEMBERS', ARGV[1])", 0, f"{root}views"),
        ("EVAL", "return redis.call('KEYS', '*')", 0), ("KEYS", "*"), ("SCAN", 0), ("RANDOMKEY",), ("DBSIZE",),
        ("FLUSHDB",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("ACL", "SETUSER", "x"), ("PUBLISH", root, "x"),
        ("SUBSCRIBE", root), ("PSUBSCRIBE", "*"), ("MONITOR",), ("DUMP", f"{root}views"), ("INFO",), ("CLIENT", "LIST"),
        ("SCRIPT", "FLUSH"), ("MIGRATE", "127.0.0.1", 1, f"{root}views", 0, 1), ("SAVE",),
        ("HGET", "mainspring:{acme..shop}", "x"), ("HGET", "mainspring:{acme..shop..}:1:marks", "x"),
        ("HGET", "mainspring:{shop}:1:marks", "x"),
    ]  # fmt: skip
    with redis.Redis.from_url(a.settings.online.text) as client:
        for command in commands:
            with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
                client.execute_command(*command)
        client.select(1)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command("HGET", f"{root}marks", "Load")
    hostile = f"}}:1:state:../{root}state:Load"
    a.online.write(hostile, [(b"ana", EntityState(9, b"acme"))])
    assert b.online.read([("Load", b"ana"), (hostile, b"ana")]) == [EntityState(5, b"beta"), None]
    b.online.clear("Load")
    a.online.clear(hostile)


def test_tenants_have_budgets_of_their_own_on_one_redis(world: World) -> None:
    quotas, caller = (Quota("team", per="month", tokens=10, by="all"),), Principal("k", "k", frozenset())

    def opened(project: Project) -> Budgets:
        budgets = shared_budgets(project)
        assert budgets is not None
        return budgets

    async def left() -> list[dict[str, int]]:
        first, second = map(opened, world.two)
        (await first.reserve(quotas, caller, "m", Spend(7))).settle(Spend(7))
        with pytest.raises(QuotaExceeded):
            await first.reserve(quotas, caller, "m", Spend(8))
        await first.close()
        again = opened(world.two[0])
        found = [await each.left(quotas, caller, "m") for each in (again, second)]
        for each in (again, second):
            await each.close()
        return found

    assert asyncio.run(left()) == [{"tokens": 3}, {"tokens": 10}]


def test_a_key_of_the_bucket_reaches_no_object_of_the_other(world: World) -> None:
    a, b = world.two
    assert a.settings.lake.path == Path("/lake/acme/shop")
    digest = "0" * 64
    b.blobs.put(digest, {"x": b"beta"})
    with pytest.raises(NotFound):
        a.blobs.get(digest)
    whole = a.settings.lake.text.partition("/lake/")[0] + "/?" + a.settings.lake.text.partition("?")[2]
    store = open_store(Url(whole))  # by the key of acme
    own = open_store(a.settings.lake)
    obstore.put(own, "orders/mine", b"x")
    tries: list[Callable[[], object]] = [
        lambda: obstore.get(store, "lake/beta/shop/orders/_delta_log/00000000000000000000.json"),
        lambda: obstore.put(store, "lake/beta/shop/x", b"x"),
        lambda: obstore.delete(store, f"bundles/beta/shop/whole/{digest}"),
        lambda: obstore.copy(store, "lake/beta/shop/x", "lake/acme/shop/x"),
        lambda: obstore.list(store, "lake/beta/shop").collect(),
        lambda: obstore.list(store, "lake/acme/shop2").collect(),
        lambda: obstore.list(store).collect(),
        lambda: obstore.list_with_delimiter(store, "lake"),
        lambda: obstore.get(own, "../../beta/shop/x"),
    ]
    for each in tries:
        with pytest.raises((BaseError, PermissionError, ValueError)) as told:
            each()
        assert not isinstance(told.value, FileNotFoundError)
    for hostile in ("../../beta/shop/orders", "..", "beta/shop/orders", "/lake/beta/shop/orders"):
        with pytest.raises(MainspringError):
            a.lake.version(hostile)
        with pytest.raises(MainspringError):
            a.blobs.get(hostile)


def test_metrics_have_the_tenant(world: World) -> None:
    text = ControlMetrics(world.projects["acme"]).text().decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples
    assert all('{tenant="acme"' in line for line in samples)


def test_doctor_says_what_is_open(world: World) -> None:
    acme = world.projects["acme"]
    found = examine(acme, "tenant")
    assert [(each.ok, each.detail.partition(" ")[0]) for each in found] == [
        (True, part) for part in ("catalog", "tracking", "online", "lake", "blobs", "streams")
    ], found
    role = '"mainspring_acme..shop"'
    opened: list[tuple[str, str, str]] = [
        (f'GRANT USAGE ON SCHEMA "mainspring_beta..shop" TO {role}', "may enter mainspring_beta..shop",
         f'REVOKE USAGE ON SCHEMA "mainspring_beta..shop" FROM {role}'),
        (f"GRANT CREATE ON SCHEMA public TO {role}", "may create tables in public",
         f"REVOKE CREATE ON SCHEMA public FROM {role}"),
        (f"ALTER ROLE {role} CREATEDB", "is creator of databases", f"ALTER ROLE {role} NOCREATEDB"),
        (f'GRANT "mainspring_beta..shop" TO {role}', "is a member of mainspring_beta..shop",
         f'REVOKE "mainspring_beta..shop" FROM {role}'),
        (f"ALTER ROLE {role} SUPERUSER", "is superuser", f"ALTER ROLE {role} NOSUPERUSER"),
    ]  # fmt: skip
    with psycopg.connect(world.database.text, autocommit=True) as admin:
        for grant, said, revoke in opened:
            admin.execute(grant)  # type: ignore[call-overload]
            wrong = [each.detail for each in examine(acme, "tenant") if not each.ok]
            admin.execute(revoke)  # type: ignore[call-overload]
            assert [said in each for each in wrong] == [True, True], (said, wrong)
    with redis.Redis.from_url(world.redis.url.text) as client:
        client.execute_command("ACL", "SETUSER", world.plans["acme"].user, "~*")
        policies, world.gate.policies = world.gate.policies, {}
        wrong = [each.detail for each in examine(acme, "tenant") if not each.ok]
        world.gate.policies = policies
        client.execute_command("ACL", "SETUSER", world.plans["acme"].user, "resetkeys", "~mainspring:{acme..shop}:*")
    assert len(wrong) == 3
    assert "reads keys of others; deletes keys of others" in wrong[0]
    assert "lists objects of others; reads objects of others; writes objects beside its prefix" in wrong[1]
    assert all(each.ok for each in examine(acme, "tenant"))


def test_a_token_of_vault_reaches_no_key_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with transit() as engine:
        projects, address = {}, engine.url.replace(TOKEN, "TOKEN")
        for tenant in TENANTS:
            [engine.policies[tenant]] = _statements(
                _planned(tmp_path / tenant, tenant, {"encryption": address}), "vault"
            )
            engine.add(f"mainspring..{tenant}..shop")
            settings = {"tenant": tenant, "encryption": address.replace("TOKEN", tenant)}
            projects[tenant] = open_project(load_settings(tmp_path / tenant, None, settings, environment={}))
        a, b = projects.values()
        for project in (a, b):
            key = project.data_keys.newest("lake")
            assert project.data_keys.secrets([key.id])
        whole = a.settings.encryption.text
        for other in (whole.replace("..acme..", "..beta.."), address.replace("TOKEN", "acme")):
            keys = VaultKeys(Url(other))
            for call in (keys.version, lambda keys=keys: keys.wrap([b"k" * 32], ["c"]), keys.rotate,
                         lambda keys=keys: keys.unwrap([Wrapped(b"k" * 32, "1")], ["c"])):  # fmt: skip
                with pytest.raises(Denied):
                    call()

        def told() -> str:
            return " ".join(each.detail for each in examine(a, "tenant") if each.detail.startswith("encryption"))

        assert "nothing beyond" in told()
        engine.policies["acme"] += '\npath "transit/keys/mainspring" { capabilities = ["read"] }'
        assert "reads keys of others" in told()
        del engine.keys["mainspring"]
        assert "reads keys of others" in told()
        a.close()
        b.close()


def test_users_of_mqtt_reach_no_topic_of_the_other(tmp_path: Path) -> None:
    """Mosquitto grants every subscription, and delivers only what its rules let the user read."""
    plans = {tenant: _planned(tmp_path / tenant, tenant, {"fleet": "mqtt://127.0.0.1"}) for tenant in TENANTS}
    devices = {tenant: f"cam-{tenant}" for tenant in TENANTS}
    rules = [
        text.replace("DEVICE", devices[tenant]) for tenant in TENANTS for text in _statements(plans[tenant], "mqtt")
    ]
    users = {**{plans[tenant].user: tenant for tenant in TENANTS}, **{devices[tenant]: tenant for tenant in TENANTS}}
    with broker(tmp_path / "broker", "shop", list(users), rules="\n\n".join(rules)) as mqtt:
        clients = {user: _Listener(user, mqtt.port) for user in users}
        own = {user: f"mainspring/{tenant}..shop" for user, tenant in users.items()}
        names = ("reported", "desired")
        topics = [f"{root}/{device}/{name}" for root in set(own.values()) for device in devices.values()
                  for name in names]  # fmt: skip
        topics += ["mainspring/shop/cam-acme/desired", "mainspring/acme..shop2/x", "mainspring", "elsewhere"]
        granted = {
            user: {
                topic for topic in topics
                if topic.startswith(f"{root}/") and (user not in devices.values() or topic == f"{root}/{user}/reported")
            }
            for user, root in own.items()
        }  # fmt: skip
        for user, client in clients.items():
            assert {topic for topic in topics if client.published(topic, user)} == granted[user]
        expected = {
            user: {
                (topic, by) for by, allowed in granted.items() for topic in allowed
                if topic.startswith(f"{root}/") and (user not in devices.values() or topic == f"{root}/{user}/desired")
            }
            for user, root in own.items()
        }  # fmt: skip
        for user, client in clients.items():
            wait_until(lambda client=client, user=user: client.heard >= expected[user], "messages")
        for user, client in clients.items():
            client.end()
            assert client.heard == expected[user]


class _Listener:
    """A client that subscribes to everything, by every kind of filter, and notes what it is sent."""

    def __init__(self, user: str, port: int) -> None:
        self.heard: set[tuple[str, str]] = set()
        self._told: dict[int, bool] = {}
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.username_pw_set(user, user[::-1])
        ready = threading.Event()
        self._client.on_message = lambda _c, _d, message: self.heard.add((message.topic, message.payload.decode()))
        self._client.on_publish = lambda _c, _d, number, reason, _p: self._told.update({number: not reason.is_failure})
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        filters = ("#", "mainspring/#", "mainspring/+/+/desired", "+/beta..shop/#", "$share/x/#")
        self._client.subscribe([(each, 1) for each in filters])
        self._client.loop_start()
        assert ready.wait(20)

    def published(self, topic: str, content: str) -> bool:
        """Publish a message, and return whether the broker took it."""
        number = self._client.publish(topic, content, qos=1, retain=True).mid
        wait_until(lambda: number in self._told, "the answer")
        return self._told[number]

    def end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_doctor_tells_objects_that_are_absent_from_those_that_may_not_be_read(world: World) -> None:
    """S3 denies both alike to who may not list their names."""
    acme, planned = world.projects["acme"], world.gate.policies
    assert all(each.ok for each in examine(acme, "tenant"))
    listing, objects = planned["acme"]["Statement"]
    try:
        everywhere = {**objects, "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::*"]}
        world.gate.policies = {**planned, "acme": {"Statement": [listing, objects, everywhere]}}
        wrong = [each.detail for each in examine(acme, "tenant") if not each.ok]
        assert [each.endswith("is open: the user reads objects of others") for each in wrong] == [True, True]
        for policies in (world.gate.policies, planned):
            world.gate.policies, world.gate.terse = policies, True
            unsure = [each.detail for each in examine(acme, "tenant") if each.ok and "may read" in each.detail]
            assert len(unsure) == 2
    finally:
        world.gate.policies, world.gate.terse = planned, False


async def _deleted(log: NatsLog, topic: str) -> None:
    await (await log._js()).delete_stream(stream_of(topic, 0))


def test_an_account_of_nats_has_no_stream_of_the_other(world: World) -> None:
    a, b = world.two
    b.streams.create("orders")
    raw = server_log(a.settings.streams)
    assert isinstance(raw, NatsLog)
    try:
        assert all(name.startswith("acme..shop..") for name in raw.topics())
        with pytest.raises(NotFound):
            raw.spans("beta..shop..orders", [0])
        raw.create("beta..shop..orders")  # in its own account
        raw.produce("beta..shop..orders", [NewMessage(b"forged")])
        assert all(each.value != b"forged" for each in b.streams.read("orders", {0: 1}, limit=9))
        raw.commit("orders", "loader", {0: 7})
        assert b.streams.committed("orders", "loader") == {}
        raw._run(_deleted(raw, "beta..shop..orders"))  # other tests look at the account
    finally:
        raw.close()
    for hostile in ("beta..shop..orders", "*", ">", "$JS.API.STREAM.NAMES", "../orders"):
        with pytest.raises(MainspringError):
            a.streams.spans(hostile, [0])
