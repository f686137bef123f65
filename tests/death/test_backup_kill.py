"""kill -9 of a backup and of a restore before their parts: what is left says what it is, and a repetition does all."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from kit import prefork
from kit.depth import DEEP
from kit.erased_shop import found_in, opened, planted, subject
from mainspring.core.errors import Conflict, NotFound
from mainspring.operations.auditing import audit
from mainspring.operations.backup.making import backup, stored_blobs
from mainspring.operations.backup.restoring import check_restore, restore
from mainspring.operations.backup.verifying import verify
from mainspring.operations.subjects.erasing import erase
from mainspring.project import Project

DIGEST = "a" * 64
_VICTIM = Path(__file__).with_name("backup_victim.py")


def _parts(project: Project, run: Callable[..., object], at: Path) -> list[str]:
    """Return the parts of a backup or a restore, in their order."""
    found = list[str]()
    run(project, str(at), told=found.append)
    return found


def _picked(parts: list[str], *wanted: str) -> list[int]:
    """Return the numbers of the parts before which to kill."""
    return [*range(len(parts))] if DEEP else [parts.index(each) for each in wanted]


@pytest.fixture(scope="module")
def planted_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shop with something in every store."""
    folder = tmp_path_factory.mktemp("planted")
    project = planted(folder)
    stored_blobs(project).put(DIGEST, {"model.onnx": random.Random(1).randbytes(5 << 20)})
    project.close()
    return folder


@pytest.fixture(scope="module")
def shop(planted_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shop that has lost all but its keys, with a backup from before an erasure."""
    folder = tmp_path_factory.mktemp("lost") / "shop"
    shutil.copytree(planted_shop, folder)
    project = opened(folder)
    backup(project, str(folder / "backups"))
    erase(project, [subject(project)])
    project.close()
    for path in [each for each in (folder / ".mainspring").iterdir() if each.name != "keys"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def _killed(folder: Path, command: str, part: int) -> None:
    done = subprocess.run(prefork.script(_VICTIM, command, folder, part), check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_backup_is_none_and_the_next_writes_only_the_rest(planted_shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(planted_shop, folder)
    project, at = opened(folder), folder / "backups"
    parts = _parts(project, backup, tmp_path / "elsewhere")
    for part in _picked(parts, "files/artefacts"):
        _killed(folder, "backup", part)
        assert not [*at.glob("points/*")]
        assert (folder / ".mainspring" / "backup.tmp").exists()
        assert [each.ok for each in check_restore(project)] == [False]
        opened(folder).close()
        assert not (folder / ".mainspring" / "backup.tmp").exists()
    with pytest.raises(NotFound, match="has no backup"):
        restore(project, str(at))
    there = {each: each.stat().st_mtime_ns for each in (at / "pieces").rglob("*") if each.is_file()}
    (at / "pieces" / "00").mkdir(exist_ok=True)
    (at / "pieces" / "00" / ".x.partial").write_bytes(b"of a writer that was killed")
    made = backup(project, str(at), keep_us=1)
    assert sum(each.stat().st_size for each in there) > 10 * made.new_bytes, "the bundle was there"
    assert not [*at.rglob("*.partial")]
    found = verify(project, str(at))
    assert (found.backups, found.damage, found.unused) == (1, [], 0)
    assert {each: each.stat().st_mtime_ns for each in there if each.exists()}.items() <= there.items()


def test_a_killed_restore_says_so_and_the_next_brings_nobody_back(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop, tmp_path / "whole")
    parts = _parts(opened(tmp_path / "whole"), restore, tmp_path / "whole" / "backups")
    assert parts[-3:] == ["catalog.db", "keys", "erasures"]
    for part in _picked(parts, "lake/predictions", "keys"):
        folder = tmp_path / f"shop{part}"
        shutil.copytree(shop, folder)
        _killed(folder, "restore", part)
        refused = pytest.raises(Conflict, match=r"restoring\.json.*backups") if part else nullcontext()
        with refused:  # the backup is read before anything is changed
            opened(folder).close()
        project = opened(folder, restores=True)
        assert bool(list(check_restore(project))) == (part > 0)
        if parts[part] == "keys":
            audit(project, "train", "model/late")  # by another machine, which has the same catalog
        else:
            backup_again(project, folder, part)
        done = restore(project, str(folder / "backups"))
        assert (done.erased, done.missing, done.kept) == (1, done.missing, [])
        counts = {each.what: (each.equal, each.of) for each in done.equality}
        assert all(equal == of for what, (equal, of) in counts.items() if what != "rows of the catalog")
        assert list(check_restore(project)) == []
        assert found_in(folder / ".mainspring") == []
        assert not (folder / ".mainspring" / "backup.tmp").exists()


def backup_again(project: Project, folder: Path, part: int) -> None:
    """Make it certain that a later backup is not taken to finish an earlier restore."""
    if part:
        for each in sorted((folder / "backups" / "points").iterdir()):
            later = each.with_name(f"1{each.name[1:-1]}{'1' if each.name.endswith('0') else '0'}")
            shutil.copy(each, later)  # a later point, which does not open
        assert project.settings.state.joinpath("restoring.json").exists()
