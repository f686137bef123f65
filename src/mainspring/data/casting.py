"""SQL that turns what came into the declared types, and says of each value that cannot be turned.

Text becomes a number where it is one (an integer has no fraction), a boolean from true/false, yes/no, t/f, 1/0, and an
instant where it is ISO 8601 with a UTC offset, or a date alone: its midnight in UTC. Numbers change type where the
value fits. Every column is addressed as `raw."name"`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mainspring.core.schema import DType
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.duck import DUCK_TYPES, identifier
from mainspring.data.refusals import with_article

_OFFSET = r"(Z|z| ?UTC|[+-]\d\d(:?\d\d)?)$"
_TIME_OF_DAY = r"\d:\d\d"


@dataclass(frozen=True, slots=True)
class Casting:
    """How one column becomes its type. A condition is never null; `value` is null wherever one holds."""

    name: str
    dtype: DType
    value: str  # SQL
    misfit: str | None = None  # SQL: the value is there and is not one of the type; None where that cannot be
    naive: str | None = None  # SQL: it would be an instant if it had a UTC offset

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Pairs of a condition and the reason it stands for."""
        kind = "time" if self.dtype is DType.Timestamp else self.dtype.value
        pairs = [] if self.misfit is None else [(self.misfit, f"{self.name} is not {with_article(kind)}")]
        return pairs if self.naive is None else [*pairs, (self.naive, f"{self.name} has no UTC offset")]


def casting(name: str, came: pa.DataType, dtype: DType) -> Casting:
    """Return how a column that came as `came` (in a form of `data.fitting.plain`) becomes `dtype`."""
    column = f"raw.{identifier(name)}"
    if came.equals(ARROW_TYPES[dtype]):
        return Casting(name, dtype, column)
    cast = f"TRY_CAST({column} AS {DUCK_TYPES[dtype]})"
    good = f"{cast} IS NOT NULL"
    if dtype is DType.Timestamp:
        return _instant(name, column, cast)
    if dtype in (DType.Int32, DType.Int64):
        # The cast alone would round 1.5 to 2, and take 0x10 and 1_000.
        good += f" AND TRY_CAST({column} AS DOUBLE) = {cast}"
    if dtype.numeric and pa.types.is_string(came):
        good += f" AND NOT contains({column}, '_')"
    if dtype is DType.Float32 and not pa.types.is_floating(came) and not pa.types.is_string(came):
        return Casting(name, dtype, cast)
    fits = f"coalesce({good}, false)"
    return Casting(name, dtype, f"CASE WHEN {fits} THEN {cast} END", f"({column} IS NOT NULL AND NOT {fits})")


def _instant(name: str, column: str, cast: str) -> Casting:
    is_instant = f"coalesce(isfinite({cast}) AND regexp_matches({column}, '^[+-]?\\d'), false)"
    offset = f"(suffix({column}, 'Z') OR regexp_matches({column}, '{_OFFSET}'))"
    date_alone = f"NOT regexp_matches({column}, '{_TIME_OF_DAY}')"
    located = f"({offset} OR {date_alone})"
    return Casting(
        name,
        DType.Timestamp,
        f"CASE WHEN {is_instant} AND {located} THEN {cast} END",
        f"({column} IS NOT NULL AND NOT {is_instant})",
        f"({column} IS NOT NULL AND {is_instant} AND NOT {located})",
    )
