"""Data: sources, the tables they land in, their versions, and what a commit of all of them is."""

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
