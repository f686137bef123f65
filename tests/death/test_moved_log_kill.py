"""What the end of a pod costs its prediction log: all is in the lake, or the catalog tells that it is not.

A pod here is a state folder with a mover of its own; catalog and lake are elsewhere, as servers are. It ends by
SIGTERM, with the lake away or not, or by SIGKILL, and then its folder is removed.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kit.depth import examples
from kit.waiting import wait_until
from mainspring.core.time import MINUTE
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import unread
from mainspring.ledger.conformance import prediction
from mainspring.ledger.moved_logs import MovedLog, lost
from mainspring.operations.doctor import examine
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

pytestmark = pytest.mark.slow


class Place:
    """A project whose pods have state folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self._names = root, map("pod-{}".format, itertools.count())
        (root / "mainspring.toml").write_text('name = "shop"\n')
        self.project: Project = open_project(load_settings(root, environment={}))
        _ = self.project.moved_logs.all()
        self.lake = self.project.settings.lake.path

    def stored(self) -> set[str]:
        with closing(open_project(load_settings(self.root, environment={}))) as project:
            return {each.id for each in project.predictions.recent(limit=100_000)}

    def lost(self) -> list[MovedLog]:
        """Return the logs that are told to be lost, once their movers were silent for long."""
        return lost(self.project.moved_logs.all(), self.project.wall.now() + 3 * MINUTE)

    @contextmanager
    def pod(self, state: Path | None = None) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
        """Run the mover of a pod; its log is written by the test."""
        state = state or self.root.parent / next(self._names)
        inner = {"CATALOG": self.project.settings.catalog.text, "LAKE": str(self.lake), "STATE": str(state)}
        environment = {**os.environ, **{f"MAINSPRING_{name}": value for name, value in inner.items()}}
        command = [sys.executable, "-m", "mainspring.processes.prediction_log", "--project", str(self.root)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until((state / "log.id").exists, "the mover")
                yield state, process
            finally:
                process.kill()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "project").mkdir()
    found = Place(tmp_path / "project")
    yield found
    found.project.close()


def test_predictions_that_are_left_at_the_end_are_counted_and_moved_by_the_next_start(place: Place) -> None:
    with place.pod() as (state, process):
        log = SegmentLog(state / "ledger")
        log.append([prediction(number) for number in range(5)])
        wait_until(lambda: len(place.stored()) == 5, "the first ones in the lake")
        wait_until(lambda: not [*unread(state / "ledger")], "the end of that move")
        away = place.lake.with_name("away")
        place.lake.rename(away)
        place.lake.write_text("a disk that is not mounted")
        log.append([prediction(number) for number in range(5, 12)])
        log.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    [told] = place.project.moved_logs.all()
    assert (told.ended, told.waiting) == (True, 7)
    place.lake.unlink()
    away.rename(place.lake)
    [found] = [each for each in examine(place.project, "predictions") if not each.ok]
    assert "it had 7 predictions that the lake has not" in found.detail
    with place.pod(state) as (_, process):
        wait_until(lambda: len(place.stored()) == 12, "the rest in the lake")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert place.project.moved_logs.all() == []


def test_whatever_a_killed_pod_takes_with_it_is_told(place: Place) -> None:
    chance, written = random.Random(3), set[str]()
    for _ in range(examples(gate=2, deep=12)):
        with place.pod() as (state, process):
            wait_until(place.project.moved_logs.all, "its first word")
            log = SegmentLog(state / "ledger")
            until = time.monotonic() + chance.uniform(0.0, examples(gate=2.5, deep=13.0))
            while time.monotonic() < until:
                made = prediction(len(written))
                log.append([made])
                written.add(made.id)
                time.sleep(0.01)
            clean = chance.random() < 0.3
            process.send_signal(signal.SIGTERM if clean else signal.SIGKILL)
            assert (process.wait(60) == 0) is clean
            log.close()
            shutil.rmtree(state)
    missing, told = written - place.stored(), place.lost()
    assert not missing or told, "nothing is lost silently"
    assert sum(each.waiting for each in told) <= len(written)
    assert place.stored() <= written
