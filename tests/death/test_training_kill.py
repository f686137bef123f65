"""kill -9 of a training at any moment: no half-registered version, all that is there loads, and the next one works."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from death.training_victim import project
from kit import prefork
from kit.bakery import Bakery
from kit.depth import examples
from mainspring.core.time import SystemClock
from mainspring.registry.runs import sweep

TESTS = Path(__file__).parents[1]
STAGES = ["pin the data", "read the features", "fit", "fit the baseline", "convert", "prove", "seal", "store"]


def victim(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        prefork.script(TESTS / "death" / "training_victim.py", state, *arguments),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=500,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    victim(folder, "ingest")
    return folder


def check_whole(bakery: Bakery) -> None:
    """Every version stands on a bundle that loads and a run that was finished; every blob is whole."""
    for version in bakery.versions.all():
        assert bakery.bundles.load(version.digest).manifest.run_id == version.run_id
        assert bakery.tracking.get(version.run_id).status == "FINISHED"
    for digest in bakery.blobs.all():
        bakery.bundles.load(digest)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_moment_is_a_bad_one(state: Path) -> None:
    moments = random.Random(os.environ.get("DEATH_SEED"))
    random_kills = [f"+{moments.uniform(0.0, 1.5):.3f}" for _ in range(examples(gate=1, deep=8))]
    first = f"+{moments.uniform(0.1, 1.2):.3f}"  # while the tracking store is being made
    stages = moments.sample(STAGES, examples(gate=2, deep=len(STAGES)))
    kills = [first, *(f"@{stage}" for stage in stages), *random_kills, "@done"]
    done = victim(state, "train", *kills, "-")
    codes = [line.rsplit(" ", 2)[1] for line in done.stderr.splitlines()]
    assert codes == ["-9"] * len(kills) + ["0"], done.stderr

    bakery = project(state)
    check_whole(bakery)
    runs = bakery.tracking.search()
    unfinished = {run.id for run in runs if run.status == "RUNNING"}
    assert len(unfinished) >= len(stages) - 1  # a run begins after the data is pinned
    assert set(sweep(bakery.tracking, SystemClock())) == unfinished
    assert {run.status for run in bakery.tracking.search()} == {"KILLED", "FINISHED"}

    # what was killed at its last word had registered a version; the one that was not killed comes after it
    newest, digest = done.stdout.split()
    assert bakery.versions.get("late-order", newest).digest == digest
    versions = bakery.versions.all("late-order")
    assert [version.version for version in versions] == [str(number) for number in range(len(versions), 0, -1)]
    assert int(newest) >= 2
