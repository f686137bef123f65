"""`tenant plan`: what an administrator grants on each shared server, so that a tenant reaches its own part alone."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.settings import Settings, Url
from mainspring.project.catalog import schema_of
from mainspring.project.tenancy import BUCKETS, POSTGRES, objects_prefix, schema_name, topics_prefix, vectors_schema

PLACEHOLDER = "PASSWORD"
PARTS = ("catalog", "tracking", "online", "lake", "blobs", "ledger", "streams", "vectors", "fleet", "encryption")
_MILVUS = ("milvus", "milvuss")
_REDIS = ("redis", "rediss", "valkey", "valkeys")
# All that the online store and budgets send, also inside scripts. No SCAN, KEYS or RANDOMKEY: those show every key.
_REDIS_COMMANDS = (
    "ping", "select", "hget", "hmget", "hset", "hdel", "hscan", "exists", "unlink", "rename", "sadd", "srem",
    "smembers", "eval", "evalsha", "script|load", "script|exists", "set", "del", "hgetall", "hincrby", "pexpire",
    "zadd", "zrangebyscore", "zremrangebyscore", "client|setinfo", "client|setname", "hello",
)  # fmt: skip
_OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
# All that anchoring sends; `audit verify` reads every version.
_LOCKED = ("s3:PutObject", "s3:PutObjectRetention", "s3:GetObjectVersion", "s3:GetObjectRetention")
# All that the store sends beside what is on a collection.
_MILVUS_RIGHTS = ("CreateCollection", "DropCollection", "DescribeCollection", "ShowCollections")
_STREAMS = ("CreateStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards", "PutRecords",
            "UpdateShardCount")  # fmt: skip


class ServerGrant(msgspec.Struct, frozen=True, kw_only=True):
    """Statements to run, or configuration to add, on one server.

    Attributes:
        server: Its kind.
        at: Its address without a password.
        parts: The settings of the profile that name it.
        language: That of `statements`: sql, redis, json, nats, python, shell, mosquitto, hcl, text.
        open: What the server does not keep apart even so; empty: nothing that is known.
    """

    server: str
    at: str
    parts: list[str]
    language: str
    statements: str
    open: str = ""


class TenantPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Grants of a tenant on the servers of a profile, and the settings that it then uses."""

    tenant: str
    project: str
    scope: str
    user: str
    grants: list[ServerGrant]
    environment: dict[str, str]


def plan(settings: Settings, *, passwords: bool = False) -> TenantPlan:
    """Return the grants for a tenant's profile. Nothing is contacted, created or stored.

    Args:
        settings: As `load_settings` returns them, with a tenant.
        passwords: Generate passwords, of which no copy is kept; else `PASSWORD` stands for them.

    Raises:
        Invalid: The profile has no tenant.
    """
    if not settings.tenant:
        raise Invalid("The profile has no tenant.", fix='name one: `mainspring tenant plan NAME`, or tenant = "NAME".')
    user, grants, environment = schema_of(settings.scope), list[ServerGrant](), {"MAINSPRING_TENANT": settings.tenant}
    servers: dict[tuple[str, str], list[str]] = {}
    for part in PARTS:
        at: Url | None = getattr(settings, part)
        if at is not None:
            servers.setdefault(_server(part, at), []).append(part)
    for (kind, _), parts in servers.items():
        password = secrets.token_urlsafe(24) if passwords else PLACEHOLDER
        first: Url = getattr(settings, parts[0])
        login = milvus_name(settings) if kind == "milvus" else user
        for statements, language, still in _GRANTS[kind](settings, parts, login, password):
            grants.append(
                ServerGrant(
                    server=kind, at=first.shown, parts=parts, language=language, statements=statements, open=still
                )
            )
        if kind in _LOGINS:
            for part in parts:
                at = getattr(settings, part)
                environment[f"MAINSPRING_{part.upper()}"] = _as_user(_given(settings, part, at), login, password)
    for at in settings.audit_anchors:
        if at.scheme == "s3":
            grants.append(
                ServerGrant(
                    server="s3", at=at.shown, parts=["audit_anchors"], language="json", statements=_locked(at.text)
                )
            )
    return TenantPlan(
        tenant=settings.tenant,
        project=settings.project,
        scope=settings.scope,
        user=user,
        grants=grants,
        environment=environment,
    )


def _server(part: str, at: Url) -> tuple[str, str]:
    """Return the kind of a server, and what is the same for all parts that one grant covers."""
    parts, scheme = urlsplit(at.text), at.scheme
    host = parts.netloc.rpartition("@")[2]
    if scheme in POSTGRES:
        return "postgres", f"{host}/{parts.path.strip('/')}"
    if scheme in _REDIS:
        return "redis", host
    if scheme in BUCKETS:
        return scheme, host
    if scheme in _MILVUS:
        return "milvus", host
    if scheme in ("nats", "tls"):
        return "nats", host
    if scheme in ("mqtt", "mqtts"):
        return "mqtt", host
    if scheme in ("kafka", "kinesis", "vault", "awskms"):
        return scheme, host
    if scheme in ("pkcs11", "keyring"):
        return "keys", scheme
    return ("files", "") if scheme in ("file", "sqlite", "lmdb", "memory") else ("other", f"{part} {scheme}")


def _given(settings: Settings, part: str, at: Url) -> str:
    """Return an address as the profile has it: the tenant's own part of it follows from the setting `tenant`."""
    parts = urlsplit(at.text)
    if part == "tracking" and at.scheme in POSTGRES:
        kept = [each for each in parts.query.split("&") if each and not each.startswith("options=")]
        return parts._replace(query="&".join(kept)).geturl()
    if at.scheme in _MILVUS:
        return parts._replace(path=f"/{milvus_name(settings)}").geturl()
    return at.text


def milvus_name(settings: Settings) -> str:
    """Return the name of a tenant's user, role and database on Milvus, where rights end at a database and not at a
    beginning of names: letters, digits and `_`, and no more than 32 of them."""
    plain = re.sub("[^a-z0-9]", "_", settings.scope.lower())
    return f"{plain[:19]}_{sha256(settings.scope.encode()).hexdigest()[:12]}"


def _as_user(address: str, user: str, password: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


_Texts = Iterator[tuple[str, str, str]]  # statements, their language, what stays open


def _postgres(settings: Settings, parts: Sequence[str], user: str, password: str) -> _Texts:
    database = unquote(urlsplit(getattr(settings, parts[0]).text).path.strip("/")) or "postgres"
    schemas = dict.fromkeys(
        schema
        for part in parts
        for schema in (
            (schema_name("mlflow", settings.scope), schema_name("optuna", settings.scope))
            if part == "tracking"
            else (vectors_schema(settings) if part == "vectors" else schema_of(settings.scope),)
        )
    )
    role, base = _identifier(user), _identifier(database)
    lines = [
        f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION NOINHERIT "
        f"PASSWORD '{password}';",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        *(["CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;"] if "vectors" in parts else []),
        f"GRANT CONNECT ON DATABASE {base} TO {role};",
        *(f"CREATE SCHEMA {_identifier(schema)} AUTHORIZATION {role};" for schema in schemas),
        f"ALTER ROLE {role} IN DATABASE {base} SET search_path TO {_identifier(next(iter(schemas)))};",
    ]
    still = (
        "Roles of one database see the names of its schemas and tables, and can hold each other's advisory locks: "
        "tenants that may harm each other need a database each."
    )
    yield "\n".join(lines), "sql", still


def _redis(settings: Settings, _parts: Sequence[str], user: str, password: str) -> _Texts:
    commands = " ".join(f"+{command}" for command in _REDIS_COMMANDS)
    keys = f"~mainspring:{{{settings.scope}}}:*"
    yield (
        f"ACL SETUSER {user} reset on >{password} {keys} resetchannels -@all {commands}",
        "redis",
        "Tenants share the server's memory and its time: a script of one makes the others wait.",
    )


def _s3(settings: Settings, parts: Sequence[str], _user: str, _password: str) -> _Texts:
    addresses = [urlsplit(getattr(settings, part).text) for part in parts]
    bucket = addresses[0].netloc
    prefixes = sorted({each.path.strip("/") for each in addresses})
    objects = [f"arn:aws:s3:::{bucket}/{prefix}/*" for prefix in prefixes]
    listed = {"StringLike": {"s3:prefix": [f"{prefix}/*" for prefix in prefixes]}}
    yield (
        _policy(
            {"Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"], "Condition": listed},
            {"Action": list(_OBJECTS), "Resource": objects},
        ),
        "json",
        "",
    )


def _locked(anchors: str) -> str:
    """Return the policy for a place of anchors: nothing there is deleted."""
    at = urlsplit(anchors)
    bucket, prefix = f"arn:aws:s3:::{at.netloc}", at.path.strip("/")
    listed = {"StringLike": {"s3:prefix": [f"{prefix}/*"]}}
    return _policy(
        {"Action": ["s3:ListBucketVersions"], "Resource": [bucket], "Condition": listed},
        {"Action": ["s3:GetBucketObjectLockConfiguration"], "Resource": [bucket]},
        {"Action": list(_LOCKED), "Resource": [f"{bucket}/{prefix}/*"]},
    )


def _other_bucket(settings: Settings, parts: Sequence[str], _user: str, _password: str) -> _Texts:
    at = urlsplit(getattr(settings, parts[0]).text)
    if at.scheme == "gs":
        start = f"projects/_/buckets/{at.netloc}/objects/{at.path.strip('/')}/"
        condition = f'resource.name.startsWith("{start}")'
        yield f"roles/storage.objectUser if {condition}", "text", "Listing a bucket shows the names of all its objects."
    else:
        yield (
            f"a role for the container {at.netloc} alone, which is the tenant's own",
            "text",
            f"Rights below a container are not planned here: {objects_prefix(settings)} is a name, not a border.",
        )


def _milvus(settings: Settings, parts: Sequence[str], name: str, password: str) -> _Texts:
    at: Url = getattr(settings, parts[0])
    host = urlsplit(at.text).netloc.rpartition("@")[2]
    scheme = "https" if at.scheme == "milvuss" else "http"
    lines = [
        "from pymilvus import MilvusClient",
        "",
        f'client = MilvusClient("{scheme}://{host}", "root", "{PLACEHOLDER}_OF_ROOT")',
        f'client.create_database("{name}")',
        f'client.create_user("{name}", "{password}")',
        f'client.create_role("{name}")',
        f'client.grant_privilege("{name}", "Collection", "*", "*", db_name="{name}")',
        *(f'client.grant_privilege("{name}", "Global", "{right}", "*", db_name="{name}")' for right in _MILVUS_RIGHTS),
        f'client.grant_role("{name}", "{name}")',
    ]
    still = "Tenants share the server's memory and its time, and see the names of each other's indexes."
    yield "\n".join(lines), "python", still


def _nats(settings: Settings, _parts: Sequence[str], user: str, password: str) -> _Texts:
    user = f'{{ user: "{user}", password: "{password}" }}'
    text = f'accounts {{\n  "{settings.scope}": {{\n    jetstream: enabled\n    users: [ {user} ]\n  }}\n}}'
    yield text, "nats", ""


def _kafka(settings: Settings, parts: Sequence[str], user: str, password: str) -> _Texts:
    hosts = urlsplit(getattr(settings, parts[0]).text).netloc.rpartition("@")[2]
    at, prefix = f"--bootstrap-server {hosts}", topics_prefix(settings)
    add = f"--add --allow-principal User:{user} --resource-pattern-type prefixed"
    lines = [
        f"kafka-configs.sh {at} --alter --entity-type users --entity-name {user} "
        f"--add-config 'SCRAM-SHA-512=[password={password}]'",
        f"kafka-acls.sh {at} {add} --topic {prefix} --operation Create --operation Read --operation Write "
        "--operation Describe --operation Alter",
        f"kafka-acls.sh {at} {add} --group {prefix} --operation Read --operation Describe",
    ]
    yield "\n".join(lines), "shell", ""


def _kinesis(settings: Settings, parts: Sequence[str], _user: str, _password: str) -> _Texts:
    region = urlsplit(getattr(settings, parts[0]).text).netloc
    own = [f"arn:aws:kinesis:{region}:*:stream/{topics_prefix(settings)}*"]
    text = _policy(
        {"Action": ["kinesis:ListStreams"], "Resource": ["*"]},
        {"Action": [f"kinesis:{action}" for action in _STREAMS], "Resource": own},
    )
    yield text, "json", "The names of all streams of the region can be listed."


def _mqtt(settings: Settings, _parts: Sequence[str], user: str, _password: str) -> _Texts:
    topic = f"mainspring/{settings.scope}"
    control = f"user {user}\ntopic readwrite {topic}/#"
    device = f"user DEVICE\ntopic write {topic}/DEVICE/reported\ntopic read {topic}/DEVICE/desired"
    yield f"{control}\n\n{device}", "mosquitto", "Users of a broker are one list: a device's name is one tenant's only."


def _vault(settings: Settings, _parts: Sequence[str], _user: str, _password: str) -> _Texts:
    mount, _, key = urlsplit(settings.encryption.text).path.strip("/").rpartition("/")
    rights = {f"encrypt/{key}": "update", f"decrypt/{key}": "update", f"keys/{key}": "read"}
    lines = [f'path "{mount}/{path}" {{ capabilities = ["{right}"] }}' for path, right in rights.items()]
    yield "\n".join(lines), "hcl", ""


def _awskms(settings: Settings, _parts: Sequence[str], _user: str, _password: str) -> _Texts:
    bound = {"StringLike": {"kms:EncryptionContext:mainspring": f"mainspring/{settings.scope}/*"}}
    text = _policy(
        {"Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": ["KEY_ARN"], "Condition": bound},
        {"Action": ["kms:DescribeKey"], "Resource": ["KEY_ARN"]},
    )
    yield text, "json", ""


def _files(settings: Settings, parts: Sequence[str], _user: str, _password: str) -> _Texts:
    if all(getattr(settings, part).scheme == "memory" for part in parts):
        return
    yield (
        f"install -d -m 700 -o OS_USER {settings.state}",
        "shell",
        "Files are kept apart by users of the operating system alone: run each tenant's processes as one of its own.",
    )


def _keys(settings: Settings, _parts: Sequence[str], _user: str, _password: str) -> _Texts:
    token = settings.encryption.scheme == "pkcs11"
    yield "a token of its own, with a PIN of its own" if token else "a user of the operating system", "text", ""


def _unknown(_settings: Settings, parts: Sequence[str], _user: str, _password: str) -> _Texts:
    yield "", "text", f"The adapter of {', '.join(parts)} is not part of Mainspring: ask its author."


_LOGINS = ("postgres", "redis", "nats", "kafka", "mqtt", "milvus")
_GRANTS: Mapping[str, Callable[[Settings, Sequence[str], str, str], _Texts]] = {
    "postgres": _postgres,
    "redis": _redis,
    "s3": _s3,
    "gs": _other_bucket,
    "az": _other_bucket,
    "nats": _nats,
    "milvus": _milvus,
    "kafka": _kafka,
    "kinesis": _kinesis,
    "mqtt": _mqtt,
    "vault": _vault,
    "awskms": _awskms,
    "files": _files,
    "keys": _keys,
    "other": _unknown,
}


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _policy(*statements: Mapping[str, Any]) -> str:
    allowed = [{"Effect": "Allow", **each} for each in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": allowed}, indent=2)
