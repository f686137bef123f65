"""`mainspring streams`, each command a process, and the worker of a running `up`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kit.depot import Depot, lay_out, opened
from kit.waiting import wait_until
from mainspring.data.streams.model import NewMessage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    depot = lay_out(tmp_path / "depot")
    features = depot.root / "parcels" / "features.py"
    features.write_text(features.read_text() + '\nms.Stream(scans, topic="scans")\n')
    return depot


def send(depot: Depot, backlogs: Sequence[object], *, ago_s: float = 1.0) -> None:
    at = (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()
    rows = [{"hub": "north", "backlog": backlog, "scanned_at": at} for backlog in backlogs]
    log = opened(depot).streams
    log.create("scans", 2)
    log.produce("scans", [NewMessage(json.dumps(row).encode()) for row in rows])
    log.close()


def test_a_stream_from_its_topic_to_its_features(depot: Depot) -> None:
    gone = depot.run("streams", "run", "--to-end")
    assert (gone.code, "scans" in gone.stderr) == (4, True)
    send(depot, [5, 7, "many", None])
    assert depot.json("streams", "run", "scans", "--to-end") == {"scans": 4}
    assert depot.json("streams", "run", "--to-end") == {"scans": 0}
    (listed,) = depot.json("streams", "list")
    assert (listed["stream"], listed["kind"], listed["lag"], listed["dead_letters"]) == ("scans", "source", 0, 1)
    assert len(listed["partitions"]) == 2
    assert listed["watermark"]
    assert "scans" in depot.run("streams", "list").stdout
    assert depot.json("streams", "show", "scans") | {"watermark_age_s": 0} == listed | {"watermark_age_s": 0}
    (letter,) = depot.json("streams", "dead-letters", "scans")
    assert "`$.backlog`" in letter["reason"]
    north = depot.json("features", "entity", "HubLoad", "north")["values"]
    values = {each["feature"]: each["online"] for each in north}
    assert values["scans_3h"] == 3
    assert depot.json("streams", "seek", "scans", "--to", "next").keys() == {"0", "1"}
    assert depot.run("streams", "show", "posted").code == 4
    assert depot.json("doctor")["well"]


def test_the_worker_of_up_lands_what_arrives(depot: Depot) -> None:
    send(depot, [1])
    with depot.up():
        wait_until(lambda: depot.json("streams", "list")[0]["lag"] == 0, "the stream is landed")
        send(depot, [2, 3], ago_s=0.0)
        wait_until(lambda: depot.json("streams", "list")[0]["lag"] == 0, "the stream is landed")
        wait_until(lambda: _messages(depot) == 3, "the worker reports")


def _messages(depot: Depot) -> int:
    return sum(each["messages"] for each in depot.json("streams", "show", "scans")["workers"])
