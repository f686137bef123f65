"""Tests for the environment of BigQuery's client: the adapter against a server of its protocol."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from kit.bigquery_server import DATASET, PROJECT, Bigquery, serving
from kit.pulls import Row, check_pulls
from mainspring.core.errors import Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.settings import Url, WarehouseSetting
from mainspring.core.time import SystemClock
from mainspring.data.adapters.warehouse_bigquery import BigqueryWarehouse
from mainspring.data.warehouse.conformance import DELIVERIES, Shop, WarehouseConformance
from mainspring.data.warehouse.ports import UnloadedFile
from mainspring.data.warehouse.scans import BoundedWarehouse, TooMuchToRead


@pytest.fixture(scope="module")
def server() -> Iterator[Bigquery]:
    with serving() as found:
        found.con.register("_deliveries", DELIVERIES)
        found.con.execute(f"CREATE TABLE {DATASET}.deliveries AS FROM _deliveries")
        found.con.execute(f"CREATE TABLE {DATASET}.odd AS SELECT 1 AS n, [1] AS list, TIME '10:00' AS hour")
        yield found


@pytest.fixture(scope="module")
def key(server: Bigquery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return server.key_file(tmp_path_factory.mktemp("key") / "key.json")


def setting(server: Bigquery, key: Path | None, place: str = f"{PROJECT}/{DATASET}") -> WarehouseSetting:
    return WarehouseSetting(Url(f"bigquery://{place}?location=EU&endpoint={server.url}"), key_file=key)


def made(known: WarehouseSetting) -> BigqueryWarehouse:
    return BigqueryWarehouse(known, SystemClock())


@pytest.fixture(scope="module")
def opened(server: Bigquery, key: Path) -> Iterator[BigqueryWarehouse]:
    with closing(made(setting(server, key))) as warehouse:
        yield warehouse


class TestBigqueryWarehouse(WarehouseConformance):
    many = "SELECT n FROM UNNEST(GENERATE_ARRAY(1, 1000000)) AS n"

    @pytest.fixture
    def warehouse(self, opened: BigqueryWarehouse) -> BigqueryWarehouse:
        return opened

    @pytest.fixture
    def shop(self, server: Bigquery) -> Shop:
        def content(file: UnloadedFile) -> bytes:
            return server.objects[file.at.removeprefix("gs://")]

        return Shop("deliveries", Url(f"gs://lake/out?endpoint={server.url}"), content)

    def test_a_number_of_more_than_64_bits_is_refused(self, warehouse: BigqueryWarehouse) -> None:
        """There is none: they are decimals with a fraction, which are read."""
        with warehouse.read(f"SELECT {self.wide} AS wide") as found:
            assert found.schema.field("wide").type == pa.decimal128(38, 9)
            assert found.read_all().to_pylist() == [{"wide": 2**63}]

    def test_columns_of_other_types_are_left_out_and_refused(self, warehouse: BigqueryWarehouse) -> None:
        assert list(warehouse.columns(f"{DATASET}.odd")) == ["n"]
        with pytest.raises(Invalid, match="Column 'list'"), warehouse.read("SELECT n, list FROM odd"):
            pass


@pytest.mark.filterwarnings("ignore:Retrieving Arrow:PendingDeprecationWarning")  # one package of Google's to another
def test_a_large_result_comes_in_streams_of_arrow(server: Bigquery, key: Path) -> None:
    known = setting(server, key)
    known = replace(known, url=Url(f"{known.url.text}&storage={server.storage_url}"))
    numbers = "SELECT n, TIMESTAMP_MICROS(n) AS at, n / 2 AS half FROM UNNEST(GENERATE_ARRAY(1, 100000)) AS n"
    with closing(made(known)) as warehouse:
        with warehouse.read(numbers) as found:
            rows = found.read_all().sort_by("n")
        assert server.sessions == 1
        assert rows["n"].to_pylist() == list(range(1, 100_001))
        assert rows["at"].cast(pa.int64()).equals(rows["n"])
        assert rows["half"][0].as_py() == 0.5
        with warehouse.read(numbers) as found:  # and ends early
            assert found.read_next_batch().num_rows > 0
        assert server.sessions == 2
        server.sealed = True
        with pytest.raises(Denied, match=r"readsessions\.create.*readSessionUser"), warehouse.read(numbers) as found:
            found.read_all()
        server.sealed = False
        with pytest.raises(Invalid, match="without encryption"):
            made(replace(known, url=Url(f"bigquery://{PROJECT}/{DATASET}?storage=http://10.0.0.1:80")))


def test_a_loaded_table_expires_within_a_day(opened: BigqueryWarehouse, server: Bigquery) -> None:
    rows = pa.table({"View.n": [1]})
    with opened.loaded(rows.to_batches(), rows.schema) as name:
        expires = datetime.fromtimestamp(int(server.expires[name]) / 1000, UTC)
        assert timedelta(hours=20) < expires - datetime.now(UTC) <= timedelta(days=1)
        assert list(opened.columns(name)) == ["View__n"]  # as the dialect names it
    with pytest.raises(NotFound):
        opened.columns(name)


def test_an_empty_file_is_removed(opened: BigqueryWarehouse, server: Bigquery) -> None:
    assert opened.unload("SELECT 1 AS n WHERE FALSE", Url(f"gs://lake/empty?endpoint={server.url}")) == []
    assert not [name for name in server.objects if "empty" in name]


@pytest.mark.parametrize(
    ("statement", "kind", "problem"),
    [
        ("SELECT * FROM secrets", Denied, "grant roles"),
        ("SELECT * FROM spent", Unavailable, "has spent a quota"),
        ("SELECT * FROM slow", Unavailable, "raise `timeout`"),
        ("SELECT * FROM other.deliveries", NotFound, "correct `tables`"),
    ],
)
def test_what_is_refused_is_told(
    opened: BigqueryWarehouse, statement: str, kind: type[MainspringError], problem: str
) -> None:
    with pytest.raises(kind, match=problem), opened.read(statement):
        pass


def test_who_does_not_answer_is_told_soon(server: Bigquery, key: Path, tmp_path: Path) -> None:
    """Who refuses connections, who takes none, and who asks to wait; also where tokens are asked for."""
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            with suppress(BlockingIOError):
                other.connect(deaf.getsockname())
        for at in ("http://127.0.0.1:9", f"http://127.0.0.1:{deaf.getsockname()[1]}"):
            known = replace(setting(server, key), connect_timeout_us=200_000)
            away = replace(known, url=Url(f"bigquery://{PROJECT}/{DATASET}?endpoint={at}"))
            (tmp_path / "key.json").touch(mode=0o600)
            (tmp_path / "key.json").write_text(key.read_text().replace(f"{server.url}/token", f"{at}/token"))
            for each in (away, replace(known, key_file=tmp_path / "key.json")):
                with closing(made(each)) as warehouse, pytest.raises(Unavailable, match="check the network"):
                    warehouse.ping()
        results = replace(known, url=Url(f"{known.url.text}&storage=http://127.0.0.1:9"))
        many = "SELECT n FROM UNNEST(GENERATE_ARRAY(1, 100000)) AS n"
        with (
            closing(made(results)) as warehouse,
            pytest.raises(Unavailable, match="check the network"),
            warehouse.read(many) as found,
        ):
            found.read_all()
        with closing(made(known)) as warehouse, pytest.raises(Unavailable, match=r"has spent a quota: .*rate limits"):
            warehouse.estimate("SELECT * FROM busy")


def test_credentials_that_are_wrong_or_missing(
    server: Bigquery, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as other:
        stranger = other.key_file(tmp_path / "stranger.json")
        stranger.write_text(stranger.read_text().replace(other.url, server.url))
        with pytest.raises(Denied, match=r"are refused: .*Invalid JWT"):
            made(setting(server, stranger)).ping()
    (tmp_path / "text.json").touch(mode=0o600)
    with pytest.raises(Invalid, match=r"text\.json is not the key of a service account"):
        made(setting(server, tmp_path / "text.json")).ping()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    with pytest.raises(Denied, match="There are no credentials"):
        made(setting(server, None)).ping()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    with closing(made(setting(server, None))) as warehouse:
        assert warehouse.ping() == "BigQuery"


def test_places_that_are_wrong(server: Bigquery, key: Path) -> None:
    elsewhere = made(setting(server, key, f"elsewhere/{DATASET}"))
    with closing(elsewhere), pytest.raises(NotFound, match="Project elsewhere"):
        elsewhere.ping()
    for place in ("project", "project/", "a/b/c"):
        with pytest.raises(Invalid, match="bigquery://PROJECT/DATASET"):
            made(setting(server, key, place))
    with pytest.raises(Invalid, match="did you mean 'location'"):
        made(WarehouseSetting(Url("bigquery://a/b?locaton=EU")))


def test_a_statement_that_would_read_too_much_does_not_run(opened: BigqueryWarehouse) -> None:
    text, read = "SELECT id, km FROM deliveries", 3 * 2 * 8
    with pytest.raises(TooMuchToRead, match=f"would read {read} bytes"), BoundedWarehouse(opened, read - 1).read(text):
        pass
    with BoundedWarehouse(opened, read).read(text) as rows:
        assert rows.read_all().num_rows == 3


def test_a_statement_has_a_time_limit_and_labels(opened: BigqueryWarehouse, server: Bigquery) -> None:
    opened.ping()
    *_, job = server.jobs.values()
    assert int(job["configuration"]["jobTimeoutMs"]) == 3_600_000
    assert job["configuration"]["labels"] == {"application": "mainspring"}


class Parcels:
    """A table of parcels there."""

    def __init__(self, server: Bigquery, key: Path) -> None:
        self._server, self._key = server, key
        columns = "parcel BIGINT, place VARCHAR, kg DOUBLE, packed_at TIMESTAMPTZ, loaded TIMESTAMPTZ"
        server.con.execute(f"CREATE TABLE {DATASET}.parcels ({columns})")

    def add(self, rows: Iterable[Row]) -> None:
        for parcel, arrival in rows:
            place = None if parcel % 5 == 0 else f"p{parcel % 3}"
            self._server.con.execute(
                f"INSERT INTO {DATASET}.parcels SELECT $1, $2, $3, make_timestamptz($4::BIGINT), "
                "make_timestamptz($5::BIGINT)",
                [parcel, place, parcel / 7, parcel * 1000, arrival],
            )

    def open(self) -> BigqueryWarehouse:
        return made(setting(self._server, self._key))


def test_rows_are_pulled_once(server: Bigquery, key: Path) -> None:
    check_pulls(Parcels(server, key))
