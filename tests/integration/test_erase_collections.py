"""Erasure and retention of documents: chunks, vectors and indexes keep nothing, in no version."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.encoders import WordEncoder
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import DAY, to_datetime
from mainspring.data.commits import commit
from mainspring.operations.collections import build_collection, search_collection
from mainspring.operations.data.versions import diff
from mainspring.operations.encryption import check_encryption, rewrite
from mainspring.operations.ingest import land
from mainspring.operations.subjects import erasing
from mainspring.operations.subjects.naming import find_subjects
from mainspring.operations.subjects.remains import has
from mainspring.operations.subjects.retaining import retain
from mainspring.project import Project
from mainspring.project.settings import load_settings

DECLARED = """
import mainspring as ms

customer = ms.Entity("customer", keys={"customer": ms.String})
notes = ms.Source(
    "notes", schema={"note": ms.String, "customer": ms.String, "body": ms.String}, event_time="at",
    retention=ms.Retention(days=30),
)
given = {"source": notes, "text": "body", "key": "note", "encoder": ms.Encoder("words")}
ms.Collection("letters", chunk=ms.chunks.sentences(20), **given)
ms.Collection("tagged", chunk=ms.chunks.sentences(20), fields=["customer"], words=True, **given)
"""
ANA, SECRET = "ana-7f3e9c21", "wrote-4411aa secretly"


@pytest.fixture
def project(tmp_path: Path) -> Any:
    (tmp_path / "mainspring.toml").write_text('name = "notes"\nmodules = ["erased_notes"]\n')
    (tmp_path / "erased_notes.py").write_text(DECLARED)
    settings = load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={})
    settings.state.mkdir()
    encoder = WordEncoder()
    opened = Project(settings, encoders={("words", None): encoder})
    yield opened
    opened.close()


def ingest(project: Project, *notes: tuple[str, str, str], days_ago: int = 1) -> None:
    at = to_datetime(project.wall.now() - days_ago * DAY)
    rows = [{"note": note, "customer": customer, "body": body, "at": at} for note, customer, body in notes]
    path = project.settings.root / f"{notes[0][0]}-{days_ago}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    land(project, "notes", str(path))
    path.unlink()


def build(project: Project) -> None:
    for name in ("letters", "tagged"):
        build_collection(project, name)


def files_with(project: Project, *needles: str) -> list[str]:
    import re

    patterns = [re.compile(re.escape(needle.encode())) for needle in needles]
    return sorted(
        str(path.relative_to(project.settings.state))
        for path in project.settings.state.rglob("*")
        if path.is_file() and has(path, patterns)
    )


def test_documents_of_a_subject_leave_no_byte(project: Project) -> None:
    ingest(project, ("n1", ANA, f"She {SECRET}."), ("n2", "ben", "He sent a parcel."), ("n3", ANA, "Of hers."))
    build(project)
    ingest(project, ("n3", "ben", "Now it is his."))  # what it was before is marked as gone
    build(project)
    before = files_with(project, SECRET, ANA)
    assert any("chunks__letters" in name for name in before), before
    (ana,) = find_subjects(project, "customer", [ANA])
    planned = {each.store: each.rows for each in erasing.plan(project, [ana]).held}
    assert planned["collection/letters"] == 2
    told: list[str] = []
    erasing.erase(project, [ana], told=told.append)
    assert {"collection/letters", "collection/tagged"} <= {*told}
    assert files_with(project, SECRET, ANA) == []
    for name in ("letters", "tagged"):
        (found,) = search_collection(project, name, [SECRET], 10, mode="words" if name == "tagged" else "vectors")
        if name == "tagged":
            assert found == []
            (found,) = search_collection(project, name, ["parcel his"], 10, mode="hybrid")
        assert {hit.document for hit in found} == {"n2", "n3"}
        assert build_collection(project, name).documents == 2


def test_a_difference_of_data_shows_no_personal_value_of_a_table_of_chunks(project: Project) -> None:
    root = project.settings.root
    (root / "erased_notes.py").write_text(DECLARED.replace('event_time="at",', 'event_time="at", pii=["customer"],'))
    marked = Project(project.settings, encoders=project.encoders)
    ingest(marked, *((f"n{n}", ANA, f"One {n}.") for n in range(8)))
    build(marked)
    commit(marked.lake, marked.snapshots, marked.wall)
    ingest(marked, *((f"m{n}", "ben", f"Two {n}.") for n in range(8)))
    build(marked)
    (before,) = marked.snapshots.log(1)
    (found,) = diff(marked, before.id, table="chunks__tagged")
    assert "customer" in {each.column for each in found.columns}
    assert ANA not in repr(found)
    marked.close()


def test_documents_past_their_retention_are_gone(project: Project) -> None:
    ingest(project, ("old", "ben", f"It {SECRET}."), days_ago=40)
    ingest(project, ("new", "ben", "It is new."))
    build(project)
    assert retain(project) is not None
    assert files_with(project, SECRET) == []
    assert {hit.document for hit in search_collection(project, "letters", [SECRET], 10)[0]} == {"new"}


def test_a_collection_that_is_no_longer_declared_is_erased_as_a_whole(project: Project) -> None:
    ingest(project, ("n1", ANA, f"She {SECRET}."))
    build(project)
    folder = project.settings.root
    (folder / "erased_notes.py").write_text(DECLARED.replace('ms.Collection("letters"', 'dict(name="letters"'))
    again = Project(project.settings, encoders=project.encoders)
    (ana,) = find_subjects(again, "customer", [ANA])
    erasing.erase(again, [ana])
    assert files_with(again, SECRET, ANA) == []
    assert [each.collection for each in again.builds.all()] == ["tagged"]
    again.close()


def test_columns_that_are_encrypted_are_not_put_into_an_index_in_clear(project: Project) -> None:
    root = project.settings.root
    (root / "erased_notes.py").write_text(DECLARED.replace('event_time="at",', 'event_time="at", pii=["body"],'))
    settings = load_settings(root, overrides={"tracking": "memory://", "pii_encrypted": True}, environment={})
    sealed = Project(settings, encoders=project.encoders)
    ingest(sealed, ("n1", ANA, f"She {SECRET}."))
    with pytest.raises(Invalid, match="personal column 'body'"):
        build_collection(sealed, "letters")
    assert files_with(sealed, SECRET) == []
    assert [each for each in check_encryption(sealed) if not each.ok] == []
    sealed.close()


def encrypted(project: Project) -> Project:
    """Return the project with `body` marked as personal, in a profile that encrypts it."""
    root = project.settings.root
    (root / "erased_notes.py").write_text(DECLARED.replace('event_time="at",', 'event_time="at", pii=["body"],'))
    overrides = {"tracking": "memory://", "pii_encrypted": True}
    return Project(load_settings(root, overrides=overrides, environment={}), encoders=project.encoders)


def test_what_was_built_before_a_profile_encrypted_is_removed_when_its_tables_are_rewritten(project: Project) -> None:
    root = project.settings.root
    (root / "erased_notes.py").write_text(DECLARED.replace('event_time="at",', 'event_time="at", pii=["body"],'))
    clear = Project(project.settings, encoders=project.encoders)
    ingest(clear, ("n1", ANA, f"She {SECRET}."))
    build(clear)
    assert [each for each in check_encryption(clear) if not each.ok] == []
    assert rewrite(clear) == []
    clear.close()
    sealed = encrypted(project)
    found = [each for each in check_encryption(sealed) if not each.ok]
    assert [each.detail for each in found] == [
        f"collection {name} has a personal column in clear, which the profile encrypts"
        for name in ("letters", "tagged")
    ]
    assert rewrite(sealed, ["chunks__letters"]) == ["chunks__letters"]
    assert not any("letters" in each for each in files_with(sealed, SECRET))
    assert {"chunks__tagged", "notes"} == {*rewrite(sealed)}
    assert files_with(sealed, SECRET) == []
    assert [each for each in check_encryption(sealed) if not each.ok] == []
    assert rewrite(sealed) == []
    with pytest.raises(NotFound, match="never built"):
        search_collection(sealed, "letters", ["secretly"], 3)
    sealed.close()


@pytest.mark.parametrize("killed", range(0, 5, 2))
def test_a_rewriting_that_is_killed_at_any_write_is_ended_by_the_next(project: Project, killed: int) -> None:
    ingest(project, ("n1", ANA, f"She {SECRET}."))
    build(project)
    sealed, left = encrypted(project), killed

    def counted(write: Any) -> Any:
        def counting(*given: Any, **named: Any) -> Any:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            return write(*given, **named)

        return counting

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(sealed.builds, "remove", counted(sealed.builds.remove))
        for store in (sealed.vectors, sealed.texts):
            patch.setattr(store, "drop", counted(store.drop))
        for name in ("replace", "forget"):
            patch.setattr(sealed.lake, name, counted(getattr(sealed.lake, name)))
        rewrite(sealed, ["chunks__tagged"])
    sealed.close()
    again = encrypted(project)
    rewrite(again)
    assert files_with(again, SECRET) == []
    again.close()
