import errno
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.full_disk import room
from mainspring.core.errors import StorageFull
from mainspring.core.files import disk_errors, sync_folder, write_atomic, write_many, write_once


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_content_is_there_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(path.parent) == {"file"}


def test_what_is_written_once_stays_as_the_first_writer_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    writers = [threading.Thread(target=write_once, args=(path, bytes([number]) * 4096)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    first = path.read_bytes()
    write_once(path, b"later")
    assert path.read_bytes() == first == first[:1] * 4096
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(path.parent) == {"file"}


def test_a_mode_can_be_asked_for(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"", mode=0o400)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o400


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(StorageFull, match=str(path)):
            write_atomic(path, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_to_be_full_is_named(number: int) -> None:
    with pytest.raises(StorageFull, match="No space left for the lake"), disk_errors("the lake"):
        raise OSError(number, "full")


def test_other_errors_pass() -> None:
    with pytest.raises(PermissionError), disk_errors("the lake"):
        raise PermissionError(errno.EACCES, "no")


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([number]) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == {"file"}


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    program = f"""
import os, signal
from pathlib import Path
from mainspring.core import files
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomic(Path({str(path)!r}), b"new")
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_many_files_are_there_as_they_were_given_and_private(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    old = tmp_path / "0" / "0"
    old.write_bytes(b"old")
    paths = [tmp_path / str(each % 3) / "in" / str(each) if each else old for each in range(600)]
    write_many((path, [path.name.encode(), b"!" * int(path.name)]) for path in paths)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {
        path: path.name.encode() + b"!" * int(path.name) for path in paths
    }
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    write_many([])


def test_of_many_files_none_is_there_after_one_that_cannot_be_written(tmp_path: Path) -> None:
    def parts(number: int) -> Iterator[bytes]:
        yield b"x" * 100
        if number == 300:
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        write_many((tmp_path / str(number), parts(number)) for number in range(900))
    assert {int(each) for each in names(tmp_path)} == {*range(256)}, "those that were synced together before it"
    with room(50), pytest.raises(StorageFull, match="full"):
        write_many([(tmp_path / "full" / "one", [b"x" * 100])])
    assert names(tmp_path / "full") == set()


def test_of_many_files_a_killed_writer_leaves_the_first(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from mainspring.core import files
renamed = []
replace = Path.replace
def counted(path, to):
    renamed.append(to)
    if len(renamed) == 300:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, to)
Path.replace = counted
files.write_many((Path({str(tmp_path)!r}) / str(number), [b"whole"] * 9) for number in range(900))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert there == {str(number): b"whole" * 9 for number in range(299)}


def test_a_folder_can_be_made_durable(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
