"""Tests for the environment of Snowflake's connector: the adapter against fakesnow's server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kit.engines import ROOT
from kit.pulls import Row, check_pulls
from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.settings import Url, WarehouseSetting
from mainspring.data.adapters.warehouse_snowflake import SnowflakeWarehouse
from mainspring.data.warehouse.conformance import DELIVERIES, Shop, WarehouseConformance, rows_of
from mainspring.data.warehouse.ports import UnloadedFile
from mainspring.data.warehouse.scans import BoundedWarehouse, TooMuchToRead

USER, PASSWORD, KEY_PASSWORD = "me", "it's hidden", "hidden too"
TABLE = """CREATE TABLE "deliveries" ("id" NUMBER(38, 0), "courier" VARCHAR, "late" BOOLEAN, "km" FLOAT,
"at" TIMESTAMP_TZ)"""
ROWS = """INSERT INTO "deliveries" SELECT 1, 'ana', TRUE, 1.5, TO_TIMESTAMP_TZ(1000001, 6)
UNION ALL SELECT 2, 'it''s', NULL, CAST('NaN' AS FLOAT), TO_TIMESTAMP_TZ(-1, 6)
UNION ALL SELECT 3, NULL, FALSE, NULL, NULL"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (folder / "key.p8").write_bytes(
        key.private_bytes(*kinds, serialization.BestAvailableEncryption(KEY_PASSWORD.encode()))
    )
    (folder / "key.p8").chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bucket")


def connected(server: str) -> snowflake.connector.SnowflakeConnection:
    return snowflake.connector.connect(
        account="acme", user=USER, password=PASSWORD, host="127.0.0.1", port=int(server.rpartition(":")[2]),
        protocol="http", warehouse="W", enable_server_session_keep_alive_auto_detection=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(bucket: Path, keys: Path) -> Iterator[str]:
    """The address of a server that has the table `deliveries`."""
    command = [os.environ["FAKESNOW_PYTHON"], "-W", "ignore", "-m", "kit.snowflake_server"]
    with subprocess.Popen(
        [*command, str(bucket), USER, PASSWORD, str(keys / "key.pub")],
        cwd=ROOT / "tests", env={"PYTHONPATH": str(ROOT / "tests"), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with connected(f"http://127.0.0.1:{port}") as connection, connection.cursor() as cursor:
                for text in ("CREATE DATABASE SHOP", "CREATE SCHEMA SHOP.RAW", "USE SCHEMA SHOP.RAW", TABLE, ROWS):
                    cursor.execute(text)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def setting(server: str, rest: str = "warehouse=W&role=R&integration=files", **more: object) -> WarehouseSetting:
    url = Url(f"snowflake://{USER}@acme/SHOP/RAW?{rest}&endpoint={server}")
    return replace(WarehouseSetting(url, password=PASSWORD), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def opened(server: str) -> Iterator[SnowflakeWarehouse]:
    with closing(SnowflakeWarehouse(setting(server))) as warehouse:
        yield warehouse


class TestSnowflakeWarehouse(WarehouseConformance):
    many = 'SELECT SEQ4() AS "n" FROM TABLE(GENERATOR(ROWCOUNT => 1000000))'
    wide = "9223372036854775808"

    @pytest.fixture
    def warehouse(self, opened: SnowflakeWarehouse) -> SnowflakeWarehouse:
        return opened

    @pytest.fixture
    def shop(self, bucket: Path) -> Shop:
        def content(file: UnloadedFile) -> bytes:
            return (bucket / file.at.removeprefix("s3://")).read_bytes()

        return Shop("deliveries", Url("s3://lake/out?region=eu-west-1"), content)


def test_a_key_is_taken_and_sessions_are_marked(server: str, keys: Path) -> None:
    known = setting(server, key_file=keys / "key.p8", key_password=KEY_PASSWORD, password="", timeout_us=90_000_000)
    with closing(SnowflakeWarehouse(known)) as warehouse:
        assert warehouse.ping().startswith("Snowflake ")
    with urlopen(f"{server}/said") as answer:
        said = json.load(answer)[-1]
    assert (said["TIMEZONE"], said["QUERY_TAG"]) == ("UTC", "mainspring")
    assert int(said["STATEMENT_TIMEOUT_IN_SECONDS"]) == 90


@pytest.mark.parametrize(
    ("rest", "more", "kind", "problem"),
    [
        ("warehouse=W", {"password": "wrong"}, Denied, "correct the user, the role, the key"),
        ("warehouse=W&role=NOBODY", {}, Denied, "NOBODY"),
        ("warehouse=SPENT", {}, Unavailable, "exceeded its quota.*raise its quota"),
        ("role=R", {}, Invalid, r"\?warehouse=NAME"),
        ("warehuose=W", {}, Invalid, "did you mean 'warehouse'"),
    ],
)
def test_what_is_wrong_is_told(
    server: str, rest: str, more: dict[str, object], kind: type[MainspringError], problem: str
) -> None:
    def read() -> None:
        with (
            closing(SnowflakeWarehouse(setting(server, rest, **more))) as warehouse,
            warehouse.read('SELECT * FROM "deliveries"'),
        ):
            pass

    with pytest.raises(kind, match=problem) as raised:
        read()
    assert "hidden" not in str(raised.value)


def test_a_session_that_ended_is_opened_anew(server: str) -> None:
    with closing(SnowflakeWarehouse(setting(server))) as warehouse:
        assert warehouse.columns("deliveries")
        with urlopen(Request(f"{server}/expired", method="POST")):
            pass
        assert len(rows_of(warehouse, 'SELECT * FROM "deliveries"')) == 3
        with urlopen(Request(f"{server}/expired", method="POST")):
            pass
        assert warehouse.columns("deliveries")


def test_rights_and_databases_that_are_not_there(opened: SnowflakeWarehouse, server: str) -> None:
    with pytest.raises(Denied, match="Insufficient privileges") as raised, opened.read('SELECT 1 FROM "secrets"'):
        pass
    assert raised.value.authenticated
    elsewhere = replace(setting(server), url=Url(f"snowflake://me@acme/NOWHERE/RAW?warehouse=W&endpoint={server}"))
    with closing(SnowflakeWarehouse(elsewhere)) as warehouse, pytest.raises(NotFound, match="the url in the profile"):
        warehouse.estimate('SELECT * FROM "deliveries"')


def test_a_server_that_is_away_and_a_key_that_is_none(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="There is no key"):
        SnowflakeWarehouse(setting("http://127.0.0.1:9", password=""))
    with pytest.raises(Unavailable, match=r"cannot be reached.*correct the account"):
        SnowflakeWarehouse(setting("http://127.0.0.1:9")).ping()
    with pytest.raises(Invalid, match="without encryption"):
        SnowflakeWarehouse(setting("http://10.0.0.1:80"))
    encrypted = setting("http://127.0.0.1:9", key_file=keys / "key.p8", key_password="other")
    with pytest.raises(Invalid, match=r"key\.p8 is not a private key.*KEY_PASSWORD"):
        SnowflakeWarehouse(encrypted).ping()
    (tmp_path / "open.p8").write_bytes((keys / "key.p8").read_bytes())
    (tmp_path / "open.p8").chmod(0o644)
    with pytest.raises(Invalid, match="chmod 600"):
        SnowflakeWarehouse(setting("http://127.0.0.1:9", key_file=tmp_path / "open.p8")).ping()


def test_a_statement_that_would_read_too_much_does_not_run(opened: SnowflakeWarehouse) -> None:
    text = 'SELECT * FROM "deliveries"'
    with pytest.raises(TooMuchToRead, match="would read 3,000 bytes"), BoundedWarehouse(opened, 2999).read(text):
        pass
    with BoundedWarehouse(opened, 3000).read(text) as rows:
        assert rows.read_all().num_rows == DELIVERIES.num_rows


def test_each_store_is_named_as_snowflake_does(opened: SnowflakeWarehouse, bucket: Path) -> None:
    for to, place in (("gs://lake/x", "lake/x"), ("az://lake/x?account=me", "me.blob.core.windows.net/lake/x")):
        (file,) = opened.unload('SELECT 1 AS "n"', Url(to))
        folder = to.partition("?")[0]
        assert (bucket / place / file.at.removeprefix(f"{folder}/")).exists()


class Parcels:
    """A table of parcels there."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._run("""CREATE TABLE "parcels" ("parcel" NUMBER(38, 0), "place" VARCHAR, "kg" FLOAT,
            "packed_at" TIMESTAMP_TZ, "loaded" TIMESTAMP_LTZ)""")

    def add(self, rows: Iterable[Row]) -> None:
        for parcel, arrival in rows:
            place = "NULL" if parcel % 5 == 0 else f"'p{parcel % 3}'"
            loaded = "NULL" if arrival is None else f"TO_TIMESTAMP_LTZ({arrival}, 6)"
            values = f"{parcel}, {place}, {parcel / 7}, TO_TIMESTAMP_TZ({parcel * 1000}, 6), {loaded}"
            self._run(f'INSERT INTO "parcels" SELECT {values}')

    def open(self) -> SnowflakeWarehouse:
        return SnowflakeWarehouse(setting(self._server))

    def _run(self, text: str) -> None:
        with connected(self._server) as connection, connection.cursor() as cursor:
            cursor.execute("USE SCHEMA SHOP.RAW")
            cursor.execute(text)


def test_rows_are_pulled_once(server: str) -> None:
    check_pulls(Parcels(server))
