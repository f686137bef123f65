"""Rows of the lake's tables that belong to subjects."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec
import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.core.time import format_instant
from mainspring.data import duck
from mainspring.data.arrow import Where, fitting, is_text
from mainspring.data.model import DEAD_LETTERS_SUFFIX, SEQUENCE, TILES_PREFIX, KeyValue
from mainspring.features.layout import slot
from mainspring.features.tilelog.rows import tiles_table
from mainspring.ledger.model import EXPLANATIONS, FAILURES, PREDICTIONS, key_text
from mainspring.operations.subjects.naming import Subject
from mainspring.project import Project


def conditions(project: Project, table: str, subjects: Sequence[Subject]) -> list[Where]:
    """Return conditions on the rows of a table that belong to subjects of one entity; none for a table without any.

    Rows belong to the subject whose keys they have, in columns of the same names; those of a stream that were no rows,
    to each subject whose key values they quote.
    """
    if table in (PREDICTIONS, EXPLANATIONS, FAILURES):
        return []  # of predictions, whose keys are in documents
    schema = project.lake.describe(table).schema
    if table.endswith(DEAD_LETTERS_SUFFIX):
        quoting = _quoting(project, table, subjects)
        return [{SEQUENCE: quoting}] if quoting else []
    entity = subjects[0].entity
    if table.startswith(TILES_PREFIX):
        owners = {tiles_table(slot(view)): view.entity for view in project.definitions.views.values()}
        if owners.get(table, entity) != entity or f"k{len(entity.keys)}" in schema.names:
            return []
        return on_keys(schema, subjects, [f"k{number}" for number in range(len(entity.keys))])
    return on_keys(schema, subjects)


def on_keys(schema: pa.Schema, subjects: Sequence[Subject], columns: Sequence[str] = ()) -> list[Where]:
    """Return conditions on rows that have the keys of subjects of one entity.

    Args:
        columns: Columns of the keys, in their order; by default those of their names.
    """
    entity = subjects[0].entity
    columns = columns or list(entity.keys)
    if any(column not in schema.names for column in columns):
        return []
    found: list[dict[str, list[KeyValue]]] = [
        {
            column: _values(subject.keys[name], entity.keys[name], schema.field(column).type)
            for name, column in zip(entity.keys, columns, strict=True)
        }
        for subject in subjects
    ]
    if len(columns) == 1:
        found = [{columns[0]: [value for each in found for value in each[columns[0]]]}]
    return [each for each in found if all(each.values())]


def _values(value: KeyValue, dtype: DType, kind: pa.DataType) -> list[KeyValue]:
    """Return a key value as a column has it; a quarantine has all as text."""
    if is_text(kind) and not isinstance(value, str):
        return [key_text(value), *([format_instant(int(value))] if dtype == DType.Timestamp else [])]
    return fitting([value], kind)


def _quoting(project: Project, table: str, subjects: Sequence[Subject]) -> list[KeyValue]:
    """Return the numbers of dead letters that quote a subject's key values, each as a word of its own."""
    patterns = [[quoted(value) for value in subject.keys.values()] for subject in subjects]
    found: list[KeyValue] = []
    for batch in duck.batches(project.lake.scan(table), (SEQUENCE, "key", "value")):
        for number, *parts in zip(*(batch[name].to_pylist() for name in batch.schema.names), strict=True):
            text = b"\n".join(each or b"" for each in parts)
            if any(all(pattern.search(text) for pattern in each) for each in patterns):
                found.append(number)
    return found


def quoted(value: KeyValue, *, word: bool = True) -> re.Pattern[bytes]:
    """Return a pattern of a value as text, or as in a JSON document.

    Args:
        word: Whether it is no part of a longer word; otherwise only a number is no part of a longer number.
    """
    text = key_text(value)
    forms = {text.encode(), msgspec.json.encode(text)[1:-1]}
    if isinstance(value, str):
        forms.add(json.dumps(value)[1:-1].encode())
    either = b"|".join(re.escape(each) for each in sorted(forms))
    if not word and not text.isdecimal():
        return re.compile(either)
    letters = b"0-9A-Za-z" if word else b"0-9"
    return re.compile(b"(?<![" + letters + b"])(?:" + either + b")(?![" + letters + b"])")


def sql(where: Where, schema: pa.Schema) -> str:
    """Return a condition in DuckDB's SQL; its columns are in the schema."""
    parts = []
    for column, values in where.items():
        kind = schema.field(column).type
        name = f"epoch_us({quote_name(column)})" if pa.types.is_timestamp(kind) else quote_name(column)
        literals = [quote_text(each) if isinstance(each, str) else str(each) for each in fitting(values, kind)]
        parts.append(f"{name} IN ({', '.join(literals)})" if literals else "false")
    return " AND ".join(parts)
