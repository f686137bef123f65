"""The warehouse of a profile: its settings, its secrets, and whether its tables are there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mainspring.core.errors import Invalid, MissingExtra
from mainspring.core.settings import WarehouseSetting
from mainspring.operations.doctor import examine
from mainspring.operations.profile import check_profile, list_profiles
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

SOURCES = """
import mainspring as ms

deliveries = ms.Source("deliveries", schema={"courier": ms.String, "km": ms.Float64}, event_time="at")
"""


def read(root: Path, table: str, environment: dict[str, str] | None = None) -> WarehouseSetting | None:
    (root / "mainspring.toml").write_text(f'name = "shop"\n[profiles.local]\n{table}\n')
    return load_settings(root, environment=environment or {}).warehouse


def opened(root: Path, table: str) -> Project:
    (root / "shop.py").write_text(SOURCES)
    (root / "mainspring.toml").write_text(f'name = "shop"\nmodules = ["shop"]\n[profiles.local.warehouse]\n{table}\n')
    with duckdb.connect(str(root / "w.duckdb")) as con:
        con.execute("CREATE SCHEMA raw")
        con.execute('CREATE TABLE raw.rides (courier TEXT, km DOUBLE, "at" TIMESTAMPTZ, loaded_at BIGINT)')
        con.execute('CREATE TABLE raw.odd (courier TEXT, km TIMESTAMPTZ, "at" TIMESTAMP)')
    return open_project(load_settings(root, environment={}))


def test_settings_are_read_from_the_file_and_the_environment(tmp_path: Path) -> None:
    assert read(tmp_path, "") is None
    assert read(tmp_path, "", {"MAINSPRING_WAREHOUSE_PASSWORD": "hidden"}) is None
    text = (
        'warehouse = { url = "snowflake://me@ac-count/db/raw?warehouse=w&role=r", max_scan = "1TB", timeout = "5m", '
        'connect_timeout = "3s", key_file = "keys/rsa.p8", tables = { deliveries = "raw.rides" }, '
        'arrivals = { deliveries = "loaded_at" }, '
        'lateness = { deliveries = "1h" } }'
    )
    found = read(
        tmp_path, text, {"MAINSPRING_WAREHOUSE_KEY_PASSWORD": "hidden", "MAINSPRING_WAREHOUSE_MAX_SCAN": "2MB"}
    )
    assert found is not None
    assert found.max_scan == 2_000_000
    assert (found.timeout_us, found.connect_timeout_us) == (300_000_000, 3_000_000)
    assert found.key_file == tmp_path / "keys" / "rsa.p8"
    assert found.key_password == "hidden"
    assert "hidden" not in repr(found)
    assert (found.table("deliveries"), found.table("orders")) == ("raw.rides", "orders")
    assert found.arrivals == {"deliveries": "loaded_at"}
    assert found.lateness == {"deliveries": "1h"}
    at = read(tmp_path, "", {"MAINSPRING_WAREHOUSE_URL": "duckdb:///data/w.duckdb"})
    assert at is not None
    assert at.url.path == tmp_path / "data" / "w.duckdb"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("warehouse = 3", "warehouse is 3"),
        ('warehouse.tables = { a = "b" }', "no url"),
        ('warehouse.url = "w.duckdb"', "no url"),
        ('warehouse = { url = "duckdb:///w", tabels = {} }', "did you mean 'tables'"),
        ('warehouse = { url = "duckdb:///w", tables = ["a"] }', "deliveries = "),
        ('warehouse = { url = "duckdb:///w", max_scan = 5 }', 'max_scan = "2GB"'),
        ('warehouse = { url = "duckdb:///w", timeout = "soon" }', "timeout is 'soon'"),
        ('warehouse = { url = "duckdb:///w", password = "hidden" }', "MAINSPRING_WAREHOUSE_PASSWORD"),
        ('warehouse = { url = "duckdb:///w", lateness = { a = 5 } }', 'lateness = \\{ deliveries = "10m"'),
        (
            'warehouse = { url = "duckdb:///w", arrivals = { ab = "x" }, lateness = { a = "1h" } }',
            "mean 'ab'.*arrivals",
        ),
        ('warehouse = { url = "snowflake://me:hidden@a/db/s" }', "has a password: snowflake://me:"),
    ],
)
def test_what_is_wrong_is_named_without_the_secret(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem) as caught:
        read(tmp_path, table)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "problems"),
    [
        ('url = "duckdb:///w.duckdb"\ntables = { deliveries = "raw.rides" }', []),
        ('url = "duckdb:///w.duckdb"\ntables = { deliveries = "raw.riders" }', ["no table 'raw.riders'.*'raw.rides'"]),
        ('url = "duckdb:///x.duckdb"\ntables = { deliveries = "raw.rides" }', [r"no file .*x\.duckdb"]),
        (
            'url = "duckdb:///w.duckdb"\ntables = { deliveries = "raw.rides" }\narrivals = { deliveries = "loaded" }',
            ["loaded"],
        ),
    ],
)
def test_both_checks_say_whether_the_tables_are_there(tmp_path: Path, table: str, problems: list[str]) -> None:
    project = opened(tmp_path, table)
    checked = [each for each in check_profile(project) if each.backend == "warehouse"]
    told: list[Any] = [each for each in checked if not each.ok]
    found = [each for each in examine(project, "warehouse") if not each.ok]
    for outcomes in (told, found):
        assert len(outcomes) == len(problems)
        for each, problem in zip(outcomes, problems, strict=True):
            with pytest.raises(Invalid, match=problem):
                raise Invalid(each.detail, fix=each.fix)
    if not problems:
        assert [each.check for each in checked] == ["reachable", "tables"]
        (well,) = examine(project, "warehouse")
        assert "tables of sources that fit: 1" in well.detail
    assert list_profiles(tmp_path, environment={})[0].places["warehouse"].endswith(".duckdb")


def test_doctor_compares_columns_with_the_declaration(tmp_path: Path) -> None:
    tables = '{ deliveries = "raw.odd", delivreies = "raw.rides" }'
    project = opened(tmp_path, f'url = "duckdb:///w.duckdb"\ntables = {tables}')
    details = [f"{each.detail} {each.fix}" for each in examine(project, "warehouse")]
    assert [each for each in details if "column km" in each and "declares Float64" in each]
    assert [each for each in details if "column at" in each and "no zone" in each]
    assert [each for each in details if "did you mean 'deliveries'" in each]
    assert len(details) == 3


def test_a_profile_without_a_warehouse_says_so(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\n')
    project = open_project(load_settings(tmp_path, environment={}))
    assert examine(project, "warehouse") == []
    with pytest.raises(Invalid, match=r"Profile 'local' has no warehouse.*\[profiles\.local\.warehouse\]"):
        _ = project.warehouse


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("snowflake://me@a/b/c", "snowflake", "snowflake"), ("bigquery://a/b", "google.cloud", "bigquery")],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"mainspring\[{extra}\]"):
        _ = opened(tmp_path, f'url = "{url}"').warehouse


def test_a_scheme_that_is_not_known_is_named(tmp_path: Path) -> None:
    project = opened(tmp_path, 'url = "teradata://server/db"')
    with pytest.raises(Invalid, match=r"No warehouse for 'teradata://server/db'.*duckdb://"):
        _ = project.warehouse
