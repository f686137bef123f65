"""Repositories of backups: points in time to the byte, only what is new is written, and what is damaged is named."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from kit.depth import examples
from kit.erased_shop import ANA, BEN, ingest, log, opened, rows, write
from kit.load import REST_S
from kit.object_store import new_bucket
from mainspring.cli import exits
from mainspring.cli.main import cli
from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound, StorageFull
from mainspring.core.settings import Url
from mainspring.data.streams.model import NewMessage
from mainspring.operations import encryption
from mainspring.operations.auditing import audit
from mainspring.operations.backup.making import STATES, Made, backup, stored_blobs
from mainspring.operations.backup.repository import Entry, Point, Repository, Section, open_repository, point_name
from mainspring.operations.backup.restoring import restore
from mainspring.operations.backup.stores import FolderObjects, open_objects
from mainspring.operations.backup.verifying import backups, verify
from mainspring.operations.backup.writing import SectionWriter, Writing, make_repository
from mainspring.operations.migrate.files import content
from mainspring.project import Project
from mainspring.project.restoring import read_restoring

DIGEST = "a" * 64
WEIGHTS = random.Random(1).randbytes(9 << 20)  # of several pieces
Tree = dict[str, bytes]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with something in every store that a backup has."""
    folder = tmp_path_factory.mktemp("shop")
    write(folder)
    project = opened(folder)
    ingest(project, folder, *rows(ANA, "", [1.0, 2.0]))
    for day in range(1, 10):
        ingest(project, folder, *rows(BEN, "", [float(day)], f"2024-03-0{day}"))
    log(project, "late", [ANA, BEN], [])
    project.streams.create("orders", 2)
    project.streams.produce("orders", [NewMessage(b"one", b"a"), NewMessage(b"two", b"b")])
    stored_blobs(project).put(DIGEST, {"manifest.json": b"{}", "model.onnx": WEIGHTS})
    state = project.settings.state
    for path in (state / "artefacts" / "1" / "plot.png", state / "edge" / "repository" / "metadata" / "1.root.json"):
        path.parent.mkdir(parents=True)
        path.write_bytes(path.name.encode() * 1000)
    (state / "streams" / "judge").mkdir(parents=True)
    with closing(sqlite3.connect(state / "streams" / "judge" / "0.db")) as connection, connection:
        connection.execute("CREATE TABLE states AS SELECT 1 AS key")
    audit(project, "train", "model/late")
    project.close()
    return folder


@pytest.fixture
def project(shop: Path, tmp_path: Path) -> Project:
    """Return a copy of the project."""
    shutil.copytree(shop, tmp_path / "here")
    return opened(tmp_path / "here")


def tree(project: Project) -> Tree:
    """Return the files that a backup has, but databases and the log of predictions, which it copies otherwise."""
    state = project.settings.state
    folders = ("lake", "bundles", "artefacts", "edge")
    found = [path for folder in folders for path in (state / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(state)): path.read_bytes() for path in found if ".lock" not in str(path)}


def lost(project: Project, folder: Path, **settings: Any) -> Project:
    """Return an empty project with the same keys, in another folder."""
    folder.mkdir(parents=True)
    write(folder)
    shutil.copytree(project.settings.state / "keys", folder / ".mainspring" / "keys")
    return opened(folder, **settings)


def made(project: Project, at: Path | str, **options: Any) -> Made:
    return backup(project, str(at), **options)


def test_each_backup_is_a_point_in_time_to_the_byte_and_writes_only_what_is_new(
    project: Project, tmp_path: Path
) -> None:
    at = tmp_path / "backups"
    first, before = made(project, at), tree(project)
    assert first.new_bytes > len(WEIGHTS)
    again = made(project, at)
    assert again.bytes >= first.bytes
    assert again.new_bytes < 100_000, "the catalog has one event more, and the rest is there"
    ingest(project, tmp_path, *rows(ANA, "", [7.0], "2024-04-01"))
    project.streams.produce("orders", [NewMessage(b"three", b"a")])
    log(project, "later", [ANA], [])
    third, after = made(project, at), tree(project)
    assert third.new_bytes < 150_000
    assert [each.id for each in backups(project, str(at))] == [each.id for each in (third, again, first)]

    for name, point, expected, messages, logged in (
        ("first", first, before, 2, ["late0", "late1"]), ("third", third, after, 3, ["late0", "late1", "later0"]),
    ):  # fmt: skip
        there = lost(project, tmp_path / name)
        assert there.streams.topics() == []  # a command has made the file of the log
        there.close()
        there = opened(tmp_path / name)
        done = restore(there, str(at), at=point.made_at)
        assert (done.id, done.differences, done.missing) == (point.id, [], [])
        assert {each.what: each.of for each in done.equality}["tables"] == len(project.lake.tables())
        assert tree(there) == expected
        for version in (1, 4):  # time travel inside
            old = [content_at(each, version) for each in (project, there)]
            assert old[0] == old[1]
        assert len(there.streams.read("orders", {0: 0, 1: 0}, limit=10)) == messages
        assert there.predictions.compact() == len(logged), "none is moved twice"
        assert sorted(each.id for each in there.predictions.recent()) == logged
        assert (there.settings.state / "streams" / "judge" / "0.db").exists()
        there.close()
    assert made(opened(tmp_path / "third"), at).new_bytes < 300_000, "a restored project goes on with its repository"
    assert verify(project, str(at)).damage == []


def content_at(project: Project, version: int) -> list[dict[str, Any]]:
    files = project.stored_lake.scan("purchases", version).files or ()
    return sorted((row for file in files for row in pq.read_table(file).to_pylist()), key=repr)


def test_a_backup_of_predictions_that_are_half_moved_moves_none_twice(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    assert project.predictions.compact() == 2
    log(project, "next", [BEN], [])
    made(project, at)
    there = lost(project, tmp_path / "there")
    assert restore(there, str(at)).differences == []
    assert there.predictions.compact() == 1
    assert sorted(each.id for each in there.predictions.recent()) == ["late0", "late1", "next0"]


def test_old_backups_go_with_the_pieces_that_no_other_needs(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    ingest(project, tmp_path, *rows(ANA, "", [7.0], "2024-04-01"))
    made(project, at)
    kept = made(project, at, keep_us=3_600_000_000)
    assert kept.removed is not None
    assert kept.removed.backups == 0
    first, second, _ = sorted((at / "points").iterdir())
    first.unlink()  # a removal was killed here
    assert verify(project, str(at)).unused > 0
    damaged = second.read_bytes()
    second.write_bytes(damaged[:-1])
    with pytest.raises(Corrupt, match="points/"):
        made(project, at, keep_us=3_600_000_000)
    second.write_bytes(damaged)
    stored_blobs(project).delete(DIGEST)
    last = made(project, at, keep_us=1)
    assert last.removed is not None
    assert last.removed.backups == 3
    found = verify(project, str(at))
    assert (found.backups, found.damage, found.unused, found.strangers) == (1, [], 0, [])
    assert sum(each.stat().st_size for each in at.rglob("*") if each.is_file()) < len(WEIGHTS) / 2
    there = lost(project, tmp_path / "there")
    assert restore(there, str(at)).differences == []
    assert tree(there) == tree(project)


def test_what_was_there_is_left_and_a_restore_with_a_difference_is_no_success(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    there = lost(project, tmp_path / "there")
    mine = there.settings.state / "artefacts" / "1" / "plot.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    there.close()
    done = CliRunner().invoke(cli, ["restore", str(at), "--project", str(tmp_path / "there")])
    assert (done.exit_code, mine.read_bytes()) == (exits.GATE, b"mine"), done.output
    assert "✗ 5 of 6 files" in done.output
    assert "Left as it was: files/artefacts/1/plot.png." in done.output


def pieces(at: Path) -> list[Path]:
    """Return the pieces, the largest first."""
    return sorted(
        (each for each in (at / "pieces").rglob("*") if each.is_file()), key=lambda each: -each.stat().st_size
    )


def test_what_is_damaged_swapped_or_foreign_is_named_and_written_again(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    other, here = tmp_path / "other", str(at)
    first = made(project, at)
    made(project, other)
    large, second = pieces(at)[:2]
    originals = {each: each.read_bytes() for each in (large, second)}
    twin = other / large.relative_to(at)  # of the other repository
    assert not twin.exists(), "names say nothing to who compares repositories"
    for spoiled in (originals[second], originals[large][:-1], originals[large] + b"x", b"", None):
        large.unlink() if spoiled is None else large.write_bytes(spoiled)
        [damage] = verify(project, here).damage
        assert damage.object == str(large.relative_to(at))
        assert damage.of.startswith(f"bundles/{DIGEST}/model.onnx, the backup of 2")
        there = lost(project, tmp_path / "there")
        with pytest.raises(Corrupt, match=damage.object):
            restore(there, here)
        assert (tree(there), there.audit.read(), read_restoring(there.settings.state)) == ({}, [], None)
        there.close()
        shutil.rmtree(tmp_path / "there")
    assert made(project, at).new_pieces > 0
    assert verify(project, here).damage == [], "the piece was gone, and is written again"

    newest = sorted((at / "points").iterdir())[-1]
    renamed = newest.with_name("1" + newest.name[1:])
    shutil.copy(newest, renamed)  # it would be the newest for ever
    shutil.copytree(other / "points", at / "points", dirs_exist_ok=True)
    (at / "pieces" / "ab" / "cd").mkdir(parents=True)
    (at / "pieces" / "ab" / "cd" / "x").write_bytes(b"")
    content = large.read_bytes()
    large.unlink()
    large.mkdir()
    assert [each.detail for each in verify(project, here).damage if "is missing" in each.detail]
    large.rmdir()
    large.write_bytes(content)
    found = verify(project, here)
    assert {each.object for each in found.damage} == {
        f"points/{renamed.name}", *(f"points/{each.name}" for each in (other / "points").iterdir()),
    }  # fmt: skip
    assert found.strangers == ["pieces/ab/cd/x"]
    assert [bool(each.error) for each in backups(project, here)].count(True) == 2
    there = lost(project, tmp_path / "there")
    with pytest.raises(Corrupt, match=renamed.name):
        restore(there, here)
    assert restore(there, here, at=first.made_at).id == first.id


def test_a_damaged_data_file_leaves_nothing_of_its_table(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    repository = open_repository(project, str(at))
    section = repository.point(repository.points()[0]).within("lake/")["purchases"]
    piece = next(e.pieces[0] for e in repository.entries(section) if "_delta_log" not in e.name)
    spoiled = at / "pieces" / piece[:2] / piece
    content = spoiled.read_bytes()
    spoiled.write_bytes(content[:-1])
    there = lost(project, tmp_path / "there")
    with pytest.raises(Corrupt, match=piece):
        restore(there, str(at))
    assert (tree(there), there.audit.read(), read_restoring(there.settings.state)) == ({}, [], None)
    spoiled.write_bytes(content)
    with pytest.raises(ZeroDivisionError):
        restore(there, str(at), told=lambda part: 1 // (part != "lake/purchases, read again"))
    lying, mark = tree(there), read_restoring(there.settings.state)
    assert mark is not None
    spoiled.write_bytes(content[:-1])
    with pytest.raises(Corrupt, match=piece):
        restore(there, str(at))
    assert (tree(there).items() >= lying.items(), read_restoring(there.settings.state)) == (True, mark)
    spoiled.write_bytes(content)
    assert restore(there, str(at)).differences == []
    assert tree(there) == tree(project)


def test_a_restore_that_cannot_fit_changes_nothing(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    forged(project, at, "lake/large", "part-0.parquet", size=1 << 60)
    there = lost(project, tmp_path / "there")
    with pytest.raises(StorageFull, match=r"large: 1099511627776 MiB are needed, \d+ MiB are free"):
        restore(there, str(at))
    assert (tree(there), there.audit.read(), read_restoring(there.settings.state)) == ({}, [], None)


def test_lists_of_files_are_of_any_size(project: Project, tmp_path: Path) -> None:
    repository, key = make_repository(project, open_objects(str(tmp_path / "backups")))
    with Writing(repository, key) as writing:
        piece = writing.put(b"content")
        many = [Entry(f"{number:04}", 0, [piece] * 300) for number in range(1000)]
        entries = [*many, Entry("one", 0, [piece] * 300_000)]
        lists = [writing.put(msgspec.msgpack.encode(entries[each : each + 100])) for each in range(0, 1000, 100)]
        lists += [writing.put(msgspec.msgpack.encode(entries[-1:]))]
    before = Section(name="lake/large", listing=lists, files=len(entries), bytes=0)
    with Writing(repository, key) as writing:
        writer = SectionWriter(writing, "lake/large", before)
        assert all(writer.keep(each.name) for each in entries)
        section = writer.done()
    assert repository.entries(section) == entries
    assert len(section.listing) > 4


def test_a_repository_from_a_stranger_neither_hangs_nor_fills_the_memory(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    repository, key = make_repository(project, open_objects(str(at)))
    with Writing(repository, key) as writing:
        endless = writing.put(msgspec.msgpack.encode([["x", 1, [], None, "", 0]]))
    with pytest.raises(Corrupt, match="not of this version"):
        repository.listed(endless)
    large, second, third, *_ = pieces(at)
    for each in (large, second, third):
        each.unlink()
    os.mkfifo(large)
    second.symlink_to("/dev/zero")
    with third.open("wb") as file:
        file.truncate(1 << 40)
    found = {each.object: each.detail for each in verify(project, str(at)).damage}
    assert {each: "is missing" in found[str(each.relative_to(at))] for each in (large, second, third)} == {
        large: True, second: True, third: False,
    }  # fmt: skip
    assert "no object of a backup has" in found[str(third.relative_to(at))]


def test_no_file_of_a_backup_leaves_its_folder(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    for number, (section, name) in enumerate(
        [("files/artefacts", "../../../evil"), ("files/artefacts", "/evil"), (STATES, ".."), ("files/../..", "evil"),
         ("lake/purchases", "../../../../evil"), ("lake/..", "evil"), ("lake/purchases", "_delta_log/../../../evil"),
         ("files/keys", "evil"), ("files/", "keys/evil"), ("files/artefacts", "e\0vil")]
    ):  # fmt: skip
        forged(project, at, section, name)
        there = lost(project, tmp_path / f"there{number}" / "project")
        with pytest.raises(Exception, match=r"not a file|not a part|cannot name") as refused:
            restore(there, str(at))
        assert type(refused.value).__name__ in ("Corrupt", "Invalid")
        assert (tree(there), read_restoring(there.settings.state)) == ({}, None)
        there.close()
    assert not [*tmp_path.rglob("evil")]
    assert not Path("/evil").exists()


def forged(project: Project, at: Path, section: str, name: str, size: int | None = None) -> None:
    """Make a backup as somebody could who has the key."""
    repository, key = make_repository(project, open_objects(str(at)))
    point = repository.point(repository.points()[0])
    with Writing(repository, key) as writing:
        writer = SectionWriter(writing, section)
        writer.add(name, [b"evil"])
        mine = writer.done(version=0, rows=0)
        if size is not None:
            listed = [Entry(name, size, [writing.put(b"evil")])]
            mine = msgspec.structs.replace(mine, listing=[writing.put(msgspec.msgpack.encode(listed))])
    sections = [*(each for each in point.sections if each.name != section and each.name != mine.name), mine]
    again = Point(
        project=point.project, id=point.id, made_at=project.wall.now(), lake=point.lake, sections=sections, left=[]
    )
    repository.seal(key, point_name(again), msgspec.json.encode(again))


def test_two_backups_at_once_are_one_after_the_other(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    made(project, at)
    with FolderObjects(at).alone(), pytest.raises(Conflict, match="in use by process"):
        made(project, at)  # of another machine
    with project.locks.hold("backup.repository"), pytest.raises(Conflict, match="in use by process"):
        made(project, tmp_path / "elsewhere")
    for wrong in ("", str(project.settings.state / "backups"), "ftp://host/x", "s3://", "s3://bucket?secret=1"):
        with pytest.raises(Invalid):
            made(project, wrong)


def test_keys_are_rotated_and_another_key_opens_nothing(project: Project, tmp_path: Path) -> None:
    at = tmp_path / "backups"
    first = made(project, at)
    encryption.rotate(project)
    encryption.renew(project)
    ingest(project, tmp_path, *rows(ANA, "", [7.0], "2024-04-01"))
    second = made(project, at)
    assert second.new_bytes < first.new_bytes / 2, "names stay, so pieces under the former key do"
    assert len([*(at / "keys").iterdir()]) == 2
    for old in sorted((project.settings.state / "keys" / "master").iterdir())[:1]:
        old.unlink()  # keys of the repository were wrapped again
    there = lost(project, tmp_path / "there")
    assert restore(there, str(at)).differences == []
    (tmp_path / "stranger").mkdir()
    write(tmp_path / "stranger")
    stranger = opened(tmp_path / "stranger")
    encryption.rotate(stranger)
    with pytest.raises(Corrupt, match="key service of this profile does not open keys/"):
        restore(stranger, str(at))
    with pytest.raises(Corrupt, match="key service"):
        verify(stranger, str(at))
    with pytest.raises(Conflict, match="another catalog"):
        made(stranger, at)
    with pytest.raises(NotFound, match="no repository"):
        verify(project, str(tmp_path / "nowhere"))


def test_a_bucket_takes_backups_and_gives_them_to_a_lake_in_another(
    project: Project, tmp_path: Path, s3_server: str, s3_url: Url
) -> None:
    at = s3_url.text
    first = made(project, at)
    again = made(project, at, keep_us=1)
    assert again.new_bytes < first.new_bytes / 100
    assert again.removed is not None
    assert again.removed.backups == 1
    found = verify(project, at)
    assert (found.backups, found.damage, found.unused) == (1, [], 0)
    lake, bundles = (new_bucket(s3_server).text for _ in range(2))
    there = lost(project, tmp_path / "there", lake=lake, blobs=bundles, catalog=f"sqlite:///{tmp_path}/other.db")
    done = restore(there, at)
    assert (done.differences, done.missing) == ([], [])
    assert content(there.stored_lake, "purchases") == content(project.stored_lake, "purchases")
    assert content_at(there, 3) == content_at(project, 3)
    repository: Repository = open_repository(project, at)
    [point] = [repository.point(each) for each in repository.points()]
    [piece, *_] = [each for entry in repository.entries(point.sections[0]) for each in entry.pieces]
    repository.remove(piece)
    assert [each.of.partition(",")[0] for each in verify(project, at).damage] == ["catalog.db"]


@pytest.mark.parametrize("rounds", examples(gate=[2], deep=[25]))
def test_a_backup_of_a_project_that_works_is_of_one_moment_for_each_store(
    project: Project, tmp_path: Path, rounds: int
) -> None:
    at, ended = tmp_path / "backups", threading.Event()

    def work() -> None:
        """Ingest rows in their order, log predictions in theirs, and move and remove what is old."""
        mine = opened(tmp_path / "here")
        folder = tmp_path / "work"
        folder.mkdir()
        number = 0
        while not ended.is_set() and number < 900:
            ingest(mine, folder, f"{BEN},1,,{number + 10},2024-05-01T10:{number % 60:02d}:{number // 60:02d}Z")
            log(mine, f"n{number:04d}x", [BEN], [])
            mine.prediction_log.close()
            del mine.__dict__["prediction_log"]
            mine.predictions.compact()
            number += 1
            if number % 3 == 0:
                for table in ("purchases", "predictions"):
                    mine.lake.vacuum(table, [], replaced_before=mine.wall.now())
            ended.wait(REST_S)
        mine.close()

    working = threading.Thread(target=work)
    working.start()
    try:
        points = [made(project, at) for _ in range(rounds)]
    finally:
        ended.set()
        working.join()
    for number, point in enumerate(points):
        there = lost(project, tmp_path / f"there{number}")
        assert restore(there, str(at), at=point.made_at).differences == []
        files = there.stored_lake.scan("purchases").files or ()
        amounts = sorted(row["amount"] for file in files for row in pq.read_table(file).to_pylist())
        came = [each for each in amounts if each >= 10]
        assert came == [*range(10, 10 + len(came))]
        there.predictions.compact()
        logged = sorted(each.id for each in there.predictions.recent(limit=10_000) if each.id.startswith("n"))
        assert logged == [f"n{each:04d}x0" for each in range(len(logged))]
        there.close()
