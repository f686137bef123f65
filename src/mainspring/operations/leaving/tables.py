"""Tables of the lake: rows of sources, of their quarantines and dead letters, chunks of collections, measures."""

from __future__ import annotations

from mainspring.data import duck
from mainspring.data.model import DERIVED_PREFIXES, RECORD_PREFIX, SEQUENCE
from mainspring.ledger.model import EXPLANATIONS, FAILURES, PREDICTIONS
from mainspring.operations.leaving.parquet import ParquetFiles, described
from mainspring.operations.leaving.personal import Personal

_LEDGER = {PREDICTIONS, FAILURES, EXPLANATIONS}


def kept(table: str) -> bool:
    """Return whether a table of the lake holds what cannot be computed again."""
    return not table.startswith(DERIVED_PREFIXES)


def write_tables(files: ParquetFiles, personal: Personal) -> None:
    """Write all tables but those of predictions."""
    for name in sorted(files.versions.keys() - _LEDGER):
        _write(files, personal, name)


def _write(files: ParquetFiles, personal: Personal, name: str) -> None:
    columns = files.schema_of(name, without=lambda each: each.startswith(RECORD_PREFIX))
    found = personal.of_table(name, columns.names)
    if found.instead and not files.reveal:
        files.folder.leave_out(f"tables/{name}.parquet", found.instead)
        return
    masked = frozenset[str]() if files.reveal else found.columns
    source = files.project.definitions.sources.get(name)
    about = f"Rows of {name}" if source is None or not source.description else f"Rows of {name}: {source.description}"
    types = {} if source is None else {each: dtype.value for each, dtype in source.columns.items()}
    schema = described(columns, about, personal=found.columns, masked=masked, types=types)
    clear = [each for each in columns.names if each not in masked]
    files.write(f"tables/{name}.parquet", about, duck.batches(files.scan(name), clear or [SEQUENCE]), schema, masked)
