"""kill -9 of materialisations, at every step and at any moment: tiles and states are an undisturbed run's."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from kit.depth import deep, examples
from kit.load import REST_S
from kit.reach import within_reach
from kit.visits import KEYINGS, NOW, SHOPS, VIEW, VISITS, batch
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, MINUTE, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser

VICTIM = Path(__file__).parent / "materialise_victim.py"


def land(folder: Path, seeds: range, now: int) -> None:
    ingestor = Ingestor(DeltaLake(folder / "lake"), MemoryLocks(), ManualClock(now), load_rows=70)
    for seed in seeds:
        ingestor.ingest(VISITS, batch(seed, 120, now), keyings=KEYINGS)


def materialise(folder: Path, now: int) -> None:
    store = SqliteOnlineStore(folder / "online.db")
    Materialiser(DeltaLake(folder / "lake"), store, ManualClock(now)).run(VIEW, horizon=HOUR)
    store.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project before its first materialisation, one that has more to materialise, and one that has nothing."""
    first = tmp_path_factory.mktemp("kill") / "first"
    land(first, range(4), NOW)
    later = first.with_name("later")
    shutil.copytree(first, later)
    materialise(later, NOW)
    land(later, range(4, 6), NOW + 20 * MINUTE)
    rebuild = first.with_name("rebuild")
    shutil.copytree(later, rebuild)
    materialise(rebuild, NOW + 30 * MINUTE)
    return {"first": first, "later": later, "rebuild": rebuild}


def victim(*arguments: str) -> list[dict[str, Any]]:
    return prefork.documents(VICTIM, *arguments)


def same(trials: list[dict[str, Any]]) -> None:
    found = [{name: value for name, value in trial.items() if name != "killed"} for trial in trials]
    assert found.count(found[-1]) == len(found), [trial for trial in trials if trial != trials[-1]][:2]
    assert int(found[-1]["rows"]) > 100
    assert found[-1]["views"] == repr([slot(VIEW)])


@pytest.mark.parametrize(
    ("scenario", "steps"), examples(gate=[("later", 4)], deep=[("first", 6), ("later", 4), ("rebuild", 5)])
)
def test_killed_at_every_step_the_replay_leaves_the_same(folders: dict[str, Path], scenario: str, steps: int) -> None:
    trials = victim("steps", str(folders[scenario]), scenario)
    assert [trial["killed"] for trial in trials] == [True] * (len(trials) - 1) + [False]
    assert len(trials) > steps
    same(trials)


@deep
def test_killed_at_any_moment_the_replay_leaves_the_same(folders: dict[str, Path]) -> None:
    # A fast machine is done before most of these moments: then others are drawn, of half the time.
    longest, trials = 0.6, list[dict[str, Any]]()
    while sum(trial["killed"] for trial in trials) < 3:
        moments = [f"{random.random() * longest:.3f}" for _ in range(examples(gate=4, deep=8))]
        trials += victim("moments", str(folders["first"]), "first", *moments, "100")
        longest /= 2
    same(trials)


def lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    yield from (line.strip() for line in child.stdout)


def start(what: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen([sys.executable, str(VICTIM), what, str(folder), *arguments], env=environment, text=True,
                            stdout=subprocess.PIPE)  # fmt: skip


def test_a_backfill_beside_a_worker_loses_nothing_and_counts_nothing_twice(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Rebuilds run, and are killed, while a worker lands and materialises; a reader sees every entity at all times."""
    folder = tmp_path / "both"
    shutil.copytree(folders["first"], folder)
    worker = start("work", folder, str(examples(gate=5, deep=25)))
    said = lines(worker)
    assert next(said) == "materialised"
    store = SqliteOnlineStore(folder / "online.db")
    wanted = [(slot(VIEW), encode_key([shop])) for shop in SHOPS]
    there = [state is not None for state in store.read(wanted)]
    seen: list[str] = []
    done = threading.Event()

    def read() -> None:
        newest = [0] * len(wanted)
        while not done.is_set():
            for place, state in enumerate(store.read(wanted)):
                if there[place] and state is None:
                    seen.append(f"{SHOPS[place]} was missing")
                elif state is not None and state.position < newest[place] - HOUR:
                    seen.append(f"{SHOPS[place]} went back by {newest[place] - state.position}")
                elif state is not None:
                    newest[place] = max(newest[place], state.position)
            done.wait(REST_S)

    reader = threading.Thread(target=read)
    reader.start()
    swapped = killed = 0
    try:
        while worker.poll() is None:
            rebuilder = start("rebuild", folder)
            for line in lines(rebuilder):
                swapped += line == "swapped"
                if worker.poll() is not None or line == "swapped" or random.random() < 0.3:
                    break
            rebuilder.send_signal(signal.SIGKILL)
            rebuilder.communicate(timeout=60)
            killed += 1
            if killed > 1 and swapped:
                (folder / "enough").touch()
    finally:
        rest, _ = worker.communicate(timeout=400)
        done.set()
        reader.join()
    assert worker.returncode == 0
    assert "done" in rest
    assert killed > 1
    assert swapped
    assert seen == []
    # Once more, by nobody in particular, and as one undisturbed run over everything leaves it.
    now = int((folder / "now").read_text())
    lake, whole = DeltaLake(folder / "lake"), MemoryOnlineStore()
    Materialiser(lake, store, ManualClock(now)).run(VIEW, horizon=HOUR)
    Materialiser(lake, whole, ManualClock(now)).run(VIEW, horizon=HOUR)
    mine, fresh = store.read(wanted), whole.read(wanted)
    store.close()
    for left, right in zip(mine, fresh, strict=True):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            assert within_reach(left.payload, VIEW, now) == within_reach(right.payload, VIEW, now)
