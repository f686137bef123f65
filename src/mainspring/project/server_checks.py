"""Checks of servers: Postgres, Redis and Valkey, buckets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mainspring.core.errors import MissingExtra, Unavailable
from mainspring.core.ids import new_id
from mainspring.core.settings import Address, Url
from mainspring.project.catalog import schema_of
from mainspring.project.place_checks import Backend, Outcome, all_blobs, catalog_schema, mlflow_schema, probed
from mainspring.project.tenancy import vectors_schema

if TYPE_CHECKING:
    import sqlalchemy as sa

LEAST_POSTGRES = 13
LEAST_REDIS = (6, 0)
LEAST_PGVECTOR = (0, 8)  # what the tests run with
_PGVECTOR = "SELECT coalesce(installed_version, default_version) FROM pg_available_extensions WHERE name = 'vector'"
_UNREAD = ""
# Message of libpq -> fix.
_TOLD: Sequence[tuple[str, str]] = (
    ("password authentication failed", "correct the user or the password in the address"),
    ("no password supplied", "add the password to the address, or set it in the environment"),
    ("no encryption", "the server requires TLS: add ?sslmode=require to the address"),
    ("no pg_hba.conf entry", "allow this user from this machine in the server's pg_hba.conf"),
    ("does not support SSL", "the server has no TLS: remove sslmode from the address, or enable TLS on the server"),
    ("certificate", "name the authority that signed the server's certificate: ?sslmode=verify-full&sslrootcert=FILE"),
    ("does not exist", "create it (`createdb`, `createuser`), or correct the address"),
    ("too many", "raise the server's connection limit, or use fewer processes"),
    ("", "start the server, or correct its host and port in the profile"),
)


def catalog_on_postgres(at: Backend, *, least: int = LEAST_POSTGRES) -> Iterator[Outcome]:
    """Check the server, and the catalog's own schema there."""
    schema = schema_of(at.project.settings.scope)
    with connected(at.url) as connect:
        if not (yield from _serves(connect, at.url, least)):
            return
        with connect() as connection:
            version = _alembic_version(connection, schema)
            yield from _rights(connection, schema, made=version is not None)
        if version != _UNREAD:
            yield catalog_schema(version)


def tracking_on_postgres(at: Backend, *, least: int = LEAST_POSTGRES) -> Iterator[Outcome]:
    """Check the server, and MLflow's tables there."""
    with connected(at.url) as connect:
        if not (yield from _serves(connect, at.url, least)):
            return
        with connect() as connection:
            schema = _scalar(connection, "SELECT current_schema()")
            if schema is None:
                yield Outcome(
                    "rights", False, "the user has no schema to create tables in", "GRANT USAGE ON SCHEMA public"
                )
                return
            version = _alembic_version(connection, str(schema))
            yield from _rights(connection, str(schema), made=version is not None)
        if version != _UNREAD:
            yield mlflow_schema(version, at.url.shown)


def online_on_postgres(at: Backend, *, least: int = LEAST_POSTGRES) -> Iterator[Outcome]:
    """Check the server, and that the online store can write and read a state."""
    from mainspring.features.adapters.postgres import SCHEMA

    with connected(at.url) as connect:
        if not (yield from _serves(connect, at.url, least)):
            return
        with connect() as connection:
            settings = at.project.settings
            schema = schema_of(settings.scope) if settings.tenant else SCHEMA
            if not _scalar(connection, "SELECT to_regclass(quote_ident(:name) || '.entity') IS NOT NULL", name=schema):
                yield from _rights(connection, schema, made=False)
                yield Outcome("schema", True, "no tables yet; the first command creates them")
                return
    yield from list(probed(at.project.online))[1:]


def vectors_on_postgres(at: Backend, *, least: int = LEAST_POSTGRES) -> Iterator[Outcome]:
    """Check the server, its pgvector, and the schema of the indexes."""
    with connected(at.url) as connect:
        if not (yield from _serves(connect, at.url, least)):
            return
        with connect() as connection:
            found = _scalar(connection, _PGVECTOR)
            fix = f"install pgvector {'.'.join(map(str, LEAST_PGVECTOR))} or newer on the server"
            new = found is not None and tuple(map(int, str(found).split(".")[:2])) >= LEAST_PGVECTOR
            yield Outcome("pgvector", new, str(found or "not installed"), "" if new else fix)
            schema = vectors_schema(at.project.settings)
            made = _scalar(
                connection, "SELECT to_regclass(quote_ident(:name) || '.vector_index') IS NOT NULL", name=schema
            )
            yield from _rights(connection, schema, made=bool(made))


def milvus(at: Backend) -> Iterator[Outcome]:
    """Check the server and its version, and that the user may list its collections."""
    from mainspring.vectors.adapters.milvus import MilvusVectorStore

    store = at.project.vectors
    assert isinstance(store, MilvusVectorStore)
    version = store.version()
    yield Outcome("reachable", True, "answers")
    yield Outcome("version", True, f"Milvus {version}")
    yield _encryption(at.url, at.url.scheme == "milvuss", "milvuss:// in place of milvus://")
    yield Outcome("rights", True, f"{len(store.names())} indexes are there")
    store.close()


def redis(at: Backend, *, least: tuple[int, int] = LEAST_REDIS) -> Iterator[Outcome]:
    """Check the server, that it evicts nothing, and that the online store can write and read a state."""
    from mainspring.features.adapters.redis import RedisOnlineStore

    store = at.project.stored_online
    assert isinstance(store, RedisOnlineStore)
    outcomes = probed(store)
    yield next(outcomes)
    info = store.info()
    if info is None:
        yield Outcome("version", True, "unknown: the user has no permission for INFO")
    else:
        name = "Valkey" if "valkey_version" in info else "Redis"
        version = str(info.get("valkey_version") or info.get("redis_version"))
        known = tuple(map(int, str(info.get("redis_version", "0.0")).split(".")[:2]))
        if known < least:
            wanted = ".".join(map(str, least))
            yield Outcome("version", False, f"{name} {version} is older than {wanted}", f"run {name} {wanted} or newer")
            return
        yield Outcome("version", True, f"{name} {version}")
        policy = str(info.get("maxmemory_policy", ""))
        if policy.startswith("allkeys") and info.get("maxmemory"):
            yield Outcome(
                "eviction",
                False,
                f"{policy}: features are evicted when memory is short",
                "set maxmemory-policy noeviction",
            )
    yield _encryption(at.url, at.url.scheme in ("rediss", "valkeys"), "rediss:// (or valkeys://)")
    yield from outcomes
    yield _budgets(at)


def _budgets(at: Backend) -> Outcome:
    """Check that budgets of language models can be kept beside the online states."""
    from mainspring.llm.adapters.redis_budgets import check

    try:
        check(at.url, at.project.settings.scope)
    except Unavailable as error:
        fix = (
            f"let the user run SET, HGETALL, HINCRBY, PEXPIRE and ZADD on mainspring:{{{at.project.settings.scope}}}:*"
        )
        return Outcome("budgets", False, f"of language models cannot be kept: {error.what}", fix)
    return Outcome("budgets", True, "of language models can be kept: one was reserved and charged")


def event_log(at: Backend) -> Iterator[Outcome]:
    """Check that a server of messages answers."""
    log = at.project.streams
    try:
        topics = log.topics()
    finally:
        log.close()  # a check keeps no connection open
    yield Outcome("reachable", True, "answers")
    yield Outcome("schema", True, f"{len(topics)} topics")


def bucket(at: Backend) -> Iterator[Outcome]:
    """Check that objects can be created once, read, listed and removed."""
    try:
        import obstore
        from obstore.exceptions import AlreadyExistsError
    except ModuleNotFoundError as error:
        raise MissingExtra(f"A bucket ({error.name})", "objects") from error
    from mainspring.core.object_store_url import Bucket, open_store, store_errors

    store, name = open_store(at.url), f".mainspring-probe-{new_id()}/probe"
    with store_errors(at.url.shown, at.part):
        obstore.list_with_delimiter(store)
    yield Outcome("reachable", True, "answers")
    with store_errors(at.url.shown, at.part):
        try:
            obstore.put(store, name, b"probe", mode="create", use_multipart=False)
            overwritten = False
            with suppress(AlreadyExistsError):
                obstore.put(store, name, b"another", mode="create", use_multipart=False)
                overwritten = True
            content = bytes(obstore.get(store, name).bytes())
            listed = [entry["path"] for page in obstore.list(store, name.partition("/")[0]) for entry in page]
        finally:
            with suppress(FileNotFoundError):
                obstore.delete(store, name)
    if overwritten:
        yield Outcome(
            "rights",
            False,
            "a conditional write overwrote an existing object",
            "use a store that supports conditional writes (If-None-Match), such as S3 and MinIO",
        )
        return
    well = content == b"probe" and listed == [name]
    yield Outcome("rights", well, "an object was created once, read, listed and removed" if well else "lost an object")
    yield _encryption(at.url, not Bucket.parse(at.url).plain, "https in `endpoint`")
    count = f"{len(at.project.lake.tables())} tables" if at.part == "lake" else f"{len(all_blobs(at.project))} bundles"
    yield Outcome("schema", True, count)


@contextmanager
def connected(url: Url) -> Iterator[Callable[[], sa.Connection]]:
    """Context with a function that opens connections to a Postgres server; all are closed at the end."""
    import sqlalchemy as sa

    from mainspring.core.catalog import sqlalchemy_url

    parsed = sqlalchemy_url(url.text)
    given = {} if "connect_timeout" in parsed.query else {"connect_timeout": "5"}
    try:
        engine = sa.create_engine(parsed, poolclass=sa.pool.NullPool, connect_args=given)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"Postgres ({error.name})", "postgres") from error
    yield engine.connect


def _serves(connect: Callable[[], sa.Connection], url: Url, least: int) -> Generator[Outcome, None, bool]:
    """Check the server up to the first problem, and return whether there is none."""
    for found in _server(connect, url, least):
        yield found
        if not found.ok:
            return False
    return True


def _server(connect: Callable[[], sa.Connection], url: Url, least: int) -> Iterator[Outcome]:
    import sqlalchemy as sa

    try:
        connection = connect()
    except sa.exc.DBAPIError as error:
        lines = str(error.orig).strip().splitlines() or ["no connection"]
        said = lines[-1] if "Multiple connection attempts" in lines[0] else lines[0]
        yield Outcome("reachable", False, said, next(fix for sign, fix in _TOLD if sign in str(error.orig)))
        return
    with connection:
        yield Outcome("reachable", True, "answers")
        number = int(str(_scalar(connection, "SHOW server_version_num")))
        version = str(_scalar(connection, "SHOW server_version"))
        if number < least * 10_000:
            fix = f"run Postgres {least} or newer, and move the database there"
            yield Outcome("version", False, f"Postgres {version} is older than {least}", fix)
            return
        yield Outcome("version", True, f"Postgres {version}")
        encoding = _scalar(connection, "SHOW server_encoding")
        if encoding != "UTF8":
            fix = "create a database that can store every name: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            yield Outcome("encoding", False, f"the database is encoded in {encoding}", fix)
            return
        if _scalar(connection, "SELECT pg_is_in_recovery()"):
            yield Outcome("rights", False, "the server is a replica: it is read only", "name the primary server")
            return
        if _scalar(connection, "SHOW transaction_read_only") == "on":
            fix = "make it writable: ALTER DATABASE ... (or ROLE ...) RESET default_transaction_read_only"
            yield Outcome("rights", False, "the database is read only", fix)
            return
        secure = _scalar(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        yield _encryption(url, bool(secure), "?sslmode=verify-full at the end of the address")


def _encryption(url: Url, secure: bool, how: str) -> Outcome:
    if secure:
        return Outcome("encryption", True, "TLS")
    here = Address(urlsplit(url.text).hostname or "localhost", 0).loopback
    return Outcome("encryption", True, "in clear", "" if here else f"unless the network is yours alone, use {how}")


def _rights(connection: sa.Connection, schema: str, *, made: bool) -> Iterator[Outcome]:
    """Check that tables can be created, filled and emptied in a schema, and roll it back; if the tables exist, check
    that each can be used.
    """
    import sqlalchemy as sa

    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    if made:
        lacking = _lacking(connection, schema)
        if lacking:
            fix = f"as the owner, IN SCHEMA {quoted}: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
            yield Outcome(
                "rights", False, f"the user lacks permission to {lacking}", f"{fix}, GRANT USAGE ON ALL SEQUENCES"
            )
            return
    probe = f"{quoted}.mainspring_probe_{new_id()}"
    there = _scalar(connection, "SELECT 1 FROM pg_namespace WHERE nspname = :name", name=schema)
    steps = [] if there else [f"CREATE SCHEMA {quoted}"]
    steps += [f"CREATE TABLE {probe} (number int)", f"INSERT INTO {probe} VALUES (1)", f"DELETE FROM {probe}"]
    try:
        for step in steps:
            connection.execute(sa.text(step))
    except sa.exc.DBAPIError as error:
        said = (str(error.orig).strip().splitlines() or ["refused"])[0]
        if made:  # all tables exist: only a migration would need more rights
            yield Outcome("rights", True, "all tables are accessible; migrations need another user", "")
            return
        fix = f"as its owner: GRANT CREATE ON {'SCHEMA ' + quoted if there else 'DATABASE ...'} TO the profile's user"
        yield Outcome("rights", False, said, fix)
        return
    finally:
        connection.rollback()
    yield Outcome("rights", True, "a table was created, filled, emptied and removed")


def _lacking(connection: sa.Connection, schema: str) -> str:
    """Return the missing rights on the first table with any; empty if none are missing."""
    import sqlalchemy as sa

    if not _scalar(connection, "SELECT has_schema_privilege(:name, 'USAGE')", name=schema):
        return f"use the schema {schema}"
    query = sa.text(
        "SELECT right_, c.relname FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_ "
        "WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :name) AND c.relkind = 'r' "
        "AND c.relname <> 'alembic_version' AND NOT has_table_privilege(c.oid, right_) "
        "UNION ALL SELECT 'count on', relname FROM pg_class WHERE relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = :name) "
        "AND CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(oid, 'USAGE') ELSE false END "
        "ORDER BY 2, 1 LIMIT 1"
    )
    row = connection.execute(query, {"name": schema}).first()
    return "" if row is None else f"{row[0]} {row[1]}"


def _alembic_version(connection: sa.Connection, schema: str) -> str | None:
    import sqlalchemy as sa

    there = _scalar(
        connection,
        "SELECT 1 FROM pg_class WHERE relname = 'alembic_version' "
        "AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :name)",
        name=schema,
    )
    if not there:
        return None
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    try:
        found = _scalar(connection, f"SELECT version_num FROM {quoted}.alembic_version")
    except sa.exc.DBAPIError:  # no right to read it, which the check of rights reports
        connection.rollback()
        return _UNREAD
    return None if found is None else str(found)


def _scalar(connection: sa.Connection, query: str, **values: Any) -> Any:
    import sqlalchemy as sa

    return connection.execute(sa.text(query), values).scalar()
