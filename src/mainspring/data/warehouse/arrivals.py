"""Arrivals: the column of a warehouse's table that says in which order its rows came, and the statements that use it.

An arrival is an instant, as UTC epoch microseconds, or a whole number of 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.expr.dialects import Dialect
from mainspring.core.nearest import guess
from mainspring.core.time import (
    FIRST_INSTANT,
    LAST_INSTANT,
    MINUTE,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)
from mainspring.data.arrow_coercion import fits
from mainspring.data.model import Source
from mainspring.data.refusals import naive
from mainspring.data.warehouse.row_digests import ARRIVAL

_LATE_US = 10 * MINUTE
_LATE_NUMBERS = 1_000
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Look:
    """Result of a look at a table, or at the rows of it that a pull may read.

    Attributes:
        rows: All rows.
        unordered: Those whose arrival is null, which are never read.
        newest: The largest arrival; None if there is none.
        wanted: Rows that are to be read.
        ahead: Rows whose arrival is after now, which are read later.
    """

    rows: int
    unordered: int
    newest: int | None
    wanted: int
    ahead: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The arrivals of a table, in the order of a column.

    Args:
        table: As the warehouse names it.
        instants: Whether they are instants; else they are whole numbers.
        lateness: Rows that arrive by as much earlier than others which were read are still read.
    """

    dialect: Dialect
    table: str
    column: str
    instants: bool
    lateness: int

    @property
    def order(self) -> tuple[str, str, bool]:
        """The table, the column, and whether arrivals are instants: positions are comparable where these are equal."""
        return self.table, self.column, self.instants

    def shown(self, position: int | None) -> str:
        """Return a position as text; the start of the table for None."""
        if position is None:
            return "the start"
        return format_instant(max(FIRST_INSTANT, min(position, LAST_INSTANT))) if self.instants else str(position)

    @property
    def shown_lateness(self) -> str:
        return format_duration(self.lateness) if self.instants else str(self.lateness)

    def parsed(self, text: str) -> int:
        """Return the position that a text names.

        Raises:
            Invalid: It names none.
        """
        if self.instants:
            return parse_instant(text)
        try:
            found = int(text)
        except ValueError:
            found = _MOST + 1
        if not _LEAST <= found <= _MOST:
            raise Invalid(f"{text!r} is no arrival.", fix=f"{self.column} of {self.table} has whole numbers: give one.")
        return found

    def look(self, low: int | None, high: int | None, *, whole: bool) -> str:
        """Return the statement of a `Look`: all of its columns, in order.

        Args:
            whole: Look at rows that arrived before `low`, too: a partitioned table is then read as a whole.
        """
        at = self._at
        wanted = self._between(low, high) or f"{at} IS NOT NULL"
        ahead = "1 = 0" if high is None else f"{at} > {self._literal(high)}"
        counts = {
            "rows": "COUNT(*)",
            "unordered": f"COUNT(*) - COUNT({at})",
            "newest": f"MAX({at})",
            "wanted": f"COUNT(CASE WHEN {wanted} THEN 1 END)",
            "ahead": f"COUNT(CASE WHEN {ahead} THEN 1 END)",
        }
        listed = ", ".join(f"{count} AS {self.dialect.column(name)}" for name, count in counts.items())
        where = "" if whole or low is None else f" WHERE {self._between(low, None)} OR {at} IS NULL"
        return f"SELECT {listed} FROM {self.dialect.table(self.table)}{where}"

    def count(self, before: int) -> str:
        """Return the statement that counts the rows which arrived before a position."""
        counted = f"SELECT COUNT(*) AS {self.dialect.column('rows')} FROM {self.dialect.table(self.table)}"
        return f"{counted} WHERE {self._at} < {self._literal(before)}"

    def read(self, columns: Iterable[str], low: int | None, high: int | None) -> str:
        """Return the statement of the rows that arrived from `low` to `high`, in order, with column `ARRIVAL`."""
        named = ", ".join(map(self.dialect.column, columns))
        where = self._between(low, high) or f"{self._at} IS NOT NULL"
        return (
            f"SELECT {named}, {self._at} AS {self.dialect.column(ARRIVAL)} FROM {self.dialect.table(self.table)} "
            f"WHERE {where} ORDER BY {self._at}"
        )

    @property
    def _at(self) -> str:
        return self.dialect.column(self.column)

    def _between(self, low: int | None, high: int | None) -> str:
        """Return the condition of rows between two positions; a null arrival is between none."""
        bounds = (
            f"{self._at} {sign} {self._literal(end)}" for sign, end in ((">=", low), ("<=", high)) if end is not None
        )
        return " AND ".join(bounds)

    def _literal(self, position: int) -> str:
        return self.dialect.write("instant", str(position)) if self.instants else f"({position})"


def arrivals(
    dialect: Dialect, table: str, column: str, lateness: str | None, found: Mapping[str, pa.DataType]
) -> Arrivals:
    """Return the arrivals of a table.

    Args:
        lateness: A duration, or for arrivals that are numbers a number; by default 10 minutes, or 1,000.
        found: The table's columns.

    Raises:
        InvalidData: There is no such column, or it is neither an instant nor a whole number.
        Invalid: The lateness is not of the kind of the arrivals.
    """
    kind = found.get(column)
    if kind is None:
        raise InvalidData(
            f"{table} has no column {column!r}, which is to order its rows by arrival.",
            fix=f"{guess(column, found)}name one of {sorted(found)} in `arrivals` of the warehouse.",
        )
    if pa.types.is_timestamp(kind) and kind.tz is None:
        raise _without_zone(table, column)
    instants = pa.types.is_timestamp(kind)
    if not instants and not pa.types.is_integer(kind):
        raise InvalidData(
            f"Column {column!r} of {table} is {kind}, which does not say when a row arrived.",
            fix="name a column of timestamps with a time zone, or of whole numbers that only grow.",
        )
    return Arrivals(dialect, table, column, instants, _lateness(lateness, table, instants))


def _lateness(text: str | None, table: str, instants: bool) -> int:
    if text is None:
        return _LATE_US if instants else _LATE_NUMBERS
    try:
        found = parse_duration(text) if instants else int(text)
    except (Invalid, ValueError):
        found = -1
    if found < 0:
        fix = 'it is a duration: "10m".' if instants else 'the arrivals are numbers, so it is one: "1000".'
        raise Invalid(f"The lateness of {table} is {text!r}.", fix=fix)
    return found


def check_table(table: str, found: Mapping[str, pa.DataType], source: Source) -> None:
    """Raise if a table's rows cannot be those of a source.

    Raises:
        InvalidData: A column is missing, or its type is another.
    """
    for column, dtype in source.columns.items():
        kind = found.get(column)
        if kind is None:
            raise InvalidData(
                f"{table} has no column {column!r} that can be read, which source {source.name!r} declares.",
                fix=f"{guess(column, found)}it has {sorted(found)}; add it, or map a view that has it.",
            )
        if not fits(kind, dtype):
            raise InvalidData(
                f"Column {column!r} of {table} is {kind}, but the source declares {dtype.value}.",
                fix="declare its type, or map a view that casts it.",
            )
        if pa.types.is_timestamp(kind) and kind.tz is None:
            raise _without_zone(table, column)


def _without_zone(table: str, column: str) -> InvalidData:
    refused = naive(table, column)
    return InvalidData(refused.what, fix="map a view that says which zone they are of, such as AT TIME ZONE 'UTC'.")
