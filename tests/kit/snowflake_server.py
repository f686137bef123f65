"""A program for fakesnow's environment: its server, with log-in, and with the commands of warehouses that it lacks.

It knows one user, by password and by key; says no as Snowflake does, with its numbers; unloads to a folder in place of
a bucket; and explains a statement. Its arguments are a folder, the user, the password and the file of a public key.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import sys
from pathlib import Path
from string import Template
from typing import Any

import fakesnow.macros as macros
import fakesnow.server as fakesnow
import jwt
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from cryptography.hazmat.primitives import serialization
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

FOLDER, USER, PASSWORD, PUBLIC_KEY = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
BYTES_A_ROW = 1000  # that an explained statement reads
MASTER = {"masterToken": "master", "validityInSeconds": 3600, "masterValidityInSeconds": 14400, "sessionId": 1}
STAGE = {"region": "", "endPoint": None, "path": "", "storageAccount": None, "isClientSideEncrypted": False}
ZONES = "TIMESTAMP_TZ and LTZ types are not supported for unloading to Parquet."
UNLOAD = re.compile(
    r"COPY INTO '(?P<to>[^']+)' FROM \((?P<of>.*)\) FILE_FORMAT = \(TYPE = PARQUET\)(?P<options>.*)", re.DOTALL
)
EXPLAIN = re.compile(r"EXPLAIN USING JSON (?P<of>.*)", re.DOTALL)
warehouses: dict[str, str] = {}  # token -> warehouse of its session
ended: dict[str, Any] = {}  # sessions, by token
said: list[dict[str, Any]] = []  # of each log-in

# Its function goes through a double, which has no microseconds at the end of our years.
_seconds, _exact = "cast(to_timestamp(val::BIGINT / 1000000) as TIMESTAMP)", "make_timestamp(val::BIGINT)"
macros.FS_TO_TIMESTAMP = Template(macros.FS_TO_TIMESTAMP.template.replace(_seconds, _exact))
_stage_info = fakesnow.gcs_stage_info


def _stage(request: Request, expression: Any, data: Any) -> dict[str, Any]:
    data["overwrite"] = True  # as the statement says, which fakesnow does not read
    return {**_stage_info(request, expression, data), **STAGE}


fakesnow.gcs_stage_info = _stage
_to_sf = fakesnow.to_sf


def _with_nulls(table: pa.Table, rowtype: Any) -> pa.Table:
    """The rows as Snowflake sends them: a time that is null has no parts, which fakesnow declares never null."""
    found = _to_sf(table, rowtype)
    for n, column in enumerate(table.columns):
        if pa.types.is_timestamp(column.type):
            made = found.column(n).combine_chunks()
            parts = [pa.field(each.name, each.type) for each in made.type]
            nulls = column.combine_chunks().is_null()
            structs = pa.StructArray.from_arrays(made.flatten(), fields=parts, mask=nulls)
            field = pa.field(found.schema.field(n).name, structs.type, metadata=found.schema.field(n).metadata)
            found = found.set_column(n, field, structs)
    return found


fakesnow.to_sf = _with_nulls


def refused(number: str, message: str, state: str = "42000") -> JSONResponse:
    data = {"errorCode": number, "sqlState": state}
    return JSONResponse({"data": data, "code": number, "message": message, "success": False})


async def content(request: Request) -> dict[str, Any]:
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    found: dict[str, Any] = json.loads(body)
    return found


def changed(request: Request, body: dict[str, Any]) -> Request:
    """The request with another body."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-encoding"]
    found = Request({**request.scope, "headers": headers})
    found._body = json.dumps(body).encode()
    return found


def admitted(data: dict[str, Any]) -> bool:
    if data["LOGIN_NAME"].upper() != USER.upper():
        return False
    if data.get("AUTHENTICATOR") != "SNOWFLAKE_JWT":
        return bool(data.get("PASSWORD") == PASSWORD)
    key = serialization.load_pem_public_key(PUBLIC_KEY.read_bytes())
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    print_ = f"SHA256:{base64.b64encode(hashlib.sha256(der).digest()).decode()}"
    try:
        claims = jwt.decode(data["TOKEN"], key, algorithms=["RS256"])
    except jwt.InvalidTokenError:
        return False
    return bool(claims["iss"] == f"{claims['sub']}.{print_}" and claims["sub"].endswith(f".{USER.upper()}"))


async def login(request: Request) -> Response:
    data = (await content(request))["data"]
    if not admitted(data):
        return refused("390100", "Incorrect username or password was specified.", "08001")
    if request.query_params.get("roleName") == "NOBODY":
        return refused("390189", "Role 'NOBODY' specified in the connect string does not exist or not authorized.")
    answer = json.loads((await fakesnow.login_request(request)).body)
    answer["data"] |= MASTER
    warehouses[answer["data"]["token"]] = request.query_params.get("warehouse", "")
    said.append(data["SESSION_PARAMETERS"])
    return JSONResponse(answer)


async def renewed(_: Request) -> Response:
    return refused("390114", "Authentication token has expired.  The user must authenticate again.", "08001")


async def query(request: Request) -> Response:
    if fakesnow.to_token(request) in ended:
        return refused("390112", "Your session has expired. Please login again.", "08001")
    body = await content(request)
    text, warehouse = body["sqlText"], warehouses.get(fakesnow.to_token(request), "")
    if warehouse == "SPENT":
        message = "Warehouse 'SPENT' cannot be resumed because resource monitor 'MONTH' has exceeded its quota."
        return refused("090073", message, "22000")
    if not warehouse and text.startswith("SELECT *"):
        return refused("000606", "No active warehouse selected in the current session.", "57P03")
    if "secrets" in text:
        return refused("003001", "SQL access control error: Insufficient privileges to operate on table.", "42501")
    if text.startswith("DROP STAGE"):  # fakesnow has no such statement
        body["sqlText"] = "SELECT 'dropped' AS \"status\""
    elif found := UNLOAD.match(text):
        rows = rows_of(request, found["of"])
        if any(pa.types.is_timestamp(each.type) and each.type.tz for each in rows.schema):
            return refused("100183", f"Error encountered when unloading to PARQUET: {ZONES}", "22000")
        body["sqlText"] = unloaded(rows, found["to"], found["options"])
    elif found := EXPLAIN.match(text):
        described = await fakesnow.query_request(changed(request, {**body, "sqlText": found["of"]}))
        answer = json.loads(described.body)
        if not answer["success"]:
            return described
        stats = {"GlobalStats": {"bytesAssigned": BYTES_A_ROW * answer["data"]["total"]}}
        body["sqlText"] = f"SELECT '{json.dumps(stats)}' AS \"content\""
    return await fakesnow.query_request(changed(request, body))


def rows_of(request: Request, statement: str) -> pa.Table:
    cursor = fakesnow.to_conn(fakesnow.to_token(request)).cursor()
    cursor.execute(statement)
    return cursor._arrow_table


def unloaded(rows: pa.Table, to: str, options: str) -> str:
    """Write rows to a file, and return a statement with its name, size and number of rows; without a header the file
    has no names, and without a detailed output there are only totals.
    """
    if "HEADER = TRUE" not in options:
        rows = rows.rename_columns([f"_COL_{n}" for n in range(rows.num_columns)])
    names = 'AS "FILE_NAME", {} AS "FILE_SIZE", {} AS "ROW_COUNT"'
    if not rows.num_rows:
        return f"SELECT 'none' {names.format(0, 0)} WHERE 1 = 0"
    file = FOLDER / f"{to.partition('://')[2]}_0_0_0.snappy.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(rows, file)
    if "DETAILED_OUTPUT = TRUE" not in options:
        return f'SELECT {rows.num_rows} AS "rows_unloaded", {rows.nbytes} AS "input_bytes", 0 AS "output_bytes"'
    return f"SELECT '{file.name}' {names.format(file.stat().st_size, rows.num_rows)}"


async def told(_: Request) -> Response:
    return JSONResponse(said)


async def expired(_: Request) -> Response:
    """End all sessions, as Snowflake does after some hours."""
    ended.update(fakesnow.sessions)
    fakesnow.sessions.clear()
    return JSONResponse({"success": True})


async def ignored(_: Request) -> Response:
    return JSONResponse({"success": True})


OWN = [
    Route("/session/v1/login-request", login, methods=["POST"]),
    Route("/queries/v1/query-request", query, methods=["POST"]),
    Route("/telemetry/send", ignored, methods=["POST"]),
    Route("/said", told),
    Route("/expired", expired, methods=["POST"]),
    Route("/session/token-request", renewed, methods=["POST"]),
]


def main() -> None:
    config = uvicorn.Config(Starlette(routes=[*OWN, *fakesnow.routes]), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    print(listening.getsockname()[1], flush=True)
    server.run([listening])


if __name__ == "__main__":
    main()
