"""What is particular to Redis and to Postgres: scripts that the server forgot, no memory, TLS, tables made at once."""

from __future__ import annotations

import datetime
import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kit.elsewhere import KEYS, write_round
from kit.servers import QUOTED, PostgresServer, RedisServer, Server, running
from kit.waiting import wait_until
from mainspring.core.errors import StorageFull, Unavailable
from mainspring.core.settings import Url
from mainspring.features.adapters.postgres import PostgresOnlineStore, found
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.model import EntityState, Mark


@pytest.fixture
def on_redis(redis_server: Server, request: pytest.FixtureRequest) -> Iterator[RedisOnlineStore]:
    store = RedisOnlineStore(redis_server.url, request.node.nodeid)
    yield store
    store.close()


@pytest.fixture
def on_postgres(postgres_server: Server, request: pytest.FixtureRequest) -> Iterator[PostgresOnlineStore]:
    store = PostgresOnlineStore(postgres_server.url, request.node.nodeid)
    yield store
    store.close()


def test_scripts_that_the_server_forgot_are_sent_again(redis_server: Server, on_redis: RedisOnlineStore) -> None:
    write_round(on_redis, 1)
    with redis.Redis.from_url(redis_server.url.text) as client:
        client.script_flush()
    write_round(on_redis, 2)
    on_redis.advance("v", Mark(2))
    on_redis.swap("w", "v")
    assert on_redis.read([("w", KEYS[0])])[0] is not None
    on_redis.clear("w")
    assert on_redis.views() == []


def test_projects_on_one_server_do_not_meet(redis_server: Server, on_redis: RedisOnlineStore) -> None:
    other = RedisOnlineStore(redis_server.url, "another")
    other.write("v", [(b"a", EntityState(1, b"theirs"))])
    assert on_redis.read([("v", b"a")]) == [None]
    assert (on_redis.views(), other.views()) == ([], ["v"])
    other.clear("v")
    other.close()


def test_what_is_replaced_leaves_nothing_on_redis(redis_server: Server, on_redis: RedisOnlineStore) -> None:
    write_round(on_redis, 1)
    on_redis.advance("v", Mark(1))
    on_redis.swap("w", "v")
    on_redis.clear("w")
    with redis.Redis.from_url(redis_server.url.text) as client:
        assert client.keys(b"mainspring:*test_what_is_replaced*") == []


def test_an_answer_is_bytes_whatever_the_address_says(redis_server: Server) -> None:
    store = RedisOnlineStore(Url(f"{redis_server.url.text}?decode_responses=true"), "bytes")
    store.write("v", [(b"\xff", EntityState(1, b"\xff\x00"))])
    assert store.read([("v", b"\xff")]) == [EntityState(1, b"\xff\x00")]
    store.clear("v")
    store.close()


def test_a_redis_without_memory_is_full_and_stays_as_it_was() -> None:
    with running(RedisServer) as server, redis.Redis.from_url(server.url.text) as client:
        store = RedisOnlineStore(server.url, "full")
        write_round(store, 1)
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 100_000)
        with pytest.raises(StorageFull) as refused:  # noqa: PT012  (which of them is refused, the server knows)
            for position in range(2, 50):
                store.write(f"v{position}", [(key, EntityState(position, b"x" * 1_000)) for key in KEYS])
        assert refused.value.fix is not None
        assert QUOTED not in str(refused.value)
        assert store.read([("v", KEYS[0])])[0] is not None
        assert store.read([(f"v{position}", KEYS[0])]) in ([None],)
        store.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cache")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_rediss_is_mutual_tls_and_trusts_only_whom_it_is_told_to(certificate: tuple[Path, Path]) -> None:
    public, private = certificate
    files = ("--tls-cert-file", str(public), "--tls-key-file", str(private), "--tls-ca-cert-file", str(public))
    with running(RedisServer) as server:
        server.stop()
        server.options = ("--port", "0", "--tls-port", str(server.port), "--tls-auth-clients", "yes", *files)
        server.start()
        address = server.url.text.replace("redis://", "rediss://")
        shown = f"ssl_certfile={public}&ssl_keyfile={private}"
        store = RedisOnlineStore(Url(f"{address}?ssl_ca_certs={public}&{shown}"), "tls")
        store.write("v", [(b"a", EntityState(1, b"x"))])
        assert store.read([("v", b"a")]) == [EntityState(1, b"x")]
        store.close()
        for options, said in ((shown, "certificate"), (f"ssl_ca_certs={public}", "did not respond")):
            stranger = RedisOnlineStore(Url(f"{address}?{options}"), "tls")
            with pytest.raises(Unavailable, match=said):
                stranger.ping()
            stranger.close()


def test_stores_that_open_at_once_make_the_tables_once() -> None:
    with running(PostgresServer) as server:
        failures: list[BaseException] = []
        together = threading.Barrier(6)

        def begin(number: int) -> None:
            store = PostgresOnlineStore(server.url, f"project{number}")
            try:
                together.wait()
                store.write("v", [(b"a", EntityState(number, b"x"))])
                assert store.read([("v", b"a")]) == [EntityState(number, b"x")]
            except BaseException as failure:
                failures.append(failure)
            finally:
                store.close()

        threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_database_that_was_set_up_anew_gets_its_tables_again(
    postgres_server: Server, on_postgres: PostgresOnlineStore
) -> None:
    write_round(on_postgres, 1)
    with psycopg.connect(postgres_server.url.text, autocommit=True) as admin:
        admin.execute("DROP SCHEMA mainspring_online CASCADE")

    def answer() -> list[EntityState | None]:
        try:
            return on_postgres.read([("v", KEYS[0])])
        except Unavailable:  # a busy machine had no time for a second try
            return []

    assert wait_until(answer, "an answer") == [None]
    write_round(on_postgres, 1)
    assert wait_until(answer, "an answer")[0] is not None


def test_a_read_that_waits_too_long_is_given_up(postgres_server: Server, on_postgres: PostgresOnlineStore) -> None:
    write_round(on_postgres, 1)
    with psycopg.connect(postgres_server.url.text) as admin:
        admin.execute("LOCK TABLE mainspring_online.entity IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="timeout"):
            on_postgres.read([("v", KEYS[0])])
        admin.rollback()
    assert on_postgres.read([("v", KEYS[0])])[0] is not None


def test_what_is_replaced_leaves_nothing_in_postgres(postgres_server: Server, on_postgres: PostgresOnlineStore) -> None:
    project = on_postgres._project
    on_postgres.write("v", [(number.to_bytes(4, "big"), EntityState(1, b"x")) for number in range(12_000)])
    on_postgres.write("w", [(b"a", EntityState(1, b"x"))])
    on_postgres.swap("v", "w")
    with psycopg.connect(postgres_server.url.text) as admin:
        counted = admin.execute(
            "SELECT (SELECT count(*) FROM mainspring_online.slot WHERE project = %s), "
            "(SELECT count(*) FROM mainspring_online.entity JOIN mainspring_online.slot ON id = slot "
            "WHERE project = %s)",
            (project, project),
        ).fetchone()
        orphans = admin.execute(
            "SELECT count(*) FROM mainspring_online.entity WHERE slot NOT IN (SELECT id FROM mainspring_online.slot)"
        ).fetchone()
    assert (counted, orphans) == ((1, 1), (0,))


def test_a_read_goes_by_keys_even_where_the_table_was_empty_when_it_was_planned(
    on_postgres: PostgresOnlineStore,
) -> None:
    plan = on_postgres._rows("EXPLAIN " + found(1, "e.payload"), [b"a"], on_postgres._project, "v")
    said = "\n".join(line for (line,) in plan)
    assert "Index" in said
    assert "Seq Scan" not in said
    assert "Hash" not in said
