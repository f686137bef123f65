"""kill -9 of a backup and of a restore before their parts: what is left says what it is, and a repetition does all."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from kit import prefork
from kit.depth import DEEP
from kit.erased_shop import found_in, opened, planted, subject
from mainspring.core.errors import Conflict, Corrupt
from mainspring.operations.auditing import audit
from mainspring.operations.backup.archive import UNFINISHED
from mainspring.operations.backup.running import _blobs_of, backup, check_restore, restore
from mainspring.operations.subjects.erasing import erase

PARTS = range(5) if DEEP else (3,)  # of a restore: the file, the bundle, the catalog, keys, erasures
_VICTIM = Path(__file__).with_name("backup_victim.py")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shop that was set back to before an erasure, and has lost its catalog, with a backup of that time."""
    folder = tmp_path_factory.mktemp("shop")
    project = planted(folder)
    _blobs_of(project).put("a" * 64, {"model.onnx": b"weights"})
    _killed(folder, "backup", 2)  # before the bundle is written
    assert (folder / "monday.backup.unfinished").exists()
    assert not (folder / "monday.backup").exists()
    assert (folder / ".mainspring" / "backup.tmp" / "catalog.db").exists()
    assert [each.ok for each in check_restore(project)] == [False]
    opened(folder).close()
    assert not (folder / ".mainspring" / "backup.tmp").exists()
    with pytest.raises(Corrupt):
        restore(project, folder / f"monday.backup{UNFINISHED}")
    backup(project, folder / "monday.backup")
    assert not (folder / "monday.backup.unfinished").exists()
    shutil.copytree(project.settings.state / "lake", folder / "before")
    erase(project, [subject(project)])
    project.close()
    state = folder / ".mainspring"
    for path in [*state.glob("catalog.db*"), *state.glob("online.db*"), state / "bundles", state / "lake"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "before").rename(state / "lake")
    return folder


def _killed(folder: Path, command: str, part: int) -> None:
    done = subprocess.run(prefork.script(_VICTIM, command, folder, part), check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_restore_says_so_and_the_next_brings_nobody_back(shop: Path, tmp_path: Path, part: int) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    _killed(folder, "restore", part)
    refused = pytest.raises(Conflict, match=r"restoring\.json.*monday\.backup") if part else nullcontext()
    with refused:  # the file is read before anything is changed
        opened(folder).close()
    project = opened(folder, restores=True)
    assert bool(list(check_restore(project))) == (part > 0)
    if part == 3:
        audit(project, "train", "model/late")  # by another machine, which has the same catalog
    done = restore(project, folder / "monday.backup")
    assert (done.bundles, done.erased) == (1, 1)
    assert list(check_restore(project)) == []
    assert found_in(folder / ".mainspring") == []
    assert not (folder / ".mainspring" / "backup.tmp").exists()
