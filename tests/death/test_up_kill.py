"""kill -9 of the supervisor, of its children, and of commands beside a running `up`, at random moments.

Then it is started again: no prediction that was answered is lost or counted twice, only new processes answer, and no
port or lock stays taken.
"""

from __future__ import annotations

import csv
import http.client
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kit.depot import ENDPOINT, MODEL, PARCELS, Depot, Up, copied, gone, half_sent, keyed, opened, refuses
from kit.depth import DEEP, deep, examples
from kit.load import Load
from kit.waiting import wait_until
from mainspring.ledger.model import PREDICTIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SEED = int(os.environ.get("DEATH_SEED") or random.randrange(1_000_000))
INFER = f"/v2/models/{ENDPOINT}/infer"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    print(f"DEATH_SEED={SEED}")  # shown where the test fails
    return random.Random(f"{SEED} {request.node.name}")


def callers_of(depot: Depot, key: str) -> Load:
    """Return two threads that ask for predictions, also while the gateway is being killed."""

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", depot.gateway, timeout=10)

    return Load(connect, INFER, key, lambda number: json.dumps(keyed(f"c{number}")).encode(), threads=2)


def told_by(load: Load) -> list[str]:
    """Return the ids of the predictions that were answered."""
    return [each for answered in load.answered for each in answered.document["parameters"]["prediction_ids"]]


def check_told(depot: Depot, told: list[str], chance: random.Random) -> None:
    """What was answered is found, and is in the lake once."""
    assert len(told) == len(set(told)) > 0
    project = opened(depot)
    try:
        for each in chance.sample(told, min(5, len(told))):
            assert project.predictions.find(each).id == each
        assert depot.json("doctor")["well"]  # which compacts
        scan = project.lake.scan(PREDICTIONS)
        counted = Counter(_ids(scan.files))
    finally:
        project.engine.dispose()
    assert set(told) <= counted.keys()
    assert set(counted.values()) == {1}


def _ids(files: Any) -> Iterator[str]:
    import pyarrow.parquet as pq

    for file in files:
        yield from pq.read_table(file, columns=["id"])["id"].to_pylist()


def check_only_new(up: Up, old: set[int]) -> None:
    """The old processes are gone and the ports are the new ones'."""
    running = up.running
    new = {running["pid"], *running["children"].values()}
    assert not new & old
    assert all(gone(pid) for pid in old)
    check_holders(up)


def check_holders(up: Up) -> None:
    """The console's port is its own; the gateway's is the supervisor's, too, which outlives it."""
    running = up.running
    gateways = {pid for name, pid in running["children"].items() if name.startswith("gateway")}
    assert holders(up.depot.gateway) == {running["pid"], *gateways}
    assert holders(up.depot.control) == {running["children"]["control"]}


def holders(port: int) -> set[int]:
    """Return the processes that listen on a port of 127.0.0.1."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            inodes.add(fields[9])
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                for link in (folder / "fd").iterdir():
                    with suppress(OSError):
                        inode = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
                        if inode and inode[1] in inodes:
                            found.add(int(folder.name))
    return found


def pids(up: Up) -> set[int]:
    return {up.running["pid"], *up.running["children"].values()}


def test_a_killed_supervisor_takes_its_children_with_it(depot: Depot, chance: random.Random) -> None:
    key = depot.json("keys", "create", "caller", "--scope", "predict", "--expires", "1h")["key"]
    told: list[str] = []
    old: set[int] = set()
    for _ in range(examples(gate=1, deep=2)):
        # At once: neither the lock nor a port is still taken.
        with depot.up(real=True, environment={"MAINSPRING_GATEWAY_WORKERS": "2"}) as up:
            assert "gateway-1" in up.running["children"]
            if old:
                check_only_new(up, old)
            up.until_serving()
            with callers_of(depot, key) as callers:
                callers.until_answered(5)
                time.sleep(chance.uniform(0, 0.5))
                old = pids(up)
                os.kill(up.running["pid"], signal.SIGKILL)
                up.process.wait(90)
            assert callers.refused == []  # a new gateway answers nobody before it has loaded what it serves
            told += told_by(callers)
    wait_until(lambda: all(map(gone, old)), "the children to die")
    wait_until(lambda: refuses(depot.gateway), "the port to be closed")
    check_told(depot, told, chance)
    with depot.up(real=True) as up:
        check_only_new(up, old)
        for each in chance.sample(told, 3):  # a person finds it too
            answer = up.ask("GET", f"/api/predictions/{each}", key=viewer(depot), plane="control")
            assert answer.body["prediction"]["id"] == each
    assert depot.json("doctor")["well"]


def viewer(depot: Depot) -> str:
    return str(depot.json("keys", "create", "viewer", "--scope", "view", "--expires", "1h")["key"])


def test_a_killed_child_comes_back_and_nothing_is_lost(depot: Depot, chance: random.Random) -> None:
    key = depot.json("keys", "create", "caller", "--scope", "predict", "--expires", "1h")["key"]
    victims = examples(gate=["gateway", "control", "worker"], deep=["gateway", "gateway", "control", "worker"])
    chance.shuffle(victims)
    with depot.up(real=True) as up:
        up.until_serving()
        with callers_of(depot, key) as callers:
            for victim in victims:
                callers.until_answered(5)
                time.sleep(chance.uniform(0, 0.5))
                before = up.running["children"]
                os.kill(before[victim], signal.SIGKILL)
                wait_until(lambda b=before, v=victim: up.running["children"][v] != b[v], f"a new {victim}")
                after = up.running["children"]
                assert gone(before[victim])
                assert {name for name in after if after[name] != before[name]} == {victim}
                wait_until(lambda: answers(up), "both planes to answer")
                check_holders(up)
                up.until_serving()
            callers.until_answered(5)
        assert callers.refused == []
        assert depot.json("doctor")["well"]
    assert up.process.returncode == 0
    check_told(depot, told_by(callers), chance)


def answers(up: Up) -> bool:
    gateway, control = up.ask("GET", "/v2/health/live"), up.ask("GET", "/health/live", plane="control")
    return gateway.status == control.status == 200


@deep
def test_a_restarted_gateway_still_answers_what_is_in_flight_at_the_end(depot: Depot) -> None:
    """The kernel kills a child with the thread that started it: the supervisor's must live until its children ended."""
    key = depot.json("keys", "create", "caller", "--scope", "predict", "--expires", "1h")["key"]
    with depot.up(real=True) as up:
        up.until_serving()
        before = up.running["children"]["gateway"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: up.running["children"]["gateway"] != before, "a new gateway")
        wait_until(lambda: answers(up), "it to answer")
        up.until_serving()
        with half_sent(depot.gateway, INFER, json.dumps(keyed("last")).encode(), f"Bearer {key}") as (begun, rest):
            up.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(depot.gateway), "the end to begin")
            begun.sendall(rest)
            answer = begun.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert up.process.wait(90) == 0


# Commands beside a running `up`


def kill(depot: Depot, chance: random.Random, within_s: float, *arguments: object) -> bool:
    """Kill a command within so many seconds of its work. Return whether it was still running."""
    with depot.begun(*arguments, "--json") as begun:
        return begun.killed_after(chance.uniform(0, within_s) + (1.5 if DEEP else 0))  # an interpreter starts there


@pytest.fixture(scope="module")
def serving(trained: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with copied(trained[0], tmp_path_factory.mktemp("beside") / "depot").up(real=True) as up:
        up.until_serving()
        yield up


@pytest.fixture
def beside(serving: Up) -> Iterator[Up]:
    """An `up` that goes on serving whatever happens to the commands beside it."""
    before = pids(serving)
    yield serving
    assert serving.ask("POST", INFER, keyed("still"), key=serving.document["admin_key"]).status == 200
    assert pids(serving) == before  # nobody had to be restarted
    assert serving.depot.json("doctor")["well"]


@deep
def test_a_killed_ingest_beside_it_lands_once(beside: Up, chance: random.Random) -> None:
    rows, depot = 30_000, beside.depot
    with (depot.root / "more.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["parcel", "hub", "weight", "posted_at"])
        writer.writerows([f"m{each}", "north", 1.5, "2024-01-01T00:00:00Z"] for each in range(rows))
    killed = sum(kill(depot, chance, 1.0, "ingest", "posted", "more.csv") for _ in range(3))
    report = depot.json("ingest", "posted", "more.csv")
    assert report["rows"] + report["already"] == rows
    assert depot.json("ingest", "posted", "more.csv")["already"] == rows
    assert count(depot, "posted") == {"rows": PARCELS + rows, "parcels": PARCELS + rows}, killed


def count(depot: Depot, table: str) -> dict[str, int]:
    import pyarrow.parquet as pq

    project = opened(depot)
    parcels = [
        each for file in project.lake.scan(table).files or () for each in pq.read_table(file)["parcel"].to_pylist()
    ]
    project.engine.dispose()
    return {"rows": len(parcels), "parcels": len(set(parcels))}


@deep
def test_killed_commands_beside_it_leave_no_trace(beside: Up, chance: random.Random) -> None:
    depot = beside.depot
    features = depot.root / "parcels" / "features.py"
    asked = ["predict", ENDPOINT, "parcel=k", "hub=north", "weight=2", "posted_at=2026-01-01T00:00:00Z"]
    for number in range(2):
        features.write_text(
            features.read_text() + f"\nextra{number} = ms.Entity('extra{number}', keys={{'x': ms.String}})\n"
        )
        kill(depot, chance, 0.4, "apply")
        kill(depot, chance, 0.8, "materialize")
        kill(depot, chance, 0.4, *asked)
    changes = {change["name"] for change in depot.json("apply")["changes"]}
    assert changes <= {"extra0", "extra1"}
    assert depot.json("apply")["changes"] == []
    assert depot.json("materialize")[0]["view"] == "HubLoad"
    told, key = depot.json(*asked), beside.document["admin_key"]
    found = beside.ask("GET", f"/api/predictions/{told['prediction_id']}", key=key, plane="control")
    assert found.status == 200


@deep
def test_killed_trainings_and_promotions_beside_it(beside: Up, chance: random.Random) -> None:
    depot = beside.depot
    for _ in range(2):
        kill(depot, chance, 3.0, "train", MODEL)
    made = depot.json("train", MODEL)
    project = opened(depot)
    versions = [version.version for version in project.versions.all(MODEL)]
    assert versions == [str(number) for number in range(int(made["version"]), 0, -1)]
    for _ in range(2):
        kill(depot, chance, 0.6, "promote", MODEL, made["version"])
        serving = depot.json("status")["endpoints"][0]["versions"]
        assert serving in ({"1": 1.0}, {made["version"]: 1.0})
    promoted = depot.json("promote", MODEL, made["version"])
    assert promoted["promoted"]
    key = beside.document["admin_key"]
    wait_until(
        lambda: beside.ask("POST", INFER, keyed("x"), key=key).body["model_version"] == made["version"],
        "the new version",
    )
    moves = [move for move in project.versions.moves(MODEL) if move.new == made["version"]]
    assert len(moves) == 1  # a promotion that was killed after its move is not made again
    project.close()
