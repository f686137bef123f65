"""`mainspring replay` on a project that served: the answers and the stored features of real requests, again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kit.depot import ENDPOINT, MODEL, Depot, keyed, opened
from kit.depth import deep
from kit.waiting import wait_until
from mainspring.core.time import HOUR, MINUTE
from mainspring.ledger.model import Selection
from mainspring.operations.replay.features import check_features
from mainspring.operations.service.skew import compare, skew

pytestmark = pytest.mark.slow


def many(rows: int) -> dict[str, Any]:
    """Return a request for several parcels at once."""
    columns = {
        "parcel": ("BYTES", [f"n{row}" for row in range(rows)]),
        "hub": ("BYTES", ["north", "south", "nowhere"] * (rows // 3)),
        "weight": ("FP32", [row / 7 for row in range(rows)]),
        "posted_at": ("BYTES", [datetime.now(UTC).isoformat()] * rows),
    }
    return {
        "inputs": [
            {"name": name, "shape": [rows], "datatype": datatype, "data": data}
            for name, (datatype, data) in columns.items()
        ]
    }


@deep
def test_served_answers_and_features_are_the_same_again(depot: Depot) -> None:
    with depot.up() as up:
        up.until_serving()
        key, path = up.document["admin_key"], f"/v2/models/{ENDPOINT}/infer"
        asked = [up.ask("POST", path, keyed("late"), key=key), up.ask("POST", path, many(30), key=key)]
        assert [each.status for each in asked] == [200, 200]
        (first,) = asked[0].body["parameters"]["prediction_ids"]
        wait_until(lambda: opened(depot).predictions.sample(Selection(), 99)[30:], "the log to be compacted")
    one = depot.json("replay", first)
    assert one["verdict"]["outcome"] == "identical"
    assert one["verdict"]["features"]["compared"] == 4
    assert one["verdict"]["features"]["differing"] == {}
    assert one["inputs"]["Parcel.weight"] == 3.0
    made_by = one["provenance"]
    assert made_by["run_id"]
    assert made_by["dataset_commit"]
    assert made_by["runtime"]["onnxruntime"] == made_by["trained_with"]["onnxruntime"]
    assert made_by["missing"] == []
    assert "Identical, bit for bit." in depot.run("replay", first).stdout

    report = depot.json("replay", "--sample", "1000", "--endpoint", ENDPOINT)
    assert report["outcomes"] == {"identical": 31, "within tolerance": 0, "differs": 0, "cannot": 0}
    assert (report["features_compared"], report["features_equal"]) == (124, 124)

    # The hour of these predictions is compared once it is complete, once.
    project = opened(depot)
    hour = project.predictions.find(first).at // HOUR * HOUR
    of_it = len(project.predictions.sample(Selection(endpoint=ENDPOINT, since=hour, until=hour + HOUR), 99))
    assert compare(project, ENDPOINT, hour + HOUR) is True  # the hour before, without predictions
    assert skew(project, ENDPOINT) == {}
    later = hour + HOUR + 15 * MINUTE
    assert [compare(project, ENDPOINT, later), compare(project, ENDPOINT, later)] == [True, False]
    found = skew(project, ENDPOINT)
    assert found["HubLoad.scans_3h"] == {"match": of_it, "mismatch": 0, "missing": 0, "extra": 0}
    assert [sum(counts.values()) for counts in found.values()] == [of_it] * 4
    assert "HubLoad.scans_3h" in depot.run("monitor", ENDPOINT).stdout

    # A log that claims another value of a stored feature.
    bundle = project.bundles.load(project.versions.get(MODEL, "champion").digest)
    prediction = project.predictions.find(first)
    prediction.features["HubLoad.scans_3h"] = 77  # what the log says that the model saw
    (check,) = check_features([prediction], bundle, project.lake.scan)
    assert check.differing["HubLoad.scans_3h"].logged == 77
    assert check.differing["HubLoad.scans_3h"].again == one["inputs"]["HubLoad.scans_3h"]
    assert list(check.differing) == list(check.statuses) == ["HubLoad.scans_3h"]

    # Without the bundle there is no answer, and the exit code says so.
    (blob,) = [path for path in depot.state.rglob(bundle.digest) if path.is_dir()]
    blob.rename(depot.root / "kept")
    ran = depot.run("replay", "--sample", "5", "--json")
    assert ran.code == 3
    assert ran.document["outcomes"]["cannot"] == 5
    assert "is gone" in ran.document["missing"][0]["why"]
    ran = depot.run("replay", first)
    assert ran.code == 3
    assert "Cannot be replayed." in ran.stdout


def test_one_prediction_or_a_sample(depot: Depot) -> None:
    assert depot.run("replay").code == 2
    assert depot.run("replay", "p1", "--sample", "3").code == 2
    assert depot.run("replay", "nobody").code == 4
    ran = depot.run("replay", "--sample", "3")
    assert (ran.code, ran.stdout.strip()) == (0, "No predictions match.")
