"""SQL that casts received values to the declared types and finds those that cannot be cast.

Text becomes a number if it spells one (an integer has no fraction), a boolean from true/false, yes/no, t/f, 1/0, and a
time if it is ISO 8601 with a UTC offset, or a date alone: midnight UTC. Numbers change type if the value fits. The
received value of column `x` is `_came_x`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mainspring.core.expr.sql import SQL_TYPES, quote_name
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.refusals import with_article

CAME = "_came_"
_OFFSET = r"(Z|z| ?UTC|[+-]\d\d(:?\d\d)?)$"
_TIME_OF_DAY = r"\d:\d\d"


@dataclass(frozen=True, slots=True)
class Casting:
    """Cast of one column: SQL expressions for the value (null if the received value does not fit) and for its faults.

    Conditions are never null. `misfit` is None if every value fits.
    """

    name: str
    dtype: DType
    came: str
    value: str
    misfit: str | None = None  # condition: not a value of the type
    naive: str | None = None  # condition: a time without a UTC offset
    far: str | None = None  # condition: a time outside the years 1 to 9999

    @property
    def unfit(self) -> str:
        """Condition that a value was received but could not be cast; cheaper than the individual conditions."""
        lacks = f"({self.came} IS NOT NULL AND {quote_name(self.name)} IS NULL)"
        return lacks if self.misfit or self.far else "false"

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Pairs of a condition and its reason."""
        kind = "time" if self.dtype is DType.Timestamp else self.dtype.value
        pairs = [] if self.misfit is None else [(self.misfit, f"{self.name} is not {with_article(kind)}")]
        pairs += [] if self.naive is None else [(self.naive, f"{self.name} has no UTC offset")]
        return pairs if self.far is None else [*pairs, (self.far, f"{self.name} is not in the years 1 to 9999")]


def casting(name: str, kind: pa.DataType, dtype: DType) -> Casting:
    """Return the cast of a column received as `kind` (a type of `data.arrow_coercion.plain`) to `dtype`."""
    came = quote_name(CAME + name)
    if kind.equals(ARROW_TYPES[dtype]):
        if dtype is not DType.Timestamp:
            return Casting(name, dtype, came, came)
        return Casting(name, dtype, came, f"CASE WHEN {_known(came)} THEN {came} END", far=_far(came))
    cast = f"TRY_CAST({came} AS {SQL_TYPES[dtype]})"
    if dtype is DType.Timestamp:
        return _instant(name, came, cast)
    good = f"{cast} IS NOT NULL"
    if dtype in (DType.Int32, DType.Int64):
        # The cast alone would round 1.5 to 2, and accept 0x10 and 1_000.
        good = f"TRY_CAST({came} AS DOUBLE) = {cast}"
    if dtype.numeric and pa.types.is_string(kind):
        good += f" AND NOT contains({came}, '_')"
    fits = f"coalesce({good}, false)"
    return Casting(name, dtype, came, f"CASE WHEN {fits} THEN {cast} END", f"({came} IS NOT NULL AND NOT {fits})")


def _instant(name: str, came: str, cast: str) -> Casting:
    # The cast alone would accept "epoch" and "infinity": a time begins with a digit or a sign, which sorts below ":".
    is_instant = f"coalesce(isfinite({cast}) AND {came} < ':', false)"
    offset = f"(suffix({came}, 'Z') OR regexp_matches({came}, '{_OFFSET}'))"
    located = f"({offset} OR NOT regexp_matches({came}, '{_TIME_OF_DAY}'))"
    return Casting(
        name,
        DType.Timestamp,
        came,
        f"CASE WHEN {is_instant} AND {located} AND {_known(cast)} THEN {cast} END",
        f"({came} IS NOT NULL AND NOT {is_instant})",
        f"({came} IS NOT NULL AND {is_instant} AND NOT {located})",
        f"({is_instant} AND {located} AND {_far(cast)})",
    )


def _known(instant: str) -> str:
    """Return the condition that a time lies in the years 1 to 9999, the range of Python and JSON."""
    return f"coalesce(epoch_us({instant}) BETWEEN {FIRST_INSTANT} AND {LAST_INSTANT}, false)"


def _far(instant: str) -> str:
    return f"({instant} IS NOT NULL AND NOT {_known(instant)})"
