"""Snowflake, by its connector for Python: results as Arrow, rows as Parquet through a temporary stage.

The address is `snowflake://USER@ACCOUNT/DATABASE/SCHEMA?warehouse=W&role=R`. Temporary tables are made in that schema.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from snowflake.connector.errors import DatabaseError, Error, OperationalError, ProgrammingError

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.expr.dialects import SNOWFLAKE
from mainspring.core.ids import new_id
from mainspring.core.nearest import meant
from mainspring.core.object_store_url import Bucket
from mainspring.core.settings import Url, WarehouseSetting
from mainspring.data.arrow import INSTANT
from mainspring.data.warehouse.addresses import Place
from mainspring.data.warehouse.parquet import write_rows
from mainspring.data.warehouse.ports import Estimate, Ran, UnloadedFile
from mainspring.data.warehouse.types import WALL_CLOCK, reader, schema_read
from mainspring.security.secrets import read_private

T = TypeVar("T")
_FORM = "snowflake://USER@ACCOUNT/DATABASE/SCHEMA?warehouse=W&role=R"
_OPTIONS = ("warehouse", "role", "integration")
_TAG = "mainspring"
_REQUEST_S = 60
_FILE_BYTES = 256_000_000  # of an unloaded file
_LONGEST = 500  # characters of a message
_GONE = (250001, 250002, 390111, 390112, 390114)  # of a session that ended: the statement has not run
# Codes of types in a result's description.
_FIXED, _TZ, _LTZ = 0, 7, 6
_KINDS: Mapping[int, pa.DataType] = {
    1: pa.float64(), 2: pa.string(), 3: pa.date32(), _LTZ: INSTANT, _TZ: INSTANT, 8: WALL_CLOCK, 13: pa.bool_(),
}  # fmt: skip
_LOADED = {
    pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.int32(): "NUMBER(38, 0)", pa.int64(): "NUMBER(38, 0)",
    pa.float32(): "FLOAT", pa.float64(): "FLOAT", INSTANT: "TIMESTAMP_TZ",
}  # fmt: skip


class SnowflakeWarehouse:
    """Tables of a schema of Snowflake, and of others that the role may read.

    Args:
        setting: Its key is a private key in PEM, to be preferred; its password may be a programmatic access token.

    Raises:
        Invalid: The address is not one, or there is no key and no password.
    """

    dialect = "snowflake"

    def __init__(self, setting: WarehouseSetting) -> None:
        self._setting, self._shown = setting, setting.url.shown
        self._last: Ran | None = None
        self._place = Place.parse(setting.url, 2, _OPTIONS, _FORM)
        if not self._place.user:
            raise Invalid(f"{self._shown} names no user.", fix=f"write {_FORM}.")
        if setting.key_file is None and not setting.password and setting.password_file is None:
            raise Invalid(
                f"There is no key for {self._shown}.",
                fix="name a private key in PEM: key_file, or set MAINSPRING_WAREHOUSE_PASSWORD.",
            )

    def ping(self) -> str:
        return f"Snowflake {self._one('SELECT CURRENT_VERSION()')}"

    def columns(self, table: str) -> Mapping[str, pa.DataType]:
        try:
            found = self._described(f"SELECT * FROM {SNOWFLAKE.table(table)}")
        except NotFound as error:
            raise NotFound(
                f"There is no table {table!r} at {self._shown}.", fix=meant(table, self._tables())
            ) from error
        return {name: kind for name, kind, _ in found if kind is not None}

    @contextmanager
    def read(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        with self._run(statement) as cursor:
            self._last = Ran(cursor.sfqid)
            schema = self._schema(cursor.description)
            yield reader(self._batches(cursor), schema)

    def _batches(self, cursor: Any) -> Iterator[pa.RecordBatch]:
        with self._errors():
            for table in cursor.fetch_arrow_batches(force_microsecond_precision=True):
                yield from table.to_batches()

    @contextmanager
    def loaded(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[str]:
        name, stage = f"rows_{new_id()}", f"stage_{new_id()}"
        table, files = SNOWFLAKE.table(name), f'@"{stage}"'
        columns = [(SNOWFLAKE.column(each.name), each.type) for each in schema]
        with tempfile.TemporaryDirectory(prefix="mainspring-") as folder:
            write_rows(rows, schema, Path(folder) / "rows.parquet", instants=pa.int64())
            try:
                self._do(f'CREATE TEMPORARY STAGE "{stage}"')
                self._do(f"PUT 'file://{folder}/rows.parquet' {files} AUTO_COMPRESS = FALSE OVERWRITE = TRUE")
                declared = ", ".join(f"{column} {_LOADED[kind]}" for column, kind in columns)
                self._do(f"CREATE TEMPORARY TABLE {table} ({declared})")
                casts = ", ".join(_cast(f"$1:c{n}", kind) for n, (_, kind) in enumerate(columns))
                self._do(f"COPY INTO {table} FROM (SELECT {casts} FROM {files}) FILE_FORMAT = (TYPE = PARQUET)")
            finally:
                self._drop(f'STAGE IF EXISTS "{stage}"')
        try:
            yield name
        finally:
            self._drop(f"TABLE IF EXISTS {table}")

    def _drop(self, what: str) -> None:
        with suppress(MainspringError):  # the end of the session drops it too
            self._do(f"DROP {what}")

    def estimate(self, statement: str) -> Estimate | None:
        plan = json.loads(self._one(f"EXPLAIN USING JSON {statement}"))
        assigned = plan.get("GlobalStats", {}).get("bytesAssigned")
        return None if assigned is None else Estimate(int(assigned))

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        place, below = _outside(to), new_id()
        integration = self._place.options.get("integration", "")
        with_rights = f" STORAGE_INTEGRATION = {SNOWFLAKE.column(integration)}" if integration else ""
        columns = ", ".join(map(_unloadable, self._described(statement)))
        text = (
            f"COPY INTO {SNOWFLAKE.text(f'{place}/{below}/rows')} FROM (SELECT {columns} FROM ({statement})) "
            f"FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE DETAILED_OUTPUT = TRUE MAX_FILE_SIZE = {_FILE_BYTES}"
        )
        with self._run(text + with_rights) as cursor, self._errors():
            self._last = Ran(cursor.sfqid)
            names = [each.name.upper() for each in cursor.description]
            written = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        folder = f"{to.text.partition('?')[0].rstrip('/')}/{below}"
        return [
            UnloadedFile(f"{folder}/{each['FILE_NAME'].rpartition('/')[2]}", each["ROW_COUNT"], each["FILE_SIZE"])
            for each in written
            if each["ROW_COUNT"]
        ]

    def last(self) -> Ran | None:
        return self._last

    def close(self) -> None:
        if "_connection" in vars(self):
            with suppress(Error):
                self._connection.close()
            del self._connection

    @cached_property
    def _connection(self) -> Any:
        place, setting = self._place, self._setting
        database, schema = place.names
        endpoint = urlsplit(place.options.get("endpoint", ""))
        given: dict[str, Any] = {"account": place.server, "user": place.user, "database": database, "schema": schema}
        given |= {name: place.options[name] for name in ("warehouse", "role") if name in place.options}
        if endpoint.hostname:
            given |= {"host": endpoint.hostname, "port": endpoint.port or 443, "protocol": endpoint.scheme}
        given |= self._secret()
        with self._connecting():
            return snowflake.connector.connect(
                **given,
                login_timeout=max(1, setting.connect_timeout_us // 1_000_000),
                request_timeout=_REQUEST_S,
                platform_detection_timeout_seconds=0,  # asks no metadata service where it runs
                arrow_number_to_decimal=True,
                server_session_keep_alive=False,
                enable_server_session_keep_alive_auto_detection=False,
                session_parameters={
                    "TIMEZONE": "UTC",
                    "QUERY_TAG": _TAG,
                    "STATEMENT_TIMEOUT_IN_SECONDS": max(1, setting.timeout_us // 1_000_000),
                    "ABORT_DETACHED_QUERY": True,  # a killed process leaves no statement running
                    "CLIENT_TELEMETRY_ENABLED": False,
                },
            )

    def _secret(self) -> dict[str, Any]:
        setting = self._setting
        if setting.key_file is None:
            if setting.password_file is None:
                return {"password": setting.password}
            return {"password": read_private(setting.password_file, "password of the warehouse").decode().strip()}
        content = read_private(setting.key_file, "private key of the warehouse")
        try:
            key = serialization.load_pem_private_key(content, setting.key_password.encode() or None)
        except (ValueError, TypeError) as error:
            raise Invalid(
                f"{setting.key_file} is not a private key: {error}.",
                fix="write it in PEM; the password of an encrypted one is MAINSPRING_WAREHOUSE_KEY_PASSWORD.",
            ) from None
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"private_key": der, "authenticator": "SNOWFLAKE_JWT"}

    @contextmanager
    def _run(self, statement: str) -> Iterator[Any]:
        """Context with a cursor that has run a statement; an interrupt ends the session, and so the statement."""
        try:
            cursor = self._asked(lambda made: made.execute(statement))
        except KeyboardInterrupt:
            self.close()
            raise
        try:
            yield cursor
        finally:
            with suppress(Error):
                cursor.close()

    def _asked(self, ask: Callable[[Any], T]) -> T:
        """Return what a function makes of a cursor; a session that has ended since it was used is opened anew."""
        with self._errors():
            known = "_connection" in vars(self)
            try:
                return ask(self._connection.cursor())
            except Error as error:
                if not known or error.errno not in _GONE:
                    raise
            self.close()
            return ask(self._connection.cursor())

    def _do(self, statement: str) -> None:
        with self._run(statement):
            pass

    def _one(self, statement: str) -> Any:
        with self._run(statement) as cursor, self._errors():
            return cursor.fetchone()[0]

    def _described(self, statement: str) -> list[tuple[str, pa.DataType | None, int]]:
        """Return the columns of a statement that does not run: name, type, and code of the type."""
        found = self._asked(lambda cursor: cursor.describe(statement))
        return [(each.name, _kind(each), each.type_code) for each in found or ()]

    def _schema(self, description: Sequence[Any]) -> pa.Schema:
        kinds = [(str(each.name), _kind(each)) for each in description]
        for name, kind in kinds:
            if kind is None:
                raise Invalid(
                    f"Column {name!r} of the statement has a type that is not read.",
                    fix="leave it out, or cast it there: to text, a number, a timestamp.",
                )
        return schema_read(pa.schema([(name, kind) for name, kind in kinds if kind is not None]))

    def _tables(self) -> list[str]:
        text = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_SCHEMA = CURRENT_SCHEMA() FROM INFORMATION_SCHEMA.TABLES"
        with suppress(MainspringError), self._run(text) as cursor, self._errors():
            found = cursor.fetchall()
            return [f"{schema}.{name}" for schema, name, _ in found] + [name for _, name, here in found if here]
        return []

    @contextmanager
    def _connecting(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            if isinstance(error, OperationalError) or "HTTP request failed" in _said(error):
                raise Unavailable(
                    f"{self._shown} cannot be reached: {_said(error)}",
                    fix="correct the account, as ORGANISATION-ACCOUNT, or check the network.",
                ) from error
            raise Denied(
                f"{self._shown} refuses: {_said(error)}",
                fix="correct the user, the role, the key or the password of the warehouse.",
            ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            raise _translated(error, self._shown) from error


def _kind(column: Any) -> pa.DataType | None:
    if column.type_code == _FIXED:
        return pa.decimal128(column.precision, column.scale) if column.scale else pa.int64()
    return _KINDS.get(column.type_code)


def _cast(value: str, kind: pa.DataType) -> str:
    if kind == INSTANT:
        return f"TO_TIMESTAMP_TZ({value}::NUMBER(38, 0), 6)"
    return f"{value}::{_LOADED[kind]}"


def _unloadable(column: tuple[str, pa.DataType | None, int]) -> str:
    """Return a column for a file of Parquet, to which no time with a zone is unloaded."""
    name, kind, _ = column
    if kind is None:
        raise Invalid(f"Column {name!r} of the statement has a type that is not unloaded.", fix="cast it there.")
    quoted = SNOWFLAKE.column(name)
    return f"CONVERT_TIMEZONE('UTC', {quoted})::TIMESTAMP_NTZ(6) AS {quoted}" if kind == INSTANT else quoted


def _outside(to: Url) -> str:
    """Return an address in an object store as Snowflake writes it."""
    if to.scheme not in ("s3", "gs", "az"):
        raise Invalid(f"Snowflake does not write to {to.shown}.", fix="name s3://, gs:// or az://CONTAINER/PREFIX.")
    bucket = Bucket.parse(to)
    path = "/".join(filter(None, (bucket.name, bucket.prefix)))
    if to.scheme == "az":
        return f"azure://{bucket.options.get('account', '')}.blob.core.windows.net/{path}"
    return f"{'gcs' if to.scheme == 'gs' else 's3'}://{path}"


def _said(error: Error) -> str:
    return " ".join(str(error).split())[:_LONGEST]


def _translated(error: Error, shown: str) -> MainspringError:
    """Return the error for a number of Snowflake's."""
    said, number = _said(error), error.errno
    if number in (2003, 90105, 90106):  # and no database or schema of the session
        return NotFound(
            f"{shown} has no such table, or the role may not see it: {said}",
            fix="correct `tables` or the url in the profile, or grant the role USAGE and SELECT.",
        )
    if number in (3001, 3003):
        return Denied(f"{shown} refuses: {said}", authenticated=True, fix="grant it to the role, or name another role.")
    if number == 606:
        return Invalid(f"{shown} has no warehouse that runs statements: {said}", fix="add ?warehouse=NAME to the url.")
    if number in (604, 630):
        return Unavailable(
            f"A statement at {shown} was ended: {said}", fix="raise `timeout`, or use a larger warehouse."
        )
    if number in (90064, 90073):
        return Unavailable(f"The warehouse of {shown} does not run: {said}", fix="resume it, or raise its quota.")
    if isinstance(error, ProgrammingError):
        return Invalid(f"Snowflake rejects the statement at {shown}: {said}", fix="correct the statement.")
    if isinstance(error, DatabaseError) and not isinstance(error, OperationalError):
        return Unavailable(
            f"{shown} did not carry out a statement: {said}", fix="run it again, or look in its history."
        )
    return Unavailable(f"{shown} does not answer: {said}", fix="check the network, and run the command again.")
