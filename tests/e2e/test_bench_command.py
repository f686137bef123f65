"""`mainspring bench`: a real gateway of its own, asked ever more often, and what is kept of it."""

from __future__ import annotations

import os

import pytest

from depot import ENDPOINT, Depot, opened
from model_kit import mlp

FAST = ("--seconds", "0.3", "--connections", "8")


@pytest.mark.parametrize("by", ["keys", "features"])
def test_the_highest_load_is_found_and_kept(depot: Depot, by: str) -> None:
    logged = sorted(path.name for path in (depot.root / ".mainspring" / "ledger").rglob("*"))
    told = depot.json("bench", ENDPOINT, "--by", by, *FAST)
    assert told["endpoint"] == ENDPOINT
    assert told["asked_by"] == by
    assert told["alone_p50_us"] > 0
    offered = [point["offered"] for point in told["points"]]
    assert offered == sorted(offered)
    assert told["capacity"] is None or told["capacity"] in offered
    assert {"queue", "compute", "total"} <= told["stages_us"].keys()
    assert told["batch_rows"] >= 1
    kept = opened(depot).baselines.newest(ENDPOINT)
    assert [each.measured_at for each in kept] == [told["measured_at"]]
    assert sorted(path.name for path in (depot.root / ".mainspring" / "ledger").rglob("*")) == logged
    assert os.sched_getaffinity(0)  # the test's own process was never moved


def test_requests_of_several_rows(depot: Depot) -> None:
    told = depot.json("bench", ENDPOINT, "--rows", "5", *FAST)
    assert told["rows"] == 5
    assert told["batch_rows"] >= 5


def test_a_model_of_tensors_is_asked_with_its_golden_rows(depot: Depot) -> None:
    (depot.root / "mlp.onnx").write_bytes(mlp())
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text() + 'ms.Endpoint("mlp", model="mlp@champion", deadline="2s")\n')
    depot.json("models", "add", "mlp", "mlp.onnx", "--alias", "champion")
    depot.json("apply")
    told = depot.json("bench", "mlp", *FAST)
    assert told["asked_by"] == "features"
    assert told["alone_p50_us"] > 0
    by_keys = depot.run("bench", "mlp", "--by", "keys", *FAST)
    assert by_keys.code != 0
    assert "not asked by keys" in by_keys.stderr


def test_people_see_a_table(depot: Depot) -> None:
    done = depot.run("bench", ENDPOINT, *FAST)
    assert done.code == 0, done.stderr
    assert "requests/s" in done.stdout
    assert "deadline" in done.stdout
    assert "queue" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("nowhere",), "nowhere"), ((ENDPOINT, "--rows", "0"), "measure nothing"), ((ENDPOINT, "--by", "x"), "'x'")],
)
def test_what_cannot_be_measured(depot: Depot, arguments: tuple[str, ...], said: str) -> None:
    done = depot.run("bench", *arguments)
    assert done.code != 0
    assert said in done.stderr
