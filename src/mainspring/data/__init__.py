"""Data: sources, their tables, table versions, and dataset commits."""

from mainspring.data.model import (
    Check,
    DatasetCommit,
    IngestReport,
    Source,
    SourceColumn,
    TableScan,
    fresh,
    in_range,
    length,
    matches,
    none_of,
    not_null,
    one_of,
    unique,
)

__all__ = [
    "Check",
    "DatasetCommit",
    "IngestReport",
    "Source",
    "SourceColumn",
    "TableScan",
    "fresh",
    "in_range",
    "length",
    "matches",
    "none_of",
    "not_null",
    "one_of",
    "unique",
]
