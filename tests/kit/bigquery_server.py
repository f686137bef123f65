"""A server that speaks the part of BigQuery's interfaces that its client for Python uses, REST and gRPC, and of Cloud
Storage's.

Statements run in DuckDB, as sqlglot translates them. Callers need a token, which the key of one service account gets.
Tables `secrets`, `spent` and `busy` are refused, for want of rights and of quota, and `slow` takes too long. Statements
run beside the request that begins them: first they are answered as running. Objects lie in memory.
"""

from __future__ import annotations

import base64
import io
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.cloud.bigquery_storage import types

PROJECT, DATASET, EMAIL = "acme-shop", "raw", "reader@acme-shop.iam.example.org"
BYTES_A_VALUE = 8  # that a statement reads
PAGE = 1000  # rows of an answer
_EXPORT = re.compile(r"EXPORT DATA OPTIONS \(uri = '(?P<uri>[^']+)', .*?\) AS (?P<of>.*)", re.DOTALL)
_DUCK = {"STRING": "VARCHAR", "BOOLEAN": "BOOLEAN", "INTEGER": "BIGINT", "FLOAT": "DOUBLE", "TIMESTAMP": "TIMESTAMPTZ"}
_REFUSED = {  # table -> reason and message
    "secrets": (
        "accessDenied",
        "Access Denied: Table acme-shop:raw.secrets: User does not have permission to query it.",
    ),
    "spent": ("quotaExceeded", "Quota exceeded: Your project exceeded quota for free query bytes scanned."),
    "busy": ("rateLimitExceeded", "Exceeded rate limits: too many concurrent queries for this project_and_region."),
    "slow": ("stopped", "Job execution was cancelled: Job timed out after 3600s"),
}
_BEFORE = ("quotaExceeded", "rateLimitExceeded")  # a job is not begun
_CODES = {
    "accessDenied": 403, "quotaExceeded": 403, "rateLimitExceeded": 403, "stopped": 499, "notFound": 404,
    "invalidQuery": 400,
}  # fmt: skip
_MACRO = "CREATE MACRO timestamp_micros(us) AS make_timestamptz(us)"


class Refused(Exception):
    """An error as BigQuery answers it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    @property
    def content(self) -> dict[str, Any]:
        if self.reason == "invalid_grant":  # of OAuth
            return {"error": self.reason, "error_description": self.message}
        each = {"reason": self.reason, "message": self.message, "domain": "global"}
        return {"error": {"code": self.code, "message": self.message, "errors": [each]}}


class Bigquery:
    """The data set of one project, and the jobs on it."""

    def __init__(self) -> None:
        self.url = self.storage_url = ""
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.tokens: set[str] = set()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.unseen: set[str] = set()  # jobs whose end nobody has seen
        self.results: dict[str, pa.Table] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}  # BUCKET/NAME -> content
        self.expires: dict[str, str] = {}  # table -> milliseconds since 1970, as text
        self.sealed = False  # whether results may not be read over gRPC
        self.sessions = 0  # in which results were read over gRPC
        self.lock = threading.Lock()
        self.con = duckdb.connect()
        self.con.execute(f"SET timezone = 'UTC'; ATTACH ':memory:' AS \"{PROJECT}\"")
        self.con.execute(f'CREATE SCHEMA "{PROJECT}".{DATASET}; USE "{PROJECT}".{DATASET}; {_MACRO}')

    def key_file(self, path: Path) -> Path:
        """Write the key of the service account."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        content = {
            "type": "service_account", "project_id": PROJECT, "private_key_id": "1", "private_key": private.decode(),
            "client_email": EMAIL, "client_id": "1", "token_uri": f"{self.url}/token",
        }  # fmt: skip
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))
        return path

    def token(self, form: Mapping[str, list[str]]) -> dict[str, Any]:
        """Return a token for an assertion that the account's key signed."""
        head, claims, signature = form["assertion"][0].split(".")
        try:
            self.key.public_key().verify(
                _decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except Exception:
            raise Refused(400, "invalid_grant", "Invalid JWT Signature.") from None
        if json.loads(_decoded(claims))["iss"] != EMAIL:
            raise Refused(400, "invalid_grant", "Invalid grant: account not found")
        token = secrets.token_urlsafe()
        self.tokens.add(token)
        return {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def insert(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a job; one that fails is answered as a job, unless it is a dry run or there is no quota for it."""
        found, dry = job["configuration"], job["configuration"].get("dryRun", False)
        reference = {"projectId": PROJECT, "jobId": job["jobReference"]["jobId"], "location": "EU"}
        made: dict[str, Any] = {
            "kind": "bigquery#job", "jobReference": reference, "configuration": found, "status": {"state": "DONE"},
            "statistics": {"creationTime": "0", "startTime": "0", "endTime": "0"},
        }  # fmt: skip
        try:
            read = self._query(reference["jobId"], found["query"]["query"], dry)
            made["statistics"] |= {"totalBytesProcessed": str(read)}
            made["statistics"]["query"] = {"totalBytesProcessed": str(read), "statementType": "SELECT"}
        except Refused as refused:
            if dry or refused.reason in _BEFORE:
                raise
            made["status"]["errorResult"] = {"reason": refused.reason, "message": refused.message}
        if not dry:
            into = {"projectId": PROJECT, "datasetId": "_results", "tableId": reference["jobId"]}
            made["configuration"]["query"]["destinationTable"] = into
            self.jobs[reference["jobId"]] = made
            self.unseen.add(reference["jobId"])
        return self.job(reference["jobId"]) if not dry else made

    def job(self, name: str) -> dict[str, Any]:
        """Return a job: running until its rows were asked for."""
        if name not in self.unseen:
            return self.jobs[name]
        return {**self.jobs[name], "status": {"state": "RUNNING"}, "statistics": {"creationTime": "0"}}

    def _query(self, job: str, text: str, dry: bool) -> int:
        export = _EXPORT.match(text)
        of = export["of"] if export else text
        for name, (reason, said) in _REFUSED.items():
            if re.search(rf"\b{name}\b", of):
                raise Refused(_CODES[reason], reason, said)
        rows = self._rows(of if not dry else f"SELECT * FROM ({of}) LIMIT 0")
        scanned = rows if not dry else self._rows(of)
        if not dry and export:
            if rows.num_rows or "empty" in export["uri"]:
                into = io.BytesIO()
                pq.write_table(rows, into)
                self.objects[export["uri"].removeprefix("gs://").replace("*", "000000000000")] = into.getvalue()
            rows = rows.slice(0, 0)
        if not dry:
            self.results[job] = rows
        return scanned.num_rows * scanned.num_columns * BYTES_A_VALUE

    def _rows(self, text: str) -> pa.Table:
        try:
            (translated,) = sqlglot.transpile(text, read="bigquery", write="duckdb")
            return self.con.sql(translated).to_arrow_table()
        except duckdb.CatalogException as error:
            raise Refused(404, "notFound", f"Not found: {str(error).splitlines()[0]}") from None
        except (duckdb.Error, sqlglot.errors.SqlglotError) as error:
            raise Refused(400, "invalidQuery", str(error).splitlines()[0]) from None

    def page(self, job: str, asked: Mapping[str, list[str]]) -> dict[str, Any]:
        """Return a page of a job's rows."""
        self.unseen.discard(job)
        if error := self.jobs[job]["status"].get("errorResult"):
            raise Refused(_CODES[error["reason"]], error["reason"], error["message"])
        rows, first = self.results[job], int(asked.get("pageToken", ["0"])[0])
        most = min(int(asked.get("maxResults", [str(PAGE)])[0]), PAGE)
        page = rows.slice(first, most)
        columns = [[_cell(value) for value in _plain(column)] for column in page.columns]
        found: dict[str, Any] = {
            "kind": "bigquery#getQueryResultsResponse", "jobReference": self.jobs[job]["jobReference"],
            "jobComplete": True, "totalRows": str(rows.num_rows), "schema": {"fields": list(map(_field, rows.schema))},
            "totalBytesProcessed": "0", "cacheHit": False,
        }  # fmt: skip
        if most:
            found["rows"] = [{"f": [{"v": value} for value in row]} for row in zip(*columns, strict=True)]
        if first + most < rows.num_rows:
            found["pageToken"] = str(first + most)
        return found

    def table(self, dataset: str, name: str) -> dict[str, Any]:
        try:
            schema = self.con.sql(f'SELECT * FROM "{dataset}"."{name}" LIMIT 0').to_arrow_table().schema
        except duckdb.CatalogException:
            raise Refused(404, "notFound", f"Not found: Table {PROJECT}:{dataset}.{name}") from None
        reference = {"projectId": PROJECT, "datasetId": dataset, "tableId": name}
        return {"tableReference": reference, "type": "TABLE", "schema": {"fields": list(map(_field, schema))}}

    def tables(self, dataset: str) -> dict[str, Any]:
        listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? ORDER BY ALL"
        names = [name for (name,) in self.con.execute(listed, [dataset]).fetchall()]
        found = [{"tableReference": {"projectId": PROJECT, "datasetId": dataset, "tableId": name}} for name in names]
        return {"kind": "bigquery#tableList", "tables": found, "totalItems": len(found)}

    def create(self, dataset: str, made: dict[str, Any]) -> dict[str, Any]:
        name = made["tableReference"]["tableId"]
        columns = ", ".join(f'"{each["name"]}" {_DUCK[each["type"]]}' for each in made["schema"]["fields"])
        self.con.execute(f'CREATE TABLE "{dataset}"."{name}" ({columns})')
        self.expires[name] = made.get("expirationTime", "")
        return {**made, **self.table(dataset, name)}

    def load(self, job: dict[str, Any], content: bytes) -> dict[str, Any]:
        into = job["configuration"]["load"]["destinationTable"]
        rows = pq.read_table(io.BytesIO(content))
        declared = self.table(into["datasetId"], into["tableId"])["schema"]["fields"]
        for field, known in zip(map(_field, rows.schema), declared, strict=True):
            if field != known:
                told = f"Field {field['name']} has changed type from {known['type']} to {field['type']}"
                raise Refused(400, "invalid", f"Provided Schema does not match Table. {told}")
        self.con.register("_loaded", rows)
        self.con.execute(f'INSERT INTO "{into["datasetId"]}"."{into["tableId"]}" BY NAME FROM _loaded')
        self.con.unregister("_loaded")
        made = {
            "jobReference": {**job["jobReference"], "projectId": PROJECT, "location": "EU"},
            "configuration": job["configuration"], "status": {"state": "DONE"}, "statistics": {"load": {}},
        }  # fmt: skip
        self.jobs[made["jobReference"]["jobId"]] = made
        return made


class _Storage:
    """The service of BigQuery's storage interface: a result in two streams."""

    def __init__(self, served: Bigquery) -> None:
        self._served = served

    def session(self, asked: Any, context: grpc.ServicerContext) -> Any:
        if self._served.sealed:
            said = "request failed: the user does not have 'bigquery.readsessions.create' permission"
            context.abort(grpc.StatusCode.PERMISSION_DENIED, said)
        table = asked.read_session.table
        rows = self._served.results[table.rpartition("/")[2]]
        self._served.sessions += 1
        halves = [types.ReadStream(name=f"{table}/{half}") for half in (0, 1)[: asked.max_stream_count or 2]]
        schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        return types.ReadSession(name=table, table=table, arrow_schema=schema, streams=halves)

    def rows(self, asked: Any, _: grpc.ServicerContext) -> Iterator[Any]:
        _, name, half = asked.read_stream.rsplit("/", 2)
        rows, middle = self._served.results[name], -(-self._served.results[name].num_rows // 2)
        schema = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        for batch in (rows.slice(middle) if half == "1" else rows.slice(0, middle)).to_batches(PAGE):
            content = types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            yield types.ReadRowsResponse(arrow_schema=schema, arrow_record_batch=content, row_count=batch.num_rows)

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "google.cloud.bigquery.storage.v1.BigQueryRead",
            {
                "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                    self.session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
                ),
                "ReadRows": grpc.unary_stream_rpc_method_handler(
                    self.rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
                ),
            },
        )


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _field(field: pa.Field[Any]) -> dict[str, Any]:
    kind = field.type
    if pa.types.is_list(kind):
        return {**_field(kind.value_field), "name": field.name, "mode": "REPEATED"}
    names: list[tuple[Callable[[Any], bool], str]] = [
        (pa.types.is_boolean, "BOOLEAN"), (pa.types.is_integer, "INTEGER"), (pa.types.is_floating, "FLOAT"),
        (pa.types.is_date, "DATE"), (pa.types.is_decimal, "NUMERIC"), (pa.types.is_time, "TIME"),
    ]  # fmt: skip
    found = next((name for test, name in names if test(kind)), "STRING")
    if pa.types.is_timestamp(kind):
        found = "TIMESTAMP" if kind.tz else "DATETIME"
    return {"name": field.name, "type": found, "mode": "NULLABLE"}


def _plain(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Return values as they are in JSON; an instant is its microseconds."""
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return column.to_pylist()


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bigquery: Bigquery

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            with self.bigquery.lock:
                found = self._found(parts.path, parse_qs(parts.query), body)
            status, headers, content = found
        except Refused as refused:
            status, headers, content = refused.code, {}, json.dumps(refused.content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer

    def _found(self, path: str, asked: Mapping[str, list[str]], body: bytes) -> tuple[int, dict[str, str], bytes]:
        served = self.bigquery
        if path == "/token":
            return _json(served.token(parse_qs(body.decode())))
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in served.tokens:
            raise Refused(401, "authError", "Invalid Credentials")
        base = f"/bigquery/v2/projects/{PROJECT}"
        if not path.startswith((base, f"/upload{base}")):
            if path.startswith("/bigquery/"):
                raise Refused(404, "notFound", f"Not found: Project {path.split('/')[4]}")
            return self._object(unquote(path).lstrip("/"), asked)
        if path.startswith("/upload"):
            return self._uploaded(asked, body)
        match self.command, path.removeprefix(base).strip("/").split("/"):
            case "POST", ["jobs"]:
                return _json(served.insert(json.loads(body)))
            case "GET", ["jobs", job]:
                return _json(served.job(job))
            case "POST", ["jobs", job, "cancel"]:
                return _json({"job": served.jobs[job]})
            case "GET", ["queries", job]:
                return _json(served.page(job, asked))
            case "GET", ["datasets", dataset, "tables"]:
                return _json(served.tables(dataset))
            case "POST", ["datasets", dataset, "tables"]:
                return _json(served.create(dataset, json.loads(body)))
            case "GET", ["datasets", dataset, "tables", name]:
                return _json(served.table(dataset, name))
            case "DELETE", ["datasets", dataset, "tables", name]:
                served.con.execute(f'DROP TABLE "{dataset}"."{name}"')
                return 204, {}, b""
        raise Refused(404, "notFound", f"Not found: {self.command} {path}")

    def _uploaded(self, asked: Mapping[str, list[str]], body: bytes) -> tuple[int, dict[str, str], bytes]:
        served = self.bigquery
        if "upload_id" not in asked:
            name = secrets.token_hex(8)
            served.uploads[name] = json.loads(body)
            at = f"{served.url}{urlsplit(self.path).path}?uploadType=resumable&upload_id={name}"
            return 200, {"Location": at}, b""
        job = served.uploads.pop(asked["upload_id"][0])
        job.setdefault("jobReference", {"jobId": secrets.token_hex(8)})
        return _json(served.load(job, body))

    def _object(self, name: str, asked: Mapping[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        objects, now = self.bigquery.objects, datetime.now(UTC)
        if "list-type" in asked:
            prefix = f"{name.strip('/')}/{asked.get('prefix', [''])[0]}"
            listed = "".join(
                f"<Contents><Key>{each.partition('/')[2]}</Key><LastModified>{now.isoformat()}</LastModified>"
                f"<Size>{len(content)}</Size></Contents>"
                for each, content in sorted(objects.items())
                if each.startswith(prefix)
            )
            return 200, {"Content-Type": "application/xml"}, f"<ListBucketResult>{listed}</ListBucketResult>".encode()
        if name not in objects:
            raise Refused(404, "notFound", "No such object")
        if self.command == "DELETE":
            del objects[name]
            return 204, {}, b""
        content = objects[name]
        headers = {"Last-Modified": now.strftime("%a, %d %b %Y %H:%M:%S GMT"), "ETag": '"1"'}
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first = int(found[1]) if found[1] else len(content) - int(found[2])
            last = min(int(found[2]), len(content) - 1) if found[1] and found[2] else len(content) - 1
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, headers, content[first : last + 1]
        return 200, headers, content


def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(content).encode()


@contextmanager
def serving() -> Iterator[Bigquery]:
    """Context with a server on a free port."""
    served = Bigquery()
    handler = type("Handler", (_Handler,), {"bigquery": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        storage = grpc.server(ThreadPoolExecutor(8))
        storage.add_generic_rpc_handlers([_Storage(served).handlers()])
        served.storage_url = f"http://127.0.0.1:{storage.add_insecure_port('127.0.0.1:0')}"
        storage.start()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
            storage.stop(None).wait()
