"""Two machines, each with a state folder of its own, on one Postgres, one lake and one store of bundles."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit import prefork
from kit.depot import MODEL, Depot, copied
from kit.servers import PostgresServer
from mainspring.core.errors import NotFound
from mainspring.operations.models import curating
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

DEED = """
import sys
from pathlib import Path
from mainspring.operations.models import curating
from mainspring.operations.promote import promote
from mainspring.project.settings import load_settings
from mainspring.project import open_project
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, ManualClock

project = open_project(load_settings(Path(".")))
project.definitions
print("ready", flush=True)
for line in sys.stdin:
    deed, name = line.split()
    model, _, version = name.partition(":")
    try:
        if deed == "collect":
            project.wall = ManualClock(project.wall.now() + 30 * DAY)
            curating.garbage(project, grace_us=DAY)
        else:
            curating.restore(project, name)
            promote(project, model, version)
        print("done", flush=True)
    except MainspringError as error:
        print(type(error).__name__, error.what, flush=True)
"""


@pytest.fixture
def shared(postgres_server: PostgresServer, tmp_path: Path) -> dict[str, str]:
    database = postgres_server.fresh().text
    return {
        "MAINSPRING_CATALOG": database,
        "MAINSPRING_TRACKING": database,
        "MAINSPRING_LAKE": f"file://{tmp_path / 'lake'}",
        "MAINSPRING_BLOBS": f"file://{tmp_path / 'bundles'}",
    }


@pytest.fixture
def machines(depot: Depot, tmp_path: Path) -> tuple[Depot, Depot]:
    return depot, copied(depot.root, tmp_path / "another machine")


def at_once(machines: tuple[Depot, Depot], shared: Mapping[str, str], *arguments: object) -> list[tuple[int, str]]:
    """Start a command on both machines together; return how each ended and what it said."""
    with ThreadPoolExecutor() as pool:
        ran = pool.map(lambda each: each.run(*arguments, "--json", environment=shared, timeout_s=400), machines)
        return [(each.code, each.stdout or each.stderr) for each in ran]


@pytest.fixture
def opened(shared: dict[str, str]) -> Iterator[Callable[[Depot], Project]]:
    """Opens a machine's project in this process; closes each at the end."""
    made: list[Project] = []

    def open_one(machine: Depot) -> Project:
        made.append(open_project(load_settings(machine.root, environment=shared)))
        return made[-1]

    yield open_one
    for project in made:
        project.close()


def test_two_machines_land_train_and_promote_one_model_at_once(
    machines: tuple[Depot, Depot], shared: dict[str, str], opened: Callable[[Depot], Project]
) -> None:
    one, _ = machines
    for source in ("posted", "scans", "deliveries"):
        for code, said in at_once(machines, shared, "ingest", source, f"{source}.csv"):
            assert code == 0, said
    trained = at_once(machines, shared, "train", MODEL)
    assert [code for code, _ in trained] == [0, 0], trained
    assert sorted(json.loads(said)["version"] for _, said in trained) == ["1", "2"]
    promoted = at_once(machines, shared, "promote", MODEL)
    assert {code for code, _ in promoted} <= {0, 3}, promoted

    project = opened(one)
    versions = project.versions.all(MODEL)
    assert [each.version for each in versions] == ["2", "1"]
    for each in versions:
        assert project.bundles.load(each.digest).manifest.run_id == each.run_id
        assert project.tracking.get(each.run_id).status == "FINISHED"
    assert project.lake.describe("posted").rows == 900  # landed by both, and there once
    assert project.lake.describe("deliveries").rows == len((one.root / "deliveries.csv").read_text().splitlines()) - 1
    champion = project.versions.get(MODEL, "champion")
    assert len(project.versions.moves(MODEL, "champion")) in (1, 2)

    # One collects what is marked while the other takes the mark back and puts the version live.
    spare = next(each for each in versions if each.version != champion.version)
    curating.delete(project, f"{MODEL}:{spare.version}")
    with deed(machines[0], shared) as collector, deed(machines[1], shared) as promoter:
        tell(collector, "collect", f"{MODEL}:{spare.version}")
        tell(promoter, "promote", f"{MODEL}:{spare.version}")
        ends = [hear(collector), hear(promoter)]
    try:
        kept = project.versions.get(MODEL, spare.version)
    except NotFound:
        assert ends[1] != "done", ends
        assert project.versions.get(MODEL, "champion").version == champion.version
    else:
        project.bundles.load(kept.digest)
    project.bundles.load(project.versions.get(MODEL, "champion").digest)


@contextmanager
def deed(machine: Depot, shared: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that waits to be told to collect or to promote."""
    command, pipe = [prefork.programs() / "python", "-c", DEED], subprocess.PIPE
    environment = machine.environment | dict(shared)
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=machine.root, env=environment) as process:
        try:
            assert hear(process) == "ready"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], *words: str) -> None:
    assert process.stdin is not None
    process.stdin.write(" ".join(words) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_one_machine_holds_another_waits_for(
    machines: tuple[Depot, Depot], opened: Callable[[Depot], Project]
) -> None:
    here = opened(machines[0])
    with here.locks.hold("first-key"), here.own_locks.hold("up"):
        theirs = opened(machines[1])
        with theirs.own_locks.hold("up", wait_s=0):  # each machine may be up
            pass
        refused = pytest.raises(Exception, match=r"first-key is in use by mainspring process \d+ on")
        with refused, theirs.locks.hold("first-key", wait_s=0):
            pass
