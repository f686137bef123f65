"""Backups: what a thief of one has, what is restored from one, and that the erased stay erased."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kit.depth import DEEP, deep
from kit.erased_shop import ANA, BEN, HOSTILE, customers, found_in, ingest, opened, planted, rows, subject, write
from kit.full_disk import room
from kit.servers import PostgresServer
from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound, StorageFull
from mainspring.operations.auditing import audit, verify_audit
from mainspring.operations.backup.making import backup, stored_blobs
from mainspring.operations.backup.restoring import restore
from mainspring.operations.subjects import holding
from mainspring.operations.subjects.erasing import erase
from mainspring.project import Project
from mainspring.project.restoring import Restoring, end_restoring, read_restoring, write_restoring
from mainspring.security.model import AuditFilter

DIGEST, OTHER, GONE = "a" * 64, "b" * 64, "c" * 64
FILES = {"manifest.json": b"{}", "model.onnx": b"weights" * 300_000}


def _lost(project: Project) -> None:
    """Lose all but keys."""
    state = project.settings.state
    for path in [each for each in state.iterdir() if each.name != "keys"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _backed_up(folder: Path, **settings: Any) -> tuple[Project, Path]:
    """Return a shop, of which there is a backup from before an erasure."""
    project = planted(folder, **settings)
    stored_blobs(project).put(DIGEST, FILES)
    to = folder / "backups"
    made = backup(project, str(to))
    assert (made.bundles, made.tables) == (1, len(project.lake.tables()))
    return project, to


def test_a_backup_lies_outside_of_the_state_folder_however_that_is_written(tmp_path: Path) -> None:
    project = planted(tmp_path)
    state = project.settings.state
    for inside in (state / "backups", tmp_path / "a" / ".." / state.name / "backups"):
        with pytest.raises(Invalid, match="would be lost with it"):
            backup(project, str(inside))
    assert backup(project, str(state / ".." / "backups")).repository == str(tmp_path.resolve() / "backups")


def test_a_restored_backup_is_the_project_without_those_who_were_erased_since(tmp_path: Path) -> None:
    project, path = _backed_up(tmp_path)
    assert found_in(tmp_path / ".mainspring" / "lake") != []
    assert not [each for each in found_in(tmp_path) if each.startswith("backups")]
    for each in path.rglob("*"):
        assert each.stat().st_mode & 0o777 == (0o700 if each.is_dir() else 0o600)
        assert each.is_dir() or b"weights" not in each.read_bytes()
    kept = [each.id for each in project.snapshots.log()]
    before = project.wall.now()
    erase(project, [subject(project)])
    backup(project, str(path))
    with pytest.raises(Conflict, match="catalog"):
        restore(project, str(path))
    project.close()
    assert read_restoring(project.settings.state) is None
    _lost(project)
    (tmp_path / ".mainspring" / "keys" / "erased").rename(tmp_path / "erased")
    project = opened(tmp_path)
    assert restore(project, str(path)).erased == 0
    assert found_in(tmp_path / ".mainspring") == [], "a backup that was made after an erasure has nothing of it"
    project.close()
    _lost(project)
    (tmp_path / "erased").rename(tmp_path / ".mainspring" / "keys" / "erased")

    project = opened(tmp_path)
    done = restore(project, str(path), at=before)
    assert (done.differences, done.erased) == ([], 1)
    assert [each.partition(" ")[0] for each in done.missing]  # the repeated erasure removes older versions
    assert found_in(tmp_path / ".mainspring") == []
    assert customers(project) == sorted({BEN, *HOSTILE})
    assert project.subject_keys.erased([subject(project).name, subject(project, BEN).name]) == [True, False]
    assert [each.id for each in project.snapshots.log()] == kept
    assert {each: stored_blobs(project).get(DIGEST)[each] for each in FILES} == FILES
    assert read_restoring(project.settings.state) is None
    assert "backup.restore" in {each.action for each in project.audit.read(5)}
    assert {each.id for each in project.predictions.recent()} == {"clear1", "clear2", "sealed1", "late1"}


def test_whoever_is_the_first_to_be_erased_after_a_backup_stays_erased(tmp_path: Path) -> None:
    write(tmp_path)
    project, path = opened(tmp_path), tmp_path / "backups"  # no value is under a subject's key yet
    ingest(project, tmp_path, *rows(ANA, "", [1.0]), *rows(BEN, "", [2.0]))
    backup(project, str(path))
    erase(project, [subject(project)])
    project.close()
    _lost(project)
    project = opened(tmp_path)
    assert restore(project, str(path)).erased == 1
    assert customers(project) == [BEN]


def _without_catalog(project: Project, **settings: Any) -> Project:
    """Return the project opened again, whose catalog is lost and whose lake is not."""
    project.close()
    for path in project.settings.state.glob("catalog.db*"):
        path.unlink()
    return opened(project.settings.root, **settings)


def test_a_catalog_restored_beside_its_lake_has_no_byte_of_who_was_erased_since(tmp_path: Path) -> None:
    write(tmp_path)
    project, path = opened(tmp_path), tmp_path / "backups"
    ana, ben = subject(project), subject(project, BEN)
    names = project.subject_keys.digests([ana.name, ben.name])
    holding.hold(project, [ana, ben], "a case")
    audit(project, "features.reveal", "view/Spending", subject=ana.former_name)  # of a former version
    project.subject_keys.keys([ana.name, ben.name])
    wrapped = [key.wrapped for key in project._subject_key_store.find(names) if key is not None]
    backup(project, str(path))
    holding.release(project, [ana])
    erase(project, [ana])
    project = _without_catalog(project)
    done = restore(project, str(path))
    assert (done.erased, done.held) == (0, 0)  # rows of nobody are back
    assert [each.subject for each in project.erasures.holds()] == names[1:]
    assert project.subject_keys.erased([ana.name, ben.name]) == [True, False]
    mine, bens = (re.compile(b"|".join(map(re.escape, each))) for each in ((ANA.encode(), wrapped[0]), wrapped[1:]))
    assert found_in(tmp_path / ".mainspring", [mine]) == []
    assert [each.partition("-")[0] for each in found_in(tmp_path / ".mainspring", [bens])] == ["catalog.db"]
    assert verify_audit(project).damage == ()


def test_a_hold_keeps_its_subject_alone_from_being_erased_again(tmp_path: Path) -> None:
    write(tmp_path)
    project, path = opened(tmp_path), tmp_path / "backups"
    ana, ben = subject(project), subject(project, BEN)
    erase(project, [ana, ben])
    ingest(project, tmp_path, *rows(ANA, "", [1.0]), *rows(BEN, "", [2.0]))
    holding.hold(project, [ana], "rows that came later")
    backup(project, str(path))
    project = _without_catalog(project)
    done = restore(project, str(path))
    assert (done.erased, done.held) == (1, 1)
    assert customers(project) == [ANA]
    assert [each.event.subject for each in project.audit.search(AuditFilter(action="subject.hold"))] == [ana.name]


def test_what_is_in_the_way_is_named_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path)
    project, path, runs = opened(tmp_path), tmp_path / "backups", tmp_path / "runs.db"
    for digest in (DIGEST, OTHER):
        stored_blobs(project).put(digest, {"model.onnx": b"weights"})
    audit(project, "train", "model/late")
    stored_blobs(project).put(GONE, {"model.onnx": b"weights"})
    parts = list[str]()

    def told(part: str) -> None:
        parts.append(part)
        if part.startswith("bundle"):
            stored_blobs(project).delete(GONE)  # by `models gc`, after it was listed

    made = backup(project, str(path), told=told)
    assert parts[:2] == ["catalog.db", "tracking.db"], "a version that the catalog names was registered before"
    state = project.settings.state
    write_restoring(state, Restoring(str(path), made.id, "prod", copied=True))
    with pytest.raises(Conflict, match="--profile prod"):
        restore(project, str(path))
    end_restoring(state)
    project = _without_catalog(project, tracking=f"sqlite:///{runs}")
    (state / "bundles" / DIGEST / "model.onnx").write_bytes(b"changed")
    shutil.rmtree(state / "bundles" / OTHER)
    with closing(sqlite3.connect(runs)) as connection, connection:
        connection.execute("CREATE TABLE runs AS SELECT 1 AS run_uuid")
    with pytest.raises(Conflict, match=rf"{DIGEST[:12]}.*runs\.db has other runs and versions, in runs\."):
        restore(project, str(path))
    assert (read_restoring(state), stored_blobs(project).all(), project.audit.read()) == (None, [DIGEST], [])
    runs.unlink()
    shutil.rmtree(state / "bundles" / DIGEST)
    restore(project, str(path))
    assert stored_blobs(project).all() == [DIGEST, OTHER]
    assert "train" in {each.action for each in project.audit.read()}


def test_a_full_disk_leaves_neither_a_part_nor_a_database_in_clear(tmp_path: Path) -> None:
    write(tmp_path)
    project, path = opened(tmp_path), tmp_path / "backups"
    audit(project, "train", "model/late", "x" * 1_000_000)
    files = {"model.onnx": random.Random(7).randbytes(2 << 20)}
    stored_blobs(project).put(DIGEST, files)
    project.close()
    size = (tmp_path / ".mainspring" / "catalog.db").stat().st_size
    project = opened(tmp_path)
    for limit in (size - 100_000, size + 100_000):  # the copy, a piece of the bundle
        with room(limit), pytest.raises(StorageFull):
            backup(project, str(path))
        assert [*path.rglob("*.partial"), *path.glob("points/*"), *(tmp_path / ".mainspring").glob("backup.tmp")] == []
    backup(project, str(path))
    project = _without_catalog(project)
    for limit in (size - 100_000, size + 100_000):  # the copy, the bundle
        shutil.rmtree(tmp_path / ".mainspring" / "bundles", ignore_errors=True)
        with room(limit), pytest.raises(StorageFull):
            restore(project, str(path))
    assert restore(project, str(path)).differences == []
    assert stored_blobs(project).get(DIGEST) == files


def test_a_backup_of_a_newer_version_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    project, path = opened(tmp_path), tmp_path / "backups"
    audit(project, "train", "model/late")
    with project.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    backup(project, str(path))
    project = _without_catalog(project)
    with pytest.raises(Conflict, match="9999"):
        restore(project, str(path))
    assert (read_restoring(project.settings.state), project.audit.read()) == (None, [])


@deep
def test_runs_that_survived_are_the_backups_or_in_the_way(tmp_path: Path) -> None:
    write(tmp_path)
    settings = {"tracking": f"sqlite:///{tmp_path}/runs.db"}
    project, path = opened(tmp_path, **settings), tmp_path / "backups"
    audit(project, "train", "model/late")
    run = project.tracking.start("late", {}, project.wall.now())
    backup(project, str(path))
    project = _without_catalog(project, **settings)
    restore(project, str(path))
    project.tracking.start("late", {}, project.wall.now())
    project = _without_catalog(project, **settings)
    with pytest.raises(Conflict, match=r"runs\.db has other runs and versions, in runs\."):
        restore(project, str(path))
    project.close()
    (tmp_path / "runs.db").unlink()
    project = opened(tmp_path, **settings)
    with pytest.raises(RuntimeError, match="killed"):
        restore(project, str(path), told=_killed_before_the_catalog)
    project.tracking.finish(run, "KILLED", project.wall.now())  # as `doctor` does
    restore(project, str(path))
    assert project.tracking.get(run).status == "KILLED"
    project = _without_catalog(project)
    with pytest.raises(Conflict, match="in memory"):
        restore(project, str(path))


def _killed_before_the_catalog(part: str) -> None:
    if part == "catalog.db":
        raise RuntimeError("killed")


def test_what_is_no_whole_backup_of_the_project_changes_nothing(tmp_path: Path) -> None:
    project, path = _backed_up(tmp_path)
    project.close()
    _lost(project)
    project = opened(tmp_path)
    with pytest.raises(NotFound, match="no repository"):
        restore(project, str(tmp_path / "nowhere"))
    with pytest.raises(NotFound, match="the first was made at 2"):
        restore(project, str(path), at=1)
    pieces = [each for each in path.rglob("*") if each.is_file() and each.parent.name != ".locks"]
    for number, each in enumerate(pieces if DEEP else [*pieces[::7], path / "repository.json"]):
        content = each.read_bytes()
        changed = bytes([content[len(content) // 2] ^ 1])
        broken = [content[:-1], content[: len(content) // 2] + changed + content[len(content) // 2 + 1 :], b"", None]
        each.unlink() if broken[number % 4] is None else each.write_bytes(broken[number % 4])
        with pytest.raises((Corrupt, NotFound, Invalid)):
            restore(project, str(path))
        each.write_bytes(content)
    other = path.with_name("other")
    shutil.copytree(path, other)
    head = other / "repository.json"
    head.write_bytes(head.read_bytes().replace(b'"project":"shop"', b'"project":"shoe"', 1))
    with pytest.raises(Invalid, match="shoe"):
        restore(project, str(other))
    with pytest.raises(Invalid, match="shoe"):
        backup(project, str(other))
    assert read_restoring(project.settings.state) is None
    assert project.snapshots.log() == []
    with pytest.raises(Conflict, match="is a file"):
        backup(project, str(head))


def test_a_catalog_on_postgres_is_restored_into_a_file_and_back(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    project, path = _backed_up(tmp_path, catalog=postgres_server.fresh().text)
    kept = [each.id for each in project.snapshots.log()]
    project.close()
    for number, at in enumerate((f"sqlite:///{tmp_path}/other.db", postgres_server.fresh().text)):
        project = opened(tmp_path, catalog=at)
        done = restore(project, str(path))
        assert (done.erased, done.missing) == (0, [])
        assert [each.id for each in project.snapshots.log()] == kept
        path = tmp_path / f"backups{number}"
        backup(project, str(path))
        project.close()
    assert ANA in customers(project)
