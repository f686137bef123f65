"""Predictions of devices in monitoring: under the package's endpoint and version, each row once, by whichever way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kit.console import flights
from kit.console.client import Client
from kit.edge_packages import NAME, package
from mainspring.console.app import create_app
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR
from mainspring.deploy.edge.repository import Repository
from mainspring.ledger.ports import Observed
from mainspring.monitoring.hours import FLEET, HourSketch, added
from mainspring.monitoring.ports import Doubt
from mainspring.monitoring.served import served
from mainspring.operations.column_comparison import column_comparison
from mainspring.operations.edge import fleet
from mainspring.operations.edge.sketches import add_waiting, sketch_file
from mainspring.serving.model import Endpoint
from mainspring_edge.queue import Queue
from mainspring_edge.upload import Uploads

DEVICES = ("depot-1", "depot-2", "depot-3")
NOW = flights.NOW
ENDPOINT = "landing"


class Direct(Uploads):
    """Uploads whose control plane is a function; an answer may be lost on its way back."""

    def __init__(self, project: flights.Project, device: str, key: Ed25519PrivateKey) -> None:
        super().__init__("http://127.0.0.1:1", {"project": "flights", "device": device}, key)
        self._project, self._device, self._mine, self.lost = project, device, key, False

    def _post(self, body: bytes) -> dict[str, Any]:
        done = fleet.take_records(self._project, self._device, body, self._mine.sign(body).hex())
        if self.lost:
            self.lost = False
            raise ConnectionError
        return {"until": done.until}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[flights.Project]:
    of_flights = flights.populated()
    (digest,) = of_flights.predictions.digests()
    repository = Repository(tmp_path / "repository", tmp_path / "keys", MemoryLocks(), lambda: NOW - 40 * HOUR)
    sketch = sketch_file(served(of_flights.bundles.load(digest)))
    repository.publish(package(tmp_path, 2, about={"bundle": digest, "endpoint": ENDPOINT}, sketch=sketch))
    declared = replace(of_flights.definitions, endpoints={ENDPOINT: Endpoint(ENDPOINT, model=f"{NAME}@champion")})
    made = of_flights.having(packages=repository, definitions=declared)
    yield made
    made.close()


def rows(seed: int, count: int) -> list[dict[str, Any]]:
    _, inputs = flights.reference()
    rng = random.Random(seed)
    made = []
    for number in range(count):
        features: dict[str, Any] = {
            each.name: rng.choice(["UA", "nobody", None]) if each.name.endswith("carrier") else rng.gauss(10, 8)
            for each in inputs
        }
        features["Weather.gust"] = None
        made.append({"features": features, "score": rng.random(), "at": NOW - (number % 4) * HOUR - 5_000_000})
    return made


def record(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "prediction", "id": f"{random.getrandbits(128):032x}", "version": 2, "boot": "b",
        "mono_us": row["at"] - NOW + 100 * HOUR, "at": row["at"], "row": {"flight": "UA1"},
        "features": row["features"], "outputs": {"probability": row["score"]}, "latency_us": 900, "share": 1.0,
    }  # fmt: skip


def of_all(project: flights.Project, every: list[dict[str, Any]]) -> list[HourSketch]:
    """Return the sketches of rows as the log's compaction makes them."""
    release = project.packages.releases(NAME)[0]
    observed = Observed(
        ENDPOINT, "2", release.bundle, np.array([row["at"] for row in every]), np.ones(len(every)),
        np.full(len(every), 900), {name: [row["features"][name] for row in every] for name in every[0]["features"]},
        [row["score"] for row in every],
    )  # fmt: skip
    return [each for each in project.sketching.sketches([observed]) if not each.segment]


def same(found: list[HourSketch], expected: list[HourSketch]) -> None:
    assert [each.hour for each in found] == sorted(each.hour for each in expected)
    for one, other in zip(found, sorted(expected, key=lambda each: each.hour), strict=True):
        assert (one.version, one.digest, one.rows) == (other.version, other.digest, other.rows)
        assert one.sketch.counts.tolist() == other.sketch.counts.tolist()
        assert one.sketch.bins.tolist() == other.sketch.bins.tolist()
        assert one.latencies.tolist() == other.latencies.tolist()
        np.testing.assert_allclose(one.sketch.sums, other.sketch.sums, rtol=1e-9, atol=1e-9)
        assert one.pairs is not None
        assert other.pairs is not None
        np.testing.assert_allclose(one.pairs.products, other.pairs.products, rtol=1e-9, atol=1e-9)


def test_all_rows_of_devices_are_monitored_each_once(project: flights.Project, tmp_path: Path) -> None:
    every, of_device = list[dict[str, Any]](), dict[str, int]()
    content = sketch_file(served(project.bundles.load(project.packages.releases(NAME)[0].bundle)))
    assert content is not None
    fleet.register(project, DEVICES[0], NAME, "00" * 32)
    fleet.start(project, NAME, 2)
    fleet.remove(project, DEVICES[0])
    for seed, device in enumerate(DEVICES):
        key = Ed25519PrivateKey.generate()
        fleet.register(project, device, NAME, key.public_key().public_bytes_raw().hex())
        queue, uploads = Queue(tmp_path / f"{device}.db", most_bytes=20_000), Direct(project, device, key)
        queue.know(2, content)
        mine = rows(seed, 80)
        every += mine
        of_device[device] = len(mine)
        queue.add([record(row) for row in mine[:50]])  # more than there is room for
        queue.skip([record(row) for row in mine[50:65]])
        queue.pack(-1)
        clock = {"boot": "b", "mono_us": 100 * HOUR, "at": NOW}
        uploads.lost = True
        with pytest.raises(ConnectionError):
            uploads.send(queue, clock)
        queue.add([record(row) for row in mine[65:]])  # drops none of those that are on their way
        queue.pack(-1)
        while uploads.send(queue, clock):
            pass
        assert queue.depth().dropped > 0
        queue.close()

    logged = project.predictions.recent(ENDPOINT, 1000)
    assert {(each.endpoint, each.version) for each in logged} == {(ENDPOINT, "2")}
    assert 0 < len(logged) < len(every)
    project.predictions.compact()
    _added_by_two_workers_of_which_one_dies(project)
    same(project.sketches.hours(ENDPOINT, 0, NOW + HOUR), of_all(project, every))

    rings = [each for each in project.sketches.segments(ENDPOINT, 0, NOW) if each.startswith(FLEET)]
    by_ring = [each for ring in rings for each in project.sketches.hours(ENDPOINT, 0, NOW + HOUR, segment=ring)]
    same(
        added(replace(each, segment="") for each in sorted(by_ring, key=lambda each: each.hour)), of_all(project, every)
    )

    column = column_comparison(project, ENDPOINT, "Schedule.carrier", 0, NOW + HOUR)
    assert (column.current.rows, column.current.unseen > 0.2) == (len(every), True)
    for device, count in of_device.items():
        shown = fleet.device(project, device)
        assert shown.sketch is not None
        assert (shown.sketch.rows, shown.sketch.version) == (count, "2")
        assert shown.sketched > 15
        assert "Schedule.carrier" in {each.column for each in shown.sketch.columns if each.drifted}
    text = Client(create_app(project), project.key()).page(f"/fleet/{DEVICES[0]}").text
    assert "80 rows of version 2" in text

    # A recount of the log leaves what no log has.
    before = reduce(add, (each.rows for each in project.sketches.hours(ENDPOINT, 0, NOW + HOUR)))
    project.sketches.doubt(Doubt("all", None, None))
    project.predictions.compact()
    assert project.sketches.doubts() == []
    assert reduce(add, (each.rows for each in project.sketches.hours(ENDPOINT, 0, NOW + HOUR))) == before


def _added_by_two_workers_of_which_one_dies(project: flights.Project) -> None:
    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(project.fleet, name)

        def added(self, key: str) -> None:
            raise KeyboardInterrupt(key)

    one = project.having(fleet=Dying(), packages=project.packages, locks=MemoryLocks())
    with pytest.raises(KeyboardInterrupt):  # after the store has them, before the catalog has forgotten them
        add_waiting(one)
    assert add_waiting(project) > 0
    assert add_waiting(project) == 0


def test_a_sketch_in_other_bins_is_refused_and_counted(project: flights.Project, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    fleet.register(project, DEVICES[0], NAME, key.public_key().public_bytes_raw().hex())
    content = sketch_file(served(project.bundles.load(project.packages.releases(NAME)[0].bundle)))
    assert content is not None
    queue, uploads = Queue(tmp_path / "queue.db"), Direct(project, DEVICES[0], key)
    queue.know(2, content)
    queue.skip([record(row) for row in rows(1, 3)])
    queue.pack(-1)
    good = [each for _, each in queue.oldest(9)]
    for change in (
        {"counts": good[0]["counts"][1:]},
        {"bins": [[[900], [1]]] * len(good[0]["bins"])},
        {"products": [1.0]},
        {"rows": 0},
        {"version": 7},
    ):
        queue.add([{**good[0], **change}])
    while uploads.send(queue, {"boot": "b", "mono_us": 100 * HOUR, "at": NOW}):
        pass
    shown = fleet.device(project, DEVICES[0])
    assert (shown.uploaded, shown.refused) == (len(good), 5)
    queue.close()
