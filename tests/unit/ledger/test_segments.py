"""The segment log: files, rotation, a full disk."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mainspring.core.errors import MainspringError
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

log = SegmentLog(Path(sys.argv[1]))
log.append([prediction(1)])
(path,) = Path(sys.argv[1]).glob("*.segment")
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    log.append([prediction(2)])
except StorageFull as error:
    print("refused", path.stat().st_size - size, str(path.parent) in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append([prediction(3)])
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


def test_a_full_disk_refuses_the_batch_whole_and_the_log_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["refused", "0", "True"]
    assert ids(tmp_path) == ["p1", "p3"]


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
