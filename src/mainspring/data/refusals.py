"""Errors that refuse data as a whole; each names the data, the column and the fix."""

from __future__ import annotations

from pathlib import Path

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.data.model import Source


def unreadable(path: Path | str, error: BaseException) -> InvalidData:
    what = (str(error).splitlines() or [type(error).__name__])[0]
    return InvalidData(f"{path} cannot be read: {what.rstrip('.')}.", fix="create the file again; it is damaged.")


def check_columns(name: str, columns: list[str], source: Source) -> tuple[str, ...]:
    """Return the columns that the source does not declare.

    Raises:
        InvalidData: A declared column is missing or duplicated.
    """
    missing = [column for column in source.columns if column not in columns]
    if missing:
        raise InvalidData(
            f"In {name} the column {missing[0]!r} of source {source.name!r} is missing; there are {sorted(columns)}.",
            fix=f"add {', '.join(missing)} to the data, or remove it from the source.",
        )
    twice = [column for column in source.columns if columns.count(column) > 1]
    if twice:
        raise InvalidData(f"{name} has the column {twice[0]!r} twice.", fix="rename one of them.")
    return tuple(column for column in columns if column not in source.columns)


def naive(name: str, column: str) -> InvalidData:
    return InvalidData(
        f"Column {column!r} of {name} has times without a UTC offset, so they are not instants.",
        fix="write them in UTC, such as 2013-07-01T00:00:00Z, or give the column a time zone.",
    )


def with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def wrong_type(name: str, column: str, dtype: DType, example: object) -> InvalidData:
    return InvalidData(
        f"Column {column!r} of {name} contains no value that is {with_article(dtype.value)}: the first is {example!r}.",
        fix="declare the column's type, or correct the column.",
    )
