"""BigQuery, by Google's client: results as Arrow, rows as Parquet into a table that expires.

The address is `bigquery://PROJECT/DATASET?location=EU`. Temporary tables are made in that data set.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FuturesTimeout
from contextlib import contextmanager, suppress
from datetime import UTC
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google.auth
import grpc
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.expr.dialects import BIGQUERY
from mainspring.core.ids import new_id
from mainspring.core.nearest import meant
from mainspring.core.object_store_url import open_store, store_errors
from mainspring.core.settings import Url, WarehouseSetting
from mainspring.core.time import DAY, Clock, to_datetime
from mainspring.data.arrow import INSTANT
from mainspring.data.warehouse.addresses import Place
from mainspring.data.warehouse.parquet import write_rows
from mainspring.data.warehouse.ports import Estimate, Ran, UnloadedFile
from mainspring.data.warehouse.types import WALL_CLOCK, reader, schema_read
from mainspring.security.secrets import read_private

_FORM = "bigquery://PROJECT/DATASET?location=EU"
_SCOPES = ("https://www.googleapis.com/auth/bigquery", "https://www.googleapis.com/auth/devstorage.read_write")
_LABELS = {"application": "mainspring"}
_KEPT_US = DAY  # a table whose process was killed
_STREAMS = 4  # of one result that are read at once
_ASKED_S = 20.0  # one request, with its repetitions, of a service that answered before
_LONGEST = 500  # characters of a message
_SPENT = ("quotaExceeded", "rateLimitExceeded", "bytesBilledLimitExceeded", "responseTooLarge")
_KINDS: Mapping[str, pa.DataType] = {
    "STRING": pa.string(), "BOOLEAN": pa.bool_(), "BOOL": pa.bool_(), "INTEGER": pa.int64(), "INT64": pa.int64(),
    "FLOAT": pa.float64(), "FLOAT64": pa.float64(), "TIMESTAMP": INSTANT, "DATETIME": WALL_CLOCK, "DATE": pa.date32(),
    "NUMERIC": pa.decimal128(38, 9), "BIGNUMERIC": pa.decimal256(76, 38),
}  # fmt: skip
_LOADED = {
    pa.string(): "STRING", pa.bool_(): "BOOLEAN", pa.int32(): "INTEGER", pa.int64(): "INTEGER", pa.float32(): "FLOAT",
    pa.float64(): "FLOAT", INSTANT: "TIMESTAMP",
}  # fmt: skip


class BigqueryWarehouse:
    """Tables of a data set of BigQuery, and of others that the account may read.

    Args:
        setting: Its key file is of a service account; without one the credentials are those of the environment
            (application default credentials).
        clock: Of the machine: when a table of loaded rows expires.

    Raises:
        Invalid: The address is not one.
    """

    dialect = "bigquery"

    def __init__(self, setting: WarehouseSetting, clock: Clock) -> None:
        self._setting, self._shown, self._clock = setting, setting.url.shown, clock
        self._last: Ran | None = None
        self._place = Place.parse(setting.url, 1, ("location", "storage"), _FORM)
        self._dataset = bigquery.DatasetReference(self._place.server, self._place.names[0])
        self._transport = _Transport(setting.connect_timeout_us / 1_000_000)

    def ping(self) -> str:
        with self._ran("SELECT 1 AS n"):
            return "BigQuery"

    def columns(self, table: str) -> Mapping[str, pa.DataType]:
        at = self._table(table)
        with self._errors():
            try:
                found = self._client.get_table(at, retry=self._retry)
            except api.NotFound as error:
                raise NotFound(
                    f"There is no table {table!r} at {self._shown}.",
                    fix=meant(table, self._tables(table, at.dataset_id, at.project)),
                ) from error
        read = {field.name: _kind(field) for field in found.schema}
        return {name: kind for name, kind in read.items() if kind is not None}

    @contextmanager
    def read(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        with self._ran(statement) as (job, rows):
            self._last = Ran(job.job_id, job.total_bytes_processed)
            schema, batches = _schema(rows.schema), self._batches(rows)
            try:
                yield reader(batches, schema)
            finally:
                batches.close()  # with the streams that it reads

    def _batches(self, rows: Any) -> Generator[pa.RecordBatch]:
        with self._errors():
            yield from rows.to_arrow_iterable(bqstorage_client=self._storage, max_stream_count=_STREAMS)

    @contextmanager
    def loaded(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[str]:
        name = f"mainspring_rows_{new_id()}"
        names = [each.name.replace(".", "__") for each in schema]  # as the dialect writes them
        with tempfile.TemporaryDirectory(prefix="mainspring-") as folder:
            file = Path(folder) / "rows.parquet"
            written = write_rows(rows, schema, file, names=names)
            fields = [bigquery.SchemaField(each, _LOADED[of.type]) for each, of in zip(names, schema, strict=True)]
            table = bigquery.Table(self._dataset.table(name), fields)
            table.expires, table.labels = to_datetime(self._clock.now() + _KEPT_US), _LABELS
            with self._errors():
                self._client.create_table(table, retry=self._retry)
            try:
                if written:
                    self._load(file, table)
            except BaseException:
                self._drop(table)
                raise
        try:
            yield name
        finally:
            self._drop(table)

    def _drop(self, table: Any) -> None:
        with suppress(MainspringError), self._errors():  # else it expires
            self._client.delete_table(table, not_found_ok=True, retry=self._retry)

    def _load(self, file: Path, table: Any) -> None:
        config = bigquery.LoadJobConfig(
            source_format="PARQUET", write_disposition="WRITE_APPEND", create_disposition="CREATE_NEVER", labels=_LABELS
        )
        with self._errors(), file.open("rb") as content:
            self._client.load_table_from_file(content, table.reference, job_config=config).result(
                timeout=self._timeout_s, retry=self._retry
            )

    def estimate(self, statement: str) -> Estimate | None:
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        with self._errors():
            job = self._client.query(statement, job_config=config, retry=self._retry, job_retry=None)
            return Estimate(int(job.total_bytes_processed))

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        if to.scheme != "gs":
            raise Invalid(
                f"BigQuery does not write to {to.shown}.", fix="name a bucket of its region: gs://BUCKET/PREFIX."
            )
        folder = f"{to.text.partition('?')[0].rstrip('/')}/{new_id()}"
        uri = BIGQUERY.text(f"{folder}/rows-*.parquet")
        options = f"uri = {uri}, format = 'PARQUET', compression = 'SNAPPY'"
        with self._ran(f"EXPORT DATA OPTIONS ({options}) AS {statement}") as (job, _):
            self._last = Ran(job.job_id, job.total_bytes_processed)
        store = open_store(to, folder.rpartition("/")[2], self._token)
        with store_errors(to.shown, "the address"):
            written = sorted((entry["path"], entry["size"]) for page in obstore.list(store) for entry in page)
            files = [UnloadedFile(f"{folder}/{name}", _rows_of(store, name, size), size) for name, size in written]
            for (name, _), file in zip(written, files, strict=True):
                if not file.rows:
                    obstore.delete(store, name)
        return [file for file in files if file.rows]

    def last(self) -> Ran | None:
        return self._last

    def close(self) -> None:
        if "_client" in vars(self):
            self._client.close()
            del self._client
        if (storage := vars(self).pop("_storage", None)) is not None:
            storage.transport.close()

    @property
    def _timeout_s(self) -> float:
        return self._setting.timeout_us / 1_000_000

    @property
    def _retry(self) -> Any:
        return DEFAULT_RETRY.with_timeout(_ASKED_S if self._transport.answered else self._transport.connect_s)

    @cached_property
    def _credentials(self) -> Any:
        file = self._setting.key_file
        if file is None:
            with self._errors():
                return google.auth.default(scopes=_SCOPES, quota_project_id=None)[0]
        content = read_private(file, "key of the warehouse")
        try:
            return service_account.Credentials.from_service_account_info(json.loads(content), scopes=_SCOPES)
        except (ValueError, auth.GoogleAuthError) as error:
            raise Invalid(
                f"{file} is not the key of a service account: {type(error).__name__}.",
                fix="write the JSON that Google gave; for other credentials set GOOGLE_APPLICATION_CREDENTIALS.",
            ) from None

    def _asking_tokens(self) -> Any:
        return Request(_mounted(requests.Session(), _Transport(self._transport.connect_s)))

    def _token(self) -> Mapping[str, Any]:
        """Return a token for the bucket, with which it is given the rights of the warehouse's credentials."""
        found = self._credentials
        with self._errors():
            found.refresh(self._asking_tokens())
        return {"token": found.token, "expires_at": found.expiry.replace(tzinfo=UTC)}

    @cached_property
    def _client(self) -> Any:
        endpoint = self._place.options.get("endpoint")
        connection = AuthorizedSession(self._credentials, auth_request=self._asking_tokens())
        return bigquery.Client(
            project=self._place.server,
            credentials=self._credentials,
            _http=_mounted(connection, self._transport),
            location=self._place.options.get("location"),
            client_options={"api_endpoint": endpoint} if endpoint else None,
            default_query_job_config=bigquery.QueryJobConfig(
                default_dataset=self._dataset, labels=_LABELS, job_timeout_ms=self._setting.timeout_us // 1000
            ),
        )

    @cached_property
    def _storage(self) -> Any:
        """The client by which large results come as Arrow; `None` where only REST has another address."""
        options, at = self._place.options, urlsplit(self._place.options.get("storage", ""))
        if "endpoint" in options and not at.netloc:
            return None
        from google.cloud.bigquery_storage import BigQueryReadClient
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

        if at.scheme == "http":
            channel = grpc.insecure_channel(at.netloc)
            made: Any = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
        else:
            place = {"api_endpoint": at.netloc} if at.netloc else None
            made = BigQueryReadClient(credentials=self._credentials, client_options=place)
        soon = {"retry": Retry(timeout=self._transport.connect_s), "timeout": _ASKED_S}  # else it waits ten minutes
        made.create_read_session = partial(made.create_read_session, **soon)
        return made

    @contextmanager
    def _ran(self, statement: str) -> Iterator[tuple[Any, Any]]:
        """Context with the job of a statement that has run, and with its rows; an interrupt cancels it."""
        with self._errors():
            job = self._client.query(statement, retry=self._retry, job_retry=None)
        try:
            with self._errors():
                rows = job.result(timeout=self._timeout_s, retry=self._retry)
            yield job, rows
        except BaseException:
            if job.state != "DONE":
                with suppress(MainspringError), self._errors():
                    job.cancel(retry=self._retry)
            raise

    def _table(self, name: str) -> Any:
        BIGQUERY.table(name)
        *place, table = name.split(".")
        dataset = place[-1] if place else self._dataset.dataset_id
        project = ".".join(place[:-1]) or self._dataset.project
        return bigquery.DatasetReference(project, dataset).table(table)

    def _tables(self, like: str, dataset: str, project: str) -> list[str]:
        prefix = like.rpartition(".")[0]
        with suppress(MainspringError), self._errors():
            listed = self._client.list_tables(bigquery.DatasetReference(project, dataset), retry=self._retry)
            return [f"{prefix}.{each.table_id}" if prefix else each.table_id for each in listed]
        return []

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException, FuturesTimeout) as error:
            raise _translated(error, self._shown) from error


class _Transport(HTTPAdapter):
    """Connections over HTTP that are made within a time (s), or not at all. `answered`: whether there was an answer."""

    def __init__(self, connect_s: float) -> None:
        super().__init__()
        self.connect_s = connect_s
        self.answered = False

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *given: Any, **more: Any) -> Any:
        read_s = timeout[1] if isinstance(timeout, tuple) else timeout
        found = super().send(request, stream, (self.connect_s, read_s), *given, **more)
        self.answered = True
        return found


def _mounted(session: requests.Session, transport: _Transport) -> requests.Session:
    for scheme in ("https://", "http://"):
        session.mount(scheme, transport)
    return session


def _rows_of(store: Any, name: str, size: int) -> int:
    """Return the rows of a Parquet file, as its footer has them."""
    length = int.from_bytes(bytes(obstore.get_range(store, name, start=size - 8, length=4)), "little")
    footer = bytes(obstore.get_range(store, name, start=size - 8 - length, length=length + 8))
    return int(pq.read_metadata(pa.BufferReader(b"PAR1" + footer)).num_rows)


def _kind(field: Any) -> pa.DataType | None:
    return None if field.mode == "REPEATED" else _KINDS.get(field.field_type)


def _schema(fields: Sequence[Any]) -> pa.Schema:
    kinds = [(str(each.name), _kind(each)) for each in fields]
    for (name, kind), field in zip(kinds, fields, strict=True):
        if kind is None:
            raise Invalid(
                f"Column {name!r} of the statement is of type {field.field_type}, which is not read.",
                fix="leave it out, or cast it there: to text, a number, a timestamp.",
            )
    return schema_read(pa.schema([(name, kind) for name, kind in kinds if kind is not None]))


def _translated(error: Exception, shown: str) -> MainspringError:
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        return _translated(error.cause, shown)
    said = " ".join(str(error).split())[:_LONGEST]
    # Of gRPC they are the call, which has no reason.
    reasons = [each.get("reason") for each in getattr(error, "errors", ()) if isinstance(each, Mapping)]
    if any(each in _SPENT for each in reasons):
        return Unavailable(f"{shown} has spent a quota: {said}", fix="wait, or raise it in the project's quotas.")
    if "stopped" in reasons:
        return _TOLD[FuturesTimeout](shown, said)
    for kind, told in _TOLD.items():
        if isinstance(error, kind):
            return told(shown, said)
    return Unavailable(f"{shown} does not answer: {said}", fix="check the network, and run the command again.")


_TOLD: Mapping[type[Exception], Callable[[str, str], MainspringError]] = {
    api.NotFound: lambda shown, said: NotFound(
        f"{shown} has no such data set or table: {said}",
        fix="correct `tables`, or the project, the data set and ?location= of the url in the profile.",
    ),
    api.Forbidden: lambda shown, said: Denied(
        f"{shown} refuses: {said}",
        authenticated=True,
        fix="grant roles/bigquery.jobUser, readSessionUser and dataViewer, and dataEditor where tables are loaded.",
    ),
    api.Unauthorized: lambda shown, said: Denied(
        f"{shown} does not know the credentials: {said}", fix="name another key_file, or log in again."
    ),
    api.BadRequest: lambda shown, said: Invalid(
        f"BigQuery rejects the statement at {shown}: {said}", fix="correct the statement."
    ),
    auth.DefaultCredentialsError: lambda shown, said: Denied(
        f"There are no credentials for {shown}: {said}",
        fix="name the key of a service account: key_file, or run `gcloud auth application-default login`.",
    ),
    auth.RefreshError: lambda shown, said: Denied(
        f"The credentials for {shown} are refused: {said}", fix="name another key_file, or log in again."
    ),
    FuturesTimeout: lambda shown, said: Unavailable(
        f"A statement at {shown} took too long. {said}".rstrip(), fix="raise `timeout`, or read less."
    ),
}
