"""Erasure of rows from Delta tables: where they are in data files, and in the bounds that the log keeps of files."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Container, Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.expr.sql import quote_text
from mainspring.core.time import format_instant
from mainspring.data.arrow import Where, fitting, matching
from mainspring.data.model import KeyValue

_PREFIX = 32  # characters to which writers may shorten a bound


def instant(at: int) -> str:
    """Return an instant, UTC epoch microseconds, as SQL of delta-rs."""
    return f"arrow_cast('{format_instant(at)}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def predicate(where: Where, schema: pa.Schema) -> str:
    """Return the condition on the rows in SQL of delta-rs."""

    def literal(value: KeyValue, kind: pa.DataType) -> str:
        if pa.types.is_timestamp(kind):
            return instant(int(value))
        return quote_text(value) if isinstance(value, str) else str(value).lower()

    conditions = []
    for name, values in where.items():
        kind = schema.field(name).type
        listed = ", ".join(literal(each, kind) for each in fitting(values, kind))
        conditions.append(f'"{name}" IN ({listed})')
    return " AND ".join(conditions)


def rows_in(path: str, where: Where) -> int | None:
    """Return the number of matching rows of a Parquet file; `None` if it cannot be read, as that of a killed writer."""
    import pyarrow.compute as pc

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if not all(name in schema.names and fitting(each, schema.field(name).type) for name, each in where.items()):
                return 0
            groups = [each for each in range(file.num_row_groups) if _may_hold(file.metadata.row_group(each), where)]
            rows = file.read_row_groups(groups, columns=list(where))
    except (OSError, pa.ArrowException):
        return None
    return int(pc.sum(matching(rows, where)).as_py() or 0)


def _may_hold(group: pq.RowGroupMetaData, where: Where) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        values = where.get(column.path_in_schema)
        statistics = column.statistics if values is not None else None
        if values is None or statistics is None or not statistics.has_min_max:
            continue
        low, high = statistics.min, statistics.max
        alike = [each for each in values if type(each) is type(low)]
        if len(alike) == len(values) and not any(low <= each <= high for each in alike):
            return False
    return True


def bounds_in(name: str, content: bytes, where: Where) -> bool:
    """Return whether a file of a table's log keeps a value of a matching row, as the bound of a file."""
    if name.endswith(".parquet"):
        return any(_bounded(stats, where) for stats in _stats_in(content))
    actions = [json.loads(line) for line in content.splitlines()] if name.endswith(".json") else []
    return any("stats" in (action.get("add") or ()) and _bounded(action["add"]["stats"], where) for action in actions)


def _stats_in(content: bytes) -> Iterator[str | None]:
    actions = pq.ParquetFile(io.BytesIO(content)).read(columns=["add.stats", "remove.stats"])
    for column in actions.columns:
        for each in column.to_pylist():
            yield None if each is None else each["stats"]


def _bounded(stats: str | None, where: Where) -> bool:
    known = json.loads(stats) if stats else {}
    bounds = [known.get(side) or {} for side in ("minValues", "maxValues")]
    return all(any(_alike(each.get(name), values) for each in bounds) for name, values in where.items())


def _alike(bound: Any, values: Collection[KeyValue]) -> bool:
    if isinstance(bound, str):
        texts = [each for each in values if isinstance(each, str)]
        return any(each == bound or (len(bound) >= _PREFIX and each.startswith(bound[:_PREFIX])) for each in texts)
    return bound is not None and bound in values


def without_values(entry: bytes, files: Container[str]) -> bytes:
    """Return a log entry without values of rows: of files that are no longer used only the number of rows stays.

    Args:
        files: The names of the files of the newest version.
    """
    actions = [json.loads(line) for line in entry.splitlines()]
    for action in actions:
        added = action.get("add")
        if added is not None and added.get("stats") and unquote(added["path"]) not in files:
            rows = json.loads(added["stats"]).get("numRecords")
            added["stats"] = json.dumps({"numRecords": rows}, separators=(",", ":"))
        written = action.get("commitInfo")
        if written is not None and written.get("operation") == "DELETE":
            written["operationParameters"] = {}
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in actions)
