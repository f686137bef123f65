"""Rows of a profile's warehouse are ingested by a command, a job and from Python; batches name where they are from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result

from kit import documents
from mainspring.cli.main import cli
from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.data.batches import batches
from mainspring.operations.ingest import landed
from mainspring.operations.jobs.queue import begin, run_here
from mainspring.operations.opened import OpenedProject
from mainspring.operations.pulling import plan_pull, pull, pulled_sources
from mainspring.operations.subjects import erasing
from mainspring.operations.subjects.naming import find_subjects
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

pytestmark = pytest.mark.slow

SHOP = """
import mainspring as ms

courier = ms.Entity("courier", keys={"courier": ms.String})
rides = ms.Source("rides", schema={"courier": ms.String, "km": ms.Float64}, event_time="at", checks=[ms.not_null("km")])
tips = ms.Source("tips", schema={"courier": ms.String}, event_time="at")
"""
TOML = """
name = "shop"
modules = ["shop"]

[profiles.local.warehouse]
url = "duckdb:///warehouse.db"
tables = { rides = "raw.rides" }
arrivals = { rides = "loaded_at" }
lateness = { rides = "1h" }

[profiles.other]
"""
LAST = "2026-01-05T10:02:00Z"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "mainspring.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    write("CREATE SCHEMA raw")
    write('CREATE TABLE raw.rides (courier TEXT, km DOUBLE, "at" TIMESTAMPTZ, loaded_at TIMESTAMPTZ)')
    add(("ana", 2.5, 0), ("bo", None, 1), ("cem", 7.0, 2))
    return tmp_path


@pytest.fixture
def project(root: Path) -> Iterator[Project]:
    project = open_project(load_settings(root, environment={}))
    yield project
    project.close()


def write(sql: str) -> None:
    with duckdb.connect("warehouse.db") as con:
        con.execute("SET timezone = 'UTC'")
        con.execute(sql)


def add(*rows: tuple[str, float | None, int]) -> None:
    for courier, km, minute in rows:
        at = f"TIMESTAMPTZ '2026-01-05 10:{minute:02}:00+00'"
        write(f"INSERT INTO raw.rides VALUES ('{courier}', {'NULL' if km is None else km}, {at}, {at})")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["ingest", *words])


def test_the_command_plans_pulls_and_goes_on(project: Project) -> None:
    plan = plan_pull(project, "rides")
    assert (plan.rows, plan.since, plan.until, plan.scanned_bytes) == (3, "the start", LAST, None)
    assert "3 rows would be read for rides." in run("rides", "--warehouse", "--dry-run").stdout
    first = pull(project, "rides")
    assert (first.read, first.rows, first.quarantined, first.known) == (3, 2, 1, 0)
    assert (first.table, first.arrival, first.until) == ("raw.rides", "loaded_at", LAST)
    for found in (plan, first):  # as the command prints them
        documents.check(["ingest"], json.loads(json.dumps(asdict(found))))
    add(("dee", 1.0, 1), ("eli", 4.0, 30))
    shown = run("rides", "--warehouse").stdout
    assert "2 rows ingested" in shown
    assert "From raw.rides, by loaded_at: 2026-01-05T09:02:00Z to 2026-01-05T10:30:00Z." in shown
    assert "3 of the 5 rows read had been ingested before" in shown
    since = pull(project, "rides", since="2026-01-05T10:02:00Z")
    assert (since.read, since.known) == (2, 2)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rides"], 2, "Name DATA, or give --warehouse"),
        (["rides", "rows.csv", "--warehouse"], 2, "Name DATA, or give --warehouse"),
        (["rides", "rows.csv", "--since", "2026-01-01"], 2, "need --warehouse"),
        (["rides", "rows.csv", "--dry-run"], 2, "need --warehouse"),
        (["rides", "--warehouse", "--batch-id", "x"], 2, "are for DATA"),
        (["rides", "--warehouse", "--since", "yesterday"], 2, "yesterday"),
        (["tips", "--warehouse"], 2, 'arrivals = { tips = "COLUMN" }'),
        (["rides", "--warehouse", "--profile", "other"], 2, "has no warehouse"),
        (["nobody", "--warehouse"], 4, "nobody"),
    ],
)
def test_what_cannot_be_pulled_is_said(root: Path, words: list[str], code: int, said: str) -> None:
    done = run(*words)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_pull_has_an_event_and_its_batches_name_the_range(project: Project) -> None:
    report = OpenedProject(project).ingest_from_warehouse("rides")
    events = [(each.action, each.resource, each.detail) for each in project.audit.read(10)]
    [(_, resource, detail)] = [each for each in events if each[0] == "ingest"]
    assert resource == "source/rides"
    assert detail.startswith(
        f"2 ingested, 1 quarantined, 0 known; from raw.rides up to {LAST}; version {report.version}"
    )
    add(("dee", 1.0, 30))
    pull(project, "rides")
    assert [each.origin for each in batches(project, "rides")] == [
        f"raw.rides, loaded_at from {LAST} to 2026-01-05T10:30:00Z",
        f"raw.rides, loaded_at from the start to {LAST}",
    ]
    with duckdb.connect("warehouse.db") as con:  # nothing holds the file
        assert con.execute("SELECT count(*) FROM raw.rides").fetchone() == (4,)
    write("DROP TABLE raw.rides")
    with pytest.raises(NotFound, match=r"no table 'raw\.rides'"):
        pull(project, "rides")


def test_a_job_pulls_the_sources_that_have_arrivals(project: Project) -> None:
    assert pulled_sources(project) == ["rides"]
    done = run_here(project, begin(project, "ingest-warehouse", None).id)
    assert done.result == {
        "rides": {
            "read": 3, "rows": 2, "quarantined": 1, "known": 0, "until": LAST, "version": 0,
            "reasons": {"fails not_null(km)": 1}, "warnings": [],
        }
    }  # fmt: skip
    again = run_here(project, begin(project, "ingest-warehouse", {"sources": ["rides"]}).id)
    assert again.result["rides"]["known"] == 3


def test_without_arrivals_the_job_says_what_to_write(root: Path) -> None:
    other = open_project(load_settings(root, profile="other", environment={}))
    with pytest.raises(Invalid, match=r'arrivals = \{ SOURCE = "COLUMN" \}'):
        pulled_sources(other)
    other.close()


def test_erased_rows_do_not_come_again_and_the_receipt_names_the_warehouse(project: Project) -> None:
    pull(project, "rides")
    ana = find_subjects(project, "courier", ["ana"])
    outside = erasing.plan(project, ana).outside
    assert outside[0] == "rows of raw.rides in the warehouse, from where rides was ingested"
    erasing.erase(project, ana)
    add(("dee", 1.0, 3))
    again = pull(project, "rides")
    assert (again.rows, again.known) == (1, 3)
    assert {row["courier"] for row in landed(project, "rides", 10)} == {"cem", "dee"}
