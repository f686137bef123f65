"""The segment log: files, rotation, a full disk."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mainspring.core.errors import MainspringError, Unavailable
from mainspring.core.ids import check_id
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import segments, unread
from mainspring.ledger.conformance import batch, prediction

FULL_DISK = """
import resource, sys
from pathlib import Path
from mainspring.core.errors import StorageFull
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import batch, prediction

def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

folder = Path(sys.argv[1])
if sys.argv[2] == "from the start":
    room(0)
log = SegmentLog(folder)
if sys.argv[2] == "later":
    log.append([prediction(1)])
    room(next(folder.glob("*.segment")).stat().st_size + 100)
before = {path: path.stat().st_size for path in folder.glob("*.segment")}
log.add(batch(10, 2))
failed = log.add(batch(20, 1), sync=True).exception(60)
print("sync", type(failed).__name__, str(folder) in str(failed))
try:
    log.append([prediction(2)])
except StorageFull as error:
    print("refused", str(folder) in str(error))
log.add(batch(30, 1, 3))
try:
    log.append([prediction(3)])
except StorageFull as error:
    print("refused", str(folder) in str(error))
print("unlogged", dict(log.unlogged))
print("cut", {path: path.stat().st_size for path in folder.glob("*.segment")} == before, list(folder.glob("*.new")))
room(resource.RLIM_INFINITY)
log.add(batch(40, 1), sync=True).result(60)
log.append([prediction(4)])
log.close()
"""


def ids(folder: Path) -> list[str]:
    return sorted(each.id for each in unread(folder))


def test_what_append_returned_from_is_in_the_file(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.append([prediction(1), prediction(2)])
    assert list(unread(tmp_path)) == [prediction(1), prediction(2)]
    log.close()


def test_a_full_segment_gives_way_to_another(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, max_bytes=1_200)
    for number in range(12):
        log.append([prediction(number)])
    log.add(batch(100, 1), sync=True).result(60)  # which also closes the segments that are full
    found = segments(tmp_path)
    assert len(found) > 2
    assert sum(segment.live() for segment in found) == 1
    log.close()
    assert not any(segment.live() for segment in segments(tmp_path))
    assert ids(tmp_path) == sorted(["p100", *(f"p{number}" for number in range(12))])


def test_an_old_segment_gives_way_to_another(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, max_age_s=0.0)
    log.append([prediction(1)])
    log.append([prediction(2)])
    log.close()
    assert len(segments(tmp_path)) == 3
    assert ids(tmp_path) == ["p1", "p2"]


def test_every_file_is_private_and_named_by_an_id_of_ours(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path / "deep" / "ledger")
    (path,) = (tmp_path / "deep" / "ledger").iterdir()
    assert check_id(path.stem, "segment") == path.stem
    assert len(path.stem) == 26
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    log.close()


@pytest.mark.parametrize(("full", "before"), [("later", ["p1"]), ("from the start", [])])
def test_a_full_disk_refuses_who_waits_counts_the_rest_and_is_over_when_room_returns(
    tmp_path: Path, full: str, before: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), full], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == [
        "sync StorageFull True",
        "refused True",
        "refused True",
        "unlogged {('late', 'disk_full'): 6}",
        "cut True []",
    ]
    assert done.stderr.count("Predictions are not logged") == 1  # said once, not with every write
    assert "Predictions are logged again" in done.stderr
    assert ids(tmp_path) == sorted([*before, "p4", "p40"])


class BrokenDisk(SegmentLog):
    """A log whose first sync fails, when it is allowed to."""

    def __init__(self, folder: Path) -> None:
        self.fails = threading.Event()
        super().__init__(folder)

    def _sync(self, descriptors: Sequence[int]) -> MainspringError | None:
        if self.fails.is_set():
            self.fails.clear()
            return Unavailable("the disk is broken")
        return super()._sync(descriptors)


def test_a_sync_that_fails_is_told_and_the_next_goes_to_another_segment(tmp_path: Path) -> None:
    log = BrokenDisk(tmp_path)
    log.add(batch(1, 1), sync=True).result(60)
    log.fails.set()
    with pytest.raises(Unavailable, match="broken"):
        log.add(batch(2, 1), sync=True).result(60)
    log.add(batch(3, 1), sync=True).result(60)
    assert len(segments(tmp_path)) == 2
    log.close()


def test_who_wait_at_once_share_a_sync(tmp_path: Path) -> None:
    syncs: list[int] = []

    class Counting(SegmentLog):
        def _sync(self, descriptors: Sequence[int]) -> MainspringError | None:
            syncs.append(len(descriptors))
            return super()._sync(descriptors)

    log = Counting(tmp_path)
    waiting = [log.add(batch(number, 1), sync=True) for number in range(500)]
    for each in waiting:
        each.result(60)
    assert len(syncs) < 250
    log.close()


def test_nobody_can_cancel_what_others_wait_for(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    one, other = (log.add(batch(number, 1), sync=True) for number in (1, 2))
    assert not one.cancel()
    assert other.result(60) is None
    log.close()


def test_a_buffer_that_is_full_drops_and_counts_or_refuses(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, max_buffer_bytes=0)
    assert log.add(batch(1, 3)) is None
    assert dict(log.unlogged) == {("late", "buffer_full"): 3}
    with pytest.raises(Unavailable):
        log.add(batch(1, 1), sync=True).result(60)
    log.close()


def test_threads_share_a_log(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, max_bytes=5_000)
    threads = [
        threading.Thread(target=lambda first=first: [log.append([prediction(first + n)]) for n in range(25)])
        for first in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert ids(tmp_path) == sorted(f"p{first + n}" for first in (0, 100, 200) for n in range(25))


def test_a_closed_log_refuses_and_closes_again_quietly(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.close()
    log.close()
    with pytest.raises(MainspringError, match="closed"):
        log.append([prediction(1)])
    with pytest.raises(MainspringError, match="closed"):
        log.add(batch(1, 1), sync=True).result(60)
    assert log.add(batch(1, 2)) is None
    assert dict(log.unlogged) == {("late", "closed"): 2}


def test_a_log_that_nobody_closes_is_whole_when_the_process_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from mainspring.ledger.adapters.segments import SegmentLog\n"
        "from mainspring.ledger.conformance import batch\n"
        "SegmentLog(Path(sys.argv[1]), flush_within_s=60.0).add(batch(1, 2))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    assert ids(tmp_path) == ["p1", "p2"]
