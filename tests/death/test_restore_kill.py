"""kill -9 of a restore at random moments: no commit ever names half of it, and running it again does the rest."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    for number in range(6)
]
CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from death.test_restore_kill import Place

place = Place(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
place.restore(sys.argv[2])
print("done", flush=True)
"""


class Place:
    def __init__(self, folder: Path) -> None:
        self.lake = DeltaLake(folder / "lake")
        self.locks = FileLocks(folder / "locks")
        self.engine = open_engine(f"sqlite:///{folder}/catalog.db")
        metadata.create_all(self.engine)
        self.snapshots = CatalogSnapshots(self.engine)
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
    chance = random.Random()
    killed = refused = 0
    for number in range(1, 30):
        place.land(number * 100)
        many = place.rows()
        program = CHILD.format(tests=str(Path(__file__).parent.parent))
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), then.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(chance.random() * 0.6)  # any moment will do
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        killed += child.returncode == -signal.SIGKILL
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
        place.land(number * 100)
        assert place.rows() == many
        place.restore(then.id)
        if killed >= 4 and refused:
            break
    assert killed
    assert refused, "no kill came in the middle"
