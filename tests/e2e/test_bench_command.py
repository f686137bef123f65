"""`mainspring bench`: a real gateway of its own, asked ever more often, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.depot import ENDPOINT, Depot, opened
from kit.depth import deep
from kit.models import mlp
from kit.waiting import wait_until
from mainspring.core.time import format_instant

FAST = ("--seconds", "0.3", "--connections", "8")
FASTEST = ("--seconds", "0.1", "--connections", "8")  # where the loads that it finds are of no interest


@pytest.mark.parametrize(("by", "rows"), [("keys", 1), pytest.param("features", 5, marks=deep)])
def test_the_highest_load_is_found_and_kept(depot: Depot, by: str, rows: int) -> None:
    logged = sorted(path.name for path in (depot.root / ".mainspring" / "ledger").rglob("*"))
    told = depot.json("bench", ENDPOINT, "--by", by, "--rows", rows, *FAST)
    assert told["endpoint"] == ENDPOINT
    assert told["asked_by"] == by
    assert told["rows"] == rows
    assert told["alone_p50_us"] > 0
    offered = [point["offered"] for point in told["points"]]
    assert offered == sorted(offered)
    assert told["capacity"] is None or told["capacity"] in offered
    assert {"queue", "compute", "total"} <= told["stages_us"].keys()
    assert told["batch_rows"] >= rows
    kept = opened(depot).baselines.newest(ENDPOINT)
    assert [format_instant(each.measured_at) for each in kept] == [told["measured_at"]]
    assert sorted(path.name for path in (depot.root / ".mainspring" / "ledger").rglob("*")) == logged
    (key,) = [each for each in opened(depot).key_store.all() if each.name == "mainspring bench"]
    assert key.revoked_at is not None


@deep
def test_a_model_of_tensors_is_asked_with_its_golden_rows(depot: Depot) -> None:
    (depot.root / "mlp.onnx").write_bytes(mlp())
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text() + 'ms.Endpoint("mlp", model="mlp@champion", deadline="2s")\n')
    depot.json("models", "add", "mlp", "mlp.onnx", "--alias", "champion")
    depot.json("apply")
    told = depot.json("bench", "mlp", *FASTEST)
    assert told["asked_by"] == "features"
    assert told["alone_p50_us"] > 0
    by_keys = depot.run("bench", "mlp", "--by", "keys", *FASTEST)
    assert by_keys.code != 0
    assert "cannot be requested by keys" in by_keys.stderr


def test_people_see_a_table(depot: Depot) -> None:
    done = depot.run("bench", ENDPOINT, *FASTEST)
    assert done.code == 0, done.stderr
    assert "requests/s" in done.stdout or "No tested load met" in done.stdout  # on a busy machine
    assert "deadline" in done.stdout
    assert "queue" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("nowhere",), "nowhere"), ((ENDPOINT, "--rows", "0"), "do not make a load"), ((ENDPOINT, "--by", "x"), "'x'")],
)
def test_what_cannot_be_measured(depot: Depot, arguments: tuple[str, ...], said: str) -> None:
    done = depot.run("bench", *arguments)
    assert done.code != 0
    assert said in done.stderr


def test_the_gateway_dies_with_whoever_measures(depot: Depot) -> None:
    with depot.start("bench", ENDPOINT, "--seconds", "30") as process:
        try:
            wait_until(lambda: _gateways(depot), "a gateway to measure")
        finally:
            process.kill()
    wait_until(lambda: not _gateways(depot), "the end of the gateway")


def _gateways(depot: Depot) -> list[str]:
    """Return the command lines of gateways of this project."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:  # it ended
            continue
        if "mainspring.processes.gateway" in words and str(depot.root) in words:
            found.append(" ".join(words))
    return found
