"""kill -9 of a restore at each of its steps: no commit ever names half of it, and running it again does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.errors import Conflict
from mainspring.core.locks import FileLocks
from mainspring.core.schema import Int64
from mainspring.core.time import ManualClock
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.commits import commit, vacuum
from mainspring.data.ingest import Ingestor
from mainspring.data.model import DatasetCommit, Source, not_null
from mainspring.data.restore import restore

SOURCES = [
    Source(f"facts{number}", schema={"value": Int64}, event_time="at", checks=[not_null("value")])
    for number in range(2)
]
STEPS = ("restore", "tag", "untag", "add")  # of the lake and of the snapshots
# For each line of its input a child restores, and dies before the step of this number.
VICTIM = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from death.test_restore_kill import Place, dying

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        Place(Path(sys.argv[1]), dying(int(line))).restore(sys.argv[2])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def dying(number: int) -> Callable[[], None]:
    """Return what kills this process when it is called for the time of this number."""
    left = iter(range(number))

    def step() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


class Stepping:
    """A lake or snapshots, before each change of which a function is called."""

    def __init__(self, inner: Any, step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        if name in STEPS:
            self._step()
        return getattr(self._inner, name)


class Place:
    def __init__(self, folder: Path, step: Callable[[], None] = lambda: None) -> None:
        self.lake: Any = Stepping(DeltaLake(folder / "lake"), step)
        self.locks = FileLocks(folder / "locks")
        self.engine = open_engine(f"sqlite:///{folder}/catalog.db")
        metadata.create_all(self.engine)
        self.snapshots: Any = Stepping(CatalogSnapshots(self.engine), step)
        self.clock = ManualClock(1)

    def land(self, batch: int) -> None:
        ingestor = Ingestor(self.lake, self.locks, self.clock)
        for source in SOURCES:
            rows = [{"at": 0, "value": number if number % 5 else None} for number in range(batch, batch + 10)]
            ingestor.ingest(source, rows, keyings={}, batch_id=f"{batch}")

    def commit(self) -> DatasetCommit:
        return commit(self.lake, self.snapshots, self.clock)

    def restore(self, name: str) -> None:
        restore(self.lake, self.snapshots, self.locks, self.clock, name)

    def rows(self) -> list[int]:
        return [self.lake.describe(table).rows for table in self.lake.tables()]


def test_a_killed_restore_is_run_again_and_nobody_named_half_of_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.land(0)
    then = place.commit()
    few = place.rows()
    command = [
        prefork.programs() / "python",
        "-c",
        VICTIM.format(tests=str(Path(__file__).parent.parent)),
        str(tmp_path),
        then.id,
    ]
    refused = step = code = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None
        while step == 0 or code:
            place.land((step + 1) * 100)
            many = place.rows()
            victim.stdin.write(f"{step}\n")
            victim.stdin.flush()
            code = int(victim.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            if place.snapshots.tags():
                refused += 1
                with pytest.raises(Conflict) as caught:
                    place.commit()
                assert f"mainspring data restore {then.id}" in str(caught.value.fix)
            else:
                place.commit()
                assert place.rows() in (few, many)
            vacuum(place.lake, place.snapshots)
            place.restore(then.id)
            assert place.rows() == few
            assert place.snapshots.tags() == {}
            assert dict(place.commit().versions) == {table: place.lake.version(table) for table in place.lake.tables()}
            # What was taken back can be landed again.
            place.land((step + 1) * 100)
            assert place.rows() == many
            place.restore(then.id)
            step += 1
    assert step > len(few) + 4  # each table, the tag and its end, two commits
    assert refused > len(few)
    place.engine.dispose()
