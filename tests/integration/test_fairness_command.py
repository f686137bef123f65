"""`mainspring fairness` on a trained project: held-out rows, live predictions, the card, and what is refused."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta

import pytest

from kit.depot import ENDPOINT, MODEL, Depot, inputs, opened
from kit.depth import deep
from kit.waiting import wait_until
from mainspring.ledger.model import Selection

pytestmark = pytest.mark.slow
BY = "HubLoad.scans_3h"


def test_what_cannot_be_compared_is_refused(depot: Depot) -> None:
    assert depot.run("fairness", ENDPOINT).code == 2
    assert depot.run("fairness", "nobody").code == 4
    assert depot.run("fairness", f"{MODEL}@champion", "--by", "sex").code == 2
    found = depot.json("fairness", f"{MODEL}@champion", "--by", BY, "--least-rows", "20")
    assert found["rows"] == "held-out rows"
    assert sum(group["rows"] for group in found["versions"][0]["reports"][0]["groups"]) == found["versions"][0]["rows"]


@deep
def test_groups_of_held_out_rows_and_of_live_predictions(depot: Depot) -> None:
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text() + f'ms.Monitor("{ENDPOINT}", fairness=["{BY}", "hub"])\n')

    found = depot.json("fairness", f"{MODEL}:1", "--by", BY, "--least-rows", "20")
    (version,) = found["versions"]
    assert (found["rows"], version["task"], version["threshold"]) == ("held-out rows", "binary", 0.5)
    (report,) = version["reports"]
    assert sum(group["rows"] for group in report["groups"]) == version["rows"]
    assert "selection rate" in depot.run("fairness", f"{MODEL}:1", "--by", BY).stdout
    card = depot.json("models", "card", f"{MODEL}:1")
    assert card["fairness"] == []  # the held-out rows lack the column `hub`
    assert [gap["what"] for gap in card["gaps"] if gap["section"] == "Fairness"] == [
        f"The held-out rows have no columns 'hub': they have {', '.join(_held_out(card))}."
    ]
    service.write_text(service.read_text().replace(f'"{BY}", "hub"', f'"{BY}"'))
    assert depot.json("models", "card", f"{MODEL}:1")["fairness"][0]["by"] == [BY]
    assert f"Groups by {BY}" in depot.run("models", "card", MODEL, "--format", "md").stdout.replace("\\", "")
    assert f"Groups by {BY}" in depot.run("models", "card", MODEL, "--format", "html").stdout

    now = datetime.now(UTC)
    with depot.up() as up:
        up.until_serving()
        for number in range(12):
            body = inputs(parcel=f"n{number}", hub="north" if number % 3 else "south", weight=3.0,
                          posted_at=now.isoformat())  # fmt: skip
            asked = up.ask("POST", f"/v2/models/{ENDPOINT}/infer", body, key=up.document["admin_key"])
            assert asked.status == 200
        predictions = opened(depot).predictions
        wait_until(lambda: len(predictions.sample(Selection(), 99)) == 12, "the log to be compacted")
    assert depot.json("fairness", ENDPOINT, "--by", "hub")["versions"] == []
    assert "no labelled predictions" in depot.run("fairness", ENDPOINT, "--by", "hub").stdout
    with (depot.root / "more.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["parcel", "late", "delivered_at"])
        later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        writer.writerows([f"n{number}", str(number % 2 == 0).lower(), later] for number in range(12))
    depot.json("ingest", "deliveries", "more.csv")
    live = wait_until(
        lambda: depot.json("fairness", ENDPOINT, "--by", "hub", "--least-rows", "3")["versions"], "labels to be known"
    )
    (version,) = live
    assert version["rows"] == 12
    assert {group["group"]["hub"]: group["rows"] for group in version["reports"][0]["groups"]} == {
        "north": 8, "south": 4,
    }  # fmt: skip


def _held_out(card: dict[str, list[list[str]]]) -> list[str]:
    return [name for name, _ in card["inputs"]]
