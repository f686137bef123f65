"""Tries to go beyond a tenant's part of each server with its own credentials; a probe that is written is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from mainspring.core.errors import Denied, MainspringError, NotFound
from mainspring.core.ids import new_id
from mainspring.core.settings import Url
from mainspring.project import Project
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.data import server_log
from mainspring.project.backends.security import KEY_SERVICES
from mainspring.project.catalog import schema_of
from mainspring.project.place_checks import Outcome
from mainspring.project.server_checks import connected
from mainspring.project.tenancy import POSTGRES, objects_prefix, schema_name, topics_prefix

_SHOWN = 3
_OURS = "run the grants of `mainspring tenant plan` on it, and revoke what else this user has"
_UNTOLD = "may read objects of others, or may not: the store refuses absent ones without a reason"
_BEYOND = (  # everything but the server's own and what extensions bring
    "n.nspname <> ALL(CAST(:own AS text[])) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
)
_QUERIES: Mapping[str, str] = {
    "is": "SELECT unnest(array_remove(ARRAY[CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreatedb THEN "
    "'creator of databases' END, CASE WHEN rolcreaterole THEN 'creator of roles' END, CASE WHEN rolreplication THEN "
    "'replicator' END, CASE WHEN rolbypassrls THEN 'free of row security' END], NULL)) "
    "FROM pg_roles WHERE rolname = current_user",
    "is a member of": "SELECT rolname::text FROM pg_roles WHERE rolname <> current_user "
    "AND pg_has_role(current_user, oid, 'MEMBER') ORDER BY 1",
    "may create schemas in": "SELECT current_database()::text "
    "WHERE has_database_privilege(current_database(), 'CREATE')",
    "may create tables in": "SELECT n.nspname::text FROM pg_namespace n "
    f"WHERE {_BEYOND} AND has_schema_privilege(n.oid, 'CREATE') ORDER BY 1",
    "may enter": f"SELECT n.nspname::text FROM pg_namespace n WHERE {_BEYOND} AND n.nspname <> 'public' "
    "AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1",
    "may use": "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    f"WHERE {_BEYOND} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(n.oid, 'USAGE') "
    "AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') "
    "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1",
}


def beyond(project: Project) -> Iterator[Outcome]:
    """Yield for each server of a tenant's profile whether its credentials are kept to the tenant's part."""
    settings = project.settings
    for part in ("catalog", "tracking", "online", "lake", "blobs", "streams", "encryption"):
        url: Url = getattr(settings, part)
        check = _CHECKS.get(url.scheme)
        if check is None:
            continue
        at = f"{part} at {url.shown}"
        try:
            found = list(check(project, part, url))
        except MainspringError as error:
            yield Outcome(part, False, f"{at}: {error.what}", error.fix or "")
            continue
        open_ = [each for each in found if each != _UNTOLD]
        if open_:
            more = f", and {len(open_) - _SHOWN} more" if len(open_) > _SHOWN else ""
            yield Outcome(part, False, f"{at} is open: the user {'; '.join(open_[:_SHOWN])}{more}", _OURS)
        elif found:
            fix = "try it: read an object of another tenant with these credentials"
            yield Outcome(part, True, f"{at}: its user {_UNTOLD}", fix)
        else:
            yield Outcome(part, True, f"{at}: its user reaches nothing beyond the tenant's part")


def _postgres(project: Project, part: str, url: Url) -> Iterator[str]:
    import sqlalchemy as sa

    from mainspring.core.catalog import catalog_errors

    scope = project.settings.scope
    own = [schema_of(scope), schema_name("mlflow", scope), schema_name("optuna", scope)]
    with catalog_errors(part, "server of"), connected(url) as connect, connect() as connection:
        for what, query in _QUERIES.items():
            found = [str(row[0]) for row in connection.execute(sa.text(query), {"own": own} if ":own" in query else {})]
            if found:
                more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
                yield f"{what} {', '.join(found[:_SHOWN])}{more}"
            if found and what == "is":  # the rest follows
                return


def _redis(_project: Project, _part: str, url: Url) -> Iterator[str]:
    import redis

    from mainspring.core.errors import Unavailable

    key = f"mainspring:{{probe-{new_id()}}}:1:marks"  # of nobody
    tries = {
        "reads keys of others": ("HGET", key, "probe"),
        "deletes keys of others": ("HDEL", key, "probe"),
        "lists all keys": ("SCAN", "0", "COUNT", "1"),
        "publishes to channels": ("PUBLISH", key, "probe"),
        "reads the server's settings": ("CONFIG", "GET", "maxmemory"),
        "lists the users": ("ACL", "USERS"),
    }
    with redis.Redis.from_url(url.text.replace("valkey", "redis", 1), socket_timeout=5.0) as client:
        for what, command in tries.items():
            try:
                client.execute_command(*command)
            except redis.exceptions.NoPermissionError:
                continue
            except redis.RedisError as error:
                raise Unavailable(f"The server did not answer: {error}.", fix="check that it is up.") from error
            yield what


def _bucket(project: Project, part: str, url: Url) -> Iterator[str]:
    import obstore

    from mainspring.core.object_store_url import open_store, store_errors

    whole = urlsplit(url.text)
    path = whole.path.strip("/").removesuffix(objects_prefix(project.settings)).strip("/")
    store = open_store(Url(whole._replace(path=f"/{path}").geturl()))
    name = f"mainspring-probe-{new_id()}"

    def refusal(what: Callable[[], object]) -> str | None:
        try:
            with store_errors(url.shown, part):
                what()
        except Denied as error:
            return str(error.__cause__)
        except (NotFound, FileNotFoundError):
            return None
        return None

    if refusal(lambda: obstore.list_with_delimiter(store)) is None:
        yield "lists objects of others"
    written = refusal(lambda: obstore.put(store, name, b"")) is None
    read = refusal(lambda: obstore.get(store, name))
    # S3 denies an absent object to whoever may read it and not list its name, and names the action that lacks.
    if read is None or (not written and "s3:ListBucket" in read):
        yield "reads objects of others"
    elif not written and "s3:GetObject" not in read:
        yield _UNTOLD
    if written:
        refusal(lambda: obstore.delete(store, name))
        yield "writes objects beside its prefix"


def _event_log(project: Project, part: str, url: Url) -> Iterator[str]:
    whole = server_log(url)
    try:
        others = [name for name in whole.topics() if not name.startswith(topics_prefix(project.settings))]
    finally:
        whole.close()
    if others:
        yield f"sees {len(others)} topics of others in the {part}, such as {others[0]}"


def _vault(project: Project, _part: str, url: Url) -> Iterator[str]:
    whole = urlsplit(url.text)
    other = whole._replace(path=whole.path.removesuffix(f"..{project.settings.scope}")).geturl()
    service = build("key_services", KEY_SERVICES, Context(Url(other), project))
    try:
        service.version()
    except Denied:
        return
    except NotFound:  # which is said only to those who may read it
        pass
    yield "reads keys of others"


_CHECKS: Mapping[str, Callable[[Project, str, Url], Iterator[str]]] = {
    **dict.fromkeys(POSTGRES, _postgres),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), _redis),
    "s3": _bucket,
    **dict.fromkeys(("kafka", "nats", "tls", "kinesis"), _event_log),
    "vault": _vault,
}
