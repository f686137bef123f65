"""`mainspring batch` and the job `batch` on a project of the command line."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest

from kit.depot import ENDPOINT, MODEL, PARCELS, Depot, opened
from mainspring.data import duck

ARGUMENT = {"endpoint": ENDPOINT, "from": "posted", "to": "scored", "as_of": "posted_at"}


def test_a_table_is_scored_by_the_live_version_as_of_each_rows_time(depot: Depot) -> None:
    report = depot.json("batch", ENDPOINT, "--from", "posted", "--to", "./out", "--as-of", "posted_at")
    assert (report["rows"], report["predicted"], report["chunks"]) == (PARCELS, PARCELS, 1)
    assert (report["model"], report["version"]) == (MODEL, "1")
    assert {each["column"] for each in report["drift"]} > {"HubLoad.backlog", "probability"}
    found = pq.read_table(depot.root / "out")
    assert len(set(found["prediction_id"].to_pylist())) == PARCELS
    again = depot.run("batch", ENDPOINT, "--from", "posted", "--to", "./out", "--as-of", "posted_at")
    assert again.code != 0
    assert "is there already" in again.stderr
    assert "--new" in again.stderr
    shown = depot.run("batch", f"{MODEL}:2", "--from", "posted", "--to", "other", "--as-of", "posted_at")
    assert shown.code == 0, shown
    assert f"{PARCELS:,} predictions of {MODEL} version 2 in other" in shown.stdout


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_an_engine_that_is_not_installed_is_named_with_the_fix(depot: Depot) -> None:
    ran = depot.run("batch", ENDPOINT, "--from", "posted", "--to", "./out", "--engine", "ray")
    assert ran.code != 0
    assert "mainspring[ray]" in ran.stderr
    assert not (depot.root / "out").exists()


def test_the_job_scores_and_then_what_is_new(depot: Depot) -> None:
    job = depot.json("jobs", "run", "batch", json.dumps(ARGUMENT | {"new": True}), "--here")
    assert job["result"]["predicted"] == PARCELS
    job = depot.json("jobs", "run", "batch", json.dumps(ARGUMENT | {"new": True}), "--here")
    assert job["result"]["rows"] == 0
    project = opened(depot)
    with duck.connect() as con:
        duck.register(con, "scored", project.lake.scan("scored"))
        assert duck.one_row(con, "SELECT count(*), count(DISTINCT parcel) FROM scored") == (PARCELS, PARCELS)
    for argument, what in (
        ({}, "lacks endpoint, from, to"),
        (ARGUMENT | {"to": "/tmp/out"}, "outside of the project's folder"),
        (ARGUMENT | {"keep": "parcel"}, "not a list of columns"),
        (ARGUMENT | {"engine": "dask"}, "write one of ray, spark"),
        (ARGUMENT | {"endpoint": "nowhere"}, "nowhere"),
    ):
        ran = depot.run("jobs", "run", "batch", json.dumps(argument), "--here")
        assert ran.code != 0, argument
        assert what in ran.stdout + ran.stderr
