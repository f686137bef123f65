"""Right-sizing of a served endpoint: a stored load test, this machine as it is, others as they are described."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kit.depot import ENDPOINT, Depot
from kit.depth import deep
from mainspring.operations.bench.load import machine_of
from mainspring.operations.predict import route_of
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.serving.model import Baseline

pytestmark = [pytest.mark.slow, deep]


def store_load_test(depot: Depot, capacity: float, machine: str) -> None:
    """Store a load test, as `mainspring bench` does."""
    project = open_project(load_settings(depot.root, environment={}))
    route = route_of(project, ENDPOINT)
    arm = max(route.arms, key=lambda each: each.weight)
    project.baselines.add(
        Baseline(
            endpoint=ENDPOINT, model=route.model, version=arm.version, digest=arm.digest,
            measured_at=project.wall.now(), asked_by="keys", rows=1, deadline_us=route.deadline_us, workers=1,
            capacity=capacity, alone_p50_us=900.0, alone_p99_us=1500.0, points=(), batch_rows=2.0, machine=machine,
        )
    )  # fmt: skip
    project.close()


def here() -> str:
    """This machine as load tests name it that run on two cores."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-2:])
    try:
        return machine_of(own_core=len(cores) > 1)
    finally:
        os.sched_setaffinity(0, cores)


def test_an_endpoint_is_sized_on_this_machine_and_on_others(depot: Depot, tmp_path: Path) -> None:
    with (depot.root / "mainspring.toml").open("a") as settings:
        settings.write(
            '\n[profiles.local.prices]\nmachine = "0.40 EUR"\ncurrency = "USD"\nexchange = { EUR = "1.10 USD" }\n'
        )
    store_load_test(depot, 50_000.0, here())
    store_load_test(depot, 90_000.0, "another machine")
    measured = depot.json("advise", "machine", "--name", "here")
    half = {name: measured[name] / 2 for name in ("scalar", "moved_gb_s")}
    rates = [each | {"gops": each["gops"] / 2} for each in measured["rates"]]
    slow = measured | half | {"name": "slow", "node_us": 2 * measured["node_us"], "rates": rates}
    (tmp_path / "slow.json").write_text(json.dumps(slow))
    given = ("--rate", "900", "--seconds", "0.2", "--on", tmp_path / "slow.json")
    found = depot.json("advise", "size", ENDPOINT, *given, "--machine", "aws/us-east-1/m7i.large")
    assert (found["capacity"], found["spare"], found["of"]) == (50_000.0, 1, "stated")
    choices = {each["machine"]: each for each in found["choices"]}
    this, other, listed = choices["this machine"], choices["slow"], choices["aws/us-east-1/m7i.large"]
    for each in choices.values():
        rate = each["rate"]
        assert rate["low"] <= rate["value"] <= rate["high"]
        assert (each["count"] - 1) * rate["low"] >= 900 > (each["count"] - 2) * rate["low"]
        assert each["headroom_lost"] == pytest.approx((each["count"] - 1) * rate["value"] / 900 - 1)
    assert this["hour"] == pytest.approx(0.44 * this["count"])
    assert this["month"] == pytest.approx(730 * this["hour"])
    assert listed["currency"] == "USD"
    assert "the speed of its cores" in listed["unknown"]
    assert other["hour"] is None
    assert [each["hour"] is None for each in found["choices"]] == [False, False, True]

    assert "keys.create" in {each["action"] for each in depot.json("audit", "search", "--limit", "5")}

    none = depot.run("advise", "size", ENDPOINT, "--seconds", "0.2")
    assert none.code != 0
    assert "--rate" in none.stderr
    (tmp_path / "broken.json").write_text('{"cores": 2}')
    broken = depot.run("advise", "size", ENDPOINT, "--rate", "9", "--seconds", "0.2", "--on", tmp_path / "broken.json")
    assert "advise machine" in broken.stderr
    twice = ("--rate", "9", "--on", tmp_path / "slow.json", "--on", tmp_path / "slow.json")
    assert "called 'slow'" in depot.run("advise", "size", ENDPOINT, *twice).stderr
