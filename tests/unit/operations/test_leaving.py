"""Records of an export: every table of the catalog is in it or is left out for a reason, and no secret is in it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa

from mainspring.operations.leaving.folder import Begun, ExportFolder
from mainspring.operations.leaving.records import LEFT_OUT, RECORDS
from mainspring.project.catalog import memory_catalog


def test_every_table_of_the_catalog_is_exported_or_left_out_with_a_reason() -> None:
    engine = memory_catalog()
    inspector = sa.inspect(engine)
    tables = {
        name: {column["name"]: column["type"] for column in inspector.get_columns(name)}
        for name in inspector.get_table_names()
    }
    engine.dispose()
    assert RECORDS.keys() & LEFT_OUT.keys() == set()
    assert RECORDS.keys() | LEFT_OUT.keys() == tables.keys(), "name the table in operations/leaving/records.py"
    for name, records in RECORDS.items():
        named = {*records.documents.split(), *records.packed.split(), *records.masked.split()}
        named |= {*records.quoting.split(), *records.never.split()}
        assert named <= tables[name].keys(), name
        # Bytes that are no document, such as a digest of a key, are looked at one by one.
        raw = {column for column, kind in tables[name].items() if isinstance(kind, sa.LargeBinary)} - named
        assert raw == KNOWN.get(name, set()), name


def test_a_file_that_is_removed_while_others_are_copied_is_left_away(tmp_path: Path) -> None:
    def files() -> Iterator[tuple[str, str, Path]]:
        for number in range(300):
            path = tmp_path / f"from-{number}"
            path.write_text(str(number))
            yield f"runs/{number % 7}/{number}", "A file", path
        (tmp_path / "from-299").unlink()

    begun = Begun(project="shop", lake="l", at=0, reveal=False, tables={})
    folder = ExportFolder(tmp_path / "out", lambda: begun, project="shop", lake="l", reveal=False)
    folder.copy(files())
    again = ExportFolder(tmp_path / "out", lambda: begun, project="shop", lake="l", reveal=False)
    assert again.files == folder.files
    assert {each.path: each.sha256 for each in again.files} == {
        f"runs/{number % 7}/{number}": sha256(str(number).encode()).hexdigest() for number in range(299)
    }
    assert {(tmp_path / "out" / each.path).read_text() for each in again.files} == {*map(str, range(299))}


KNOWN = {
    "erasures": {"subjects"},  # digests of subjects
    "legal_holds": {"subject"},
    "model_waivers": {"signature"},
    "trusted_keys": {"public"},
}
