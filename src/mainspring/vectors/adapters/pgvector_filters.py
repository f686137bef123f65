"""Filters as SQL of Postgres, with every constant as a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, Schema
from mainspring.vectors.conditions import Among, Condition, Every, Null, Some

_WIDE = {
    DType.String: "text",
    DType.Boolean: "boolean",
    DType.Int32: "bigint",
    DType.Int64: "bigint",
    DType.Float32: "double precision",
    DType.Float64: "double precision",
    DType.Timestamp: "bigint",
}


def compiled(wanted: Condition, fields: Schema, columns: Mapping[str, str]) -> tuple[str, list[Any]]:
    """Return a condition as SQL, and its parameters in their order.

    Raises:
        Invalid: A text has NUL, which Postgres has not.
    """
    given: list[Any] = []

    def parameter(value: Any, kind: str) -> str:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and "\0" in each:
                raise Invalid("A filter has a text with NUL, which no field has.", fix="leave the NUL out.")
        given.append(value)
        return f"%s::{kind}"

    def sql(part: Condition) -> str:
        if isinstance(part, (Every, Some)):
            joint, alone = (" AND ", "TRUE") if isinstance(part, Every) else (" OR ", "FALSE")
            return f"({joint.join(map(sql, part.parts)) or alone})"
        column, kind = columns[part.field], _WIDE[fields[part.field]]
        if isinstance(part, Null):
            return f"{column} IS {'NOT ' if part.negated else ''}NULL"
        if isinstance(part, Among):
            within = f"{column} = ANY({parameter(list(part.values), f'{kind}[]')})"
        else:
            ends = []
            if part.low is not None:
                ends.append(f"{column} {'>=' if part.low_in else '>'} {parameter(part.low, kind)}")
            if part.high is not None:  # NaN is above all for Postgres, and every range of numbers has an end
                ends.append(f"{column} {'<=' if part.high_in else '<'} {parameter(part.high, kind)}")
            within = " AND ".join(ends)
        return f"({column} IS NOT NULL AND NOT ({within}))" if part.negated else f"({within})"

    return sql(wanted), given
