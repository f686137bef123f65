"""Blobs in a folder: private, whole or absent, and nothing but plain files."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mainspring.core.errors import Corrupt
from mainspring.registry.adapters.folder import FolderBlobs

A = "a" * 64


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_only_the_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    FolderBlobs(folder).put(A, {"x": b"1"})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {0o700, 0o600}


def test_nothing_is_left_beside_a_blob(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put(A, {"x": b"1"})
    blobs.delete(A)
    blobs.put(A, {"x": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == [A]


def test_what_a_killed_writer_left_is_no_blob(tmp_path: Path) -> None:
    (tmp_path / f".partial-{A}-1").mkdir()
    (tmp_path / f".partial-{A}-1" / "x").write_bytes(b"half")
    blobs = FolderBlobs(tmp_path)
    assert blobs.all() == []
    blobs.put(A, {"x": b"whole"})
    assert dict(blobs.get(A)) == {"x": b"whole"}
    assert [path.name for path in tmp_path.iterdir()] == [A]


def test_what_a_living_writer_is_making_is_left_alone(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    with blobs._folder_beside(A) as beside:
        (beside / "x").write_bytes(b"half")
        blobs.put("b" * 64, {"x": b"1"})
        assert (beside / "x").read_bytes() == b"half"
    assert not beside.exists()


def test_no_space_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands for a full disk; it needs a process of its own."""
    script = f"""
import resource, signal
from pathlib import Path
from mainspring.core.errors import StorageFull
from mainspring.registry.adapters.folder import FolderBlobs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    FolderBlobs(Path({str(tmp_path)!r})).put({A!r}, {{"a": b"1", "b": b"2" * 5000}})
except StorageFull as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "No space left" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_corrupt_not_a_crash(tmp_path: Path) -> None:
    FolderBlobs(tmp_path).put(A, {"x": b"1"})
    (tmp_path / A / "x").unlink()
    (tmp_path / A / "x").symlink_to("/nonexistent")
    with pytest.raises(Corrupt, match=r"'x'.*not a plain file"):
        FolderBlobs(tmp_path).get(A)
