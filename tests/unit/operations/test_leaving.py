"""Records of an export: every table of the catalog is in it or is left out for a reason, and no secret is in it."""

from __future__ import annotations

import sqlalchemy as sa

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


KNOWN = {
    "erasures": {"subjects"},  # digests of subjects
    "legal_holds": {"subject"},
    "model_waivers": {"signature"},
    "trusted_keys": {"public"},
}
